"""A run of two gloo ranks for tests of faults: ``python tests/two_ranks.py [fault=…] [resume]``, in the folder it is to write to.

Faults: ``raise`` on rank 1, ``kill`` rank 1, ``kill-first``: rank 0, all in step 9; ``nan``: the losses of rank 1 from step 9
on; ``drift``: a weight of rank 1 changes in step 9; ``signal``: SIGUSR1 to rank 1 in step 9. A file ``fault`` is made where and
when a rank fails in step 9.
Prints ``steps N`` at its end.
"""

import importlib.util
import os
import signal
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from utils.supervision import end_with_parent  # noqa: E402 - after the path

end_with_parent()

import pytorch_lightning as pl  # noqa: E402 - watched over from before
import torch  # noqa: E402

from utils import runlog  # noqa: E402
from utils.errors import WaveError  # noqa: E402
from utils.preemption import Stopped  # noqa: E402

STEP = 9


class Fault(pl.Callback):
    """Does what the command line says in step 9."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        step: Any = pl_module.training_step

        def spoilt(batch: Any, batch_idx: int) -> Any:
            return step(batch, batch_idx) * (1.0 if trainer.global_step + 1 < STEP else float("nan"))

        if self.kind == "nan" and trainer.global_rank == 1:
            pl_module.training_step = spoilt  # type: ignore[method-assign]

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: torch.Tensor) -> None:
        if trainer.global_step + 1 < STEP:
            return
        if self.kind == "drift" and trainer.global_rank == 1 and trainer.global_step + 1 == STEP:
            with torch.no_grad():
                pl_module.network.decoder.linear.bias[3] += 1e-3  # type: ignore[union-attr, index]
        if self.kind == "signal" and trainer.global_rank == 1 and trainer.global_step + 1 == STEP:
            os.kill(os.getpid(), signal.SIGUSR1)
        if self.kind in (("kill-first",), ("kill", "raise"))[trainer.global_rank]:
            Path("fault").touch()
        if self.kind == "raise" and trainer.global_rank == 1:
            raise ValueError("rank 1 has a fault")
        if self.kind == ("kill-first", "kill")[trainer.global_rank]:
            os.kill(os.getpid(), signal.SIGKILL)


def main(words: list[str]) -> None:
    spec = importlib.util.spec_from_file_location("tiny", ROOT / "tests" / "utils" / "conftest.py")
    assert spec is not None
    assert spec.loader is not None
    tiny: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tiny)
    torch.set_num_threads(1)
    faults = [word.removeprefix("fault=") for word in words if word.startswith("fault=")]
    steps = 12 if faults or "short" in words else 60
    run = tiny.tiny(devices=2, max_epochs=-1, max_steps=steps, log_every_n_steps=3, enable_progress_bar=False)
    run.config["pictures"]["enabled"] = False
    run.config["guard"] = {"compare_ranks_every": 5}
    last = runlog.folder(run.config) / "checkpoints" / "last.ckpt"
    trainer = runlog.trainer(run.config, run.module, [Fault(kind) for kind in faults])
    try:
        trainer.fit(run.module, run.data, ckpt_path=str(last) if "resume" in words else None, weights_only=True)
    except Stopped as stopped:
        runlog.stop(run.config, run.module, trainer, stopped)
    except WaveError as error:
        sys.exit(str(error))
    if trainer.is_global_zero:
        sys.stdout.write(f"steps {trainer.global_step}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
