"""Stops a run whose loss or weights are no longer finite, before such weights replace a good checkpoint."""

import csv
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, final

import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor, distributed, nn

from utils.errors import TrainingError
from utils.pace import interval
from utils.preemption import Stopped

FILE = "non_finite.csv"
"""In the run folder: the traces of the batches that stopped a run, a row each."""


class _Seen(NamedTuple):
    """A training batch: optimizer steps done after it, loss (scalar), and ``B`` epochs and trace numbers; on the device."""

    step: int
    loss: Tensor
    epoch: Tensor
    index: Tensor


@final
class NonFinite(pl.Callback):
    """Ends a run with an error, on every rank, where the loss was NaN or infinite in too many batches in a row, on any of them.

    A single bad batch is let pass if the weights survive it. Weights that are not finite end the run at once where a
    checkpoint would be written: nothing brings them back.

    Counting stays on the device. The host looks at the end of a logging interval, when it waits for the metrics anyway, and
    before anything is saved.

    Args:
        folder: the run folder.
        limit: bad batches in a row that end the run.
        every: ``last.ckpt`` is renewed after this many optimizer steps; None does so after validations and epochs.
    """

    def __init__(self, folder: Path, limit: int, every: int | None) -> None:
        self.path = folder / FILE
        self.limit = limit
        self.every = every
        self._seen: list[_Seen] = []
        self._row = self._worst = torch.zeros(())

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count; look at the end of a logging interval, and where ``last.ckpt`` is about to be renewed."""
        loss, step = outputs["loss"].detach().clone(), trainer.global_step
        self._seen.append(_Seen(step, loss, batch.epoch, batch.index))
        self._row = torch.where(loss.isfinite(), 0.0, self._row.to(loss.device) + 1)
        self._worst = torch.maximum(self._worst.to(loss.device), self._row)
        saves = self.every is not None and step % self.every == 0
        if saves or step % interval(trainer) == 0:
            self.look(trainer, saves=saves)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """After a validation checkpoints are written."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self.look(trainer, saves=True)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """After an epoch too; this runs before what writes them."""
        self.look(trainer, saves=True)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """And at the end."""
        self.look(trainer, saves=True)

    def look(self, trainer: pl.Trainer, *, saves: bool) -> None:
        """Wait for the device and judge; every rank must call this.

        Args:
            trainer: of the run.
            saves: a checkpoint is about to be written: weights must be finite.

        Raises:
            TrainingError: on the first rank, if the run must end.
            Stopped: on the others.
        """
        broken = _broken(trainer.lightning_module) if saves else self._row.new_zeros(())
        found = torch.stack([self._worst, broken.to(self._worst)])
        if trainer.world_size > 1:
            found = found.to(trainer.strategy.root_device)
            distributed.all_reduce(found, distributed.ReduceOp.MAX)
        worst, lost = found.tolist()
        if worst >= self.limit or lost:
            self._end(trainer)
        self._worst = self._row
        del self._seen[: -self.limit]

    def _end(self, trainer: pl.Trainer) -> NoReturn:
        name = trainer.datamodule.name  # type: ignore[attr-defined]  # where a trace lies
        rows = [(*row, name(row[-1])) for seen in self._seen for row in _rows(trainer.global_rank, seen)]
        if trainer.world_size > 1:
            shared: list[Any] = [None] * trainer.world_size
            distributed.all_gather_object(shared, rows)
            rows = sorted(row for of_rank in shared for row in of_rank)
        if not trainer.is_global_zero:
            raise Stopped(0)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("w", newline="") as file:
            csv.writer(file).writerows([("step", "rank", "loss", "epoch", "trace", "name"), *rows])
        raise TrainingError(_told(rows, self.path, lost=bool(_broken(trainer.lightning_module))))


def _broken(module: nn.Module) -> Tensor:
    """Whether a weight is NaN or infinite; scalar bool, on the device."""
    return ~torch.stack([weight.detach().isfinite().all() for weight in module.parameters()]).all()


def _rows(rank: int, seen: _Seen) -> list[tuple[int, int, float, int, int]]:
    """A row for each trace of a batch whose loss is not finite."""
    loss = float(seen.loss)
    if seen.loss.isfinite():
        return []
    return [(seen.step, rank, loss, *key) for key in zip(seen.epoch.tolist(), seen.index.tolist(), strict=True)]


def _told(rows: list[tuple[int, int, float, int, int, str]], path: Path, *, lost: bool) -> str:
    steps = sorted({row[0] for row in rows})
    which = f"the loss was NaN or infinite in step {', '.join(map(str, steps[:8]))}{' …' if len(steps) > 8 else ''}"
    what = which if steps else "the loss is finite"
    weights = "; the weights are no longer finite" if lost else ""
    return (
        f"training: {what}{weights}. Checkpoints are as they were before. The {len(rows)} traces of these batches are listed in "
        f"{path}. Look at their waveforms; lower optimizer.lr or trainer.gradient_clip_val, or try trainer.precision=32-true. "
        f"The run goes on from its last checkpoint with train.ckpt_path={path.parent}"
    )
