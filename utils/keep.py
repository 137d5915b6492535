"""What a run leaves in its folder besides curves: the best and the last checkpoints, its config; and Ctrl-C without loss."""

import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, final

import pytorch_lightning as pl
from omegaconf import OmegaConf
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint
from pytorch_lightning.trainer.states import TrainerFn

from utils.pace import interval

CHECKPOINTS = "checkpoints"
CONFIG = "config.yaml"
LAST = "last.ckpt"


def best(folder: Path, monitor: tuple[str, str], top: int) -> ModelCheckpoint:
    """Keeps the ``top`` best checkpoints, judged after each validation: ``step_000200-val_accuracy_0.213.ckpt``.

    No ``=`` in the name: a command line would read it as a setting.

    Args:
        folder: the run folder.
        monitor: (metric, ``"min"`` or ``"max"``), see ``Task.monitor``.
        top: how many, 0 or more.
    """
    metric, mode = monitor
    name = metric.replace("/", "_")
    return ModelCheckpoint(
        dirpath=folder / CHECKPOINTS,
        filename=f"step_{{step:06d}}-{name}_{{{metric}:.3f}}",
        auto_insert_metric_name=False,
        monitor=metric,
        mode=mode,
        save_top_k=top,
        save_on_train_epoch_end=False,
        enable_version_counter=False,  # a resumed run that comes by the same step again writes the same file
    )


@final
class LastCheckpoint(Checkpoint):
    """Renews ``last.ckpt``: always one file of one name, so that a script can resume from it.

    Args:
        folder: the run folder.
        every: renew after this many optimizer steps; None renews after each validation and epoch. Both renew at the end.
    """

    def __init__(self, folder: Path, every: int | None) -> None:
        self.path = folder / CHECKPOINTS / LAST
        self.every = every
        self._saved_at = -1

    def save(self, trainer: pl.Trainer) -> None:
        """Write it, unless it is of this very step. Every rank must call this: saving is a joint effort."""
        if trainer.global_step != self._saved_at:
            self._saved_at = trainer.global_step
            trainer.save_checkpoint(self.path)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Nothing is worth saving before the first step; a resumed run starts from a saved one."""
        self._saved_at = trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Renew every so many steps."""
        if self.every is not None and trainer.global_step % self.every == 0:
            self.save(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Renew after a validation of training, not after the sanity check."""
        if self.every is None and trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self.save(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Renew after an epoch."""
        if self.every is None:
            self.save(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The end is always kept."""
        self.save(trainer)


@final
class Record(pl.Callback):
    """Writes the resolved config into the run folder when training is about to start.

    Args:
        config: plain builtins.
        folder: the run folder.
    """

    def __init__(self, config: Mapping[str, Any], folder: Path) -> None:
        self.config = dict(config)
        self.path = folder / CONFIG

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Rank 0 writes; a comment on top says which kernels the run settled on."""
        if trainer.is_global_zero:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            chosen = pl_module.network.backbone.describe()  # type: ignore[union-attr]
            said = f"# kernels  {chosen}\n" if chosen else ""
            self.path.write_text(said + OmegaConf.to_yaml(OmegaConf.create(self.config)))


@final
class Interrupt(pl.Callback):
    """Ctrl-C finishes the step, saves ``last.ckpt`` and stops; a second Ctrl-C stops at once.

    Stopping in the middle of a step would leave weights between two steps. Several ranks agree at the end of a logging
    interval, where they wait for each other anyway. After it, Lightning leaves ``fit`` through ``SystemExit``.

    Args:
        save: called once when the run stops, on every rank.
    """

    def __init__(self, save: Callable[[pl.Trainer], None]) -> None:
        self.save = save
        self.asked = False
        self._before: Any = None
        self._process = os.getpid()
        self._speaks = True
        self._agreed = False
        self._step = -1

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Listen from before loader workers start, so that they inherit the handler and outlive the first Ctrl-C."""
        self._speaks = trainer.is_global_zero
        before = signal.getsignal(signal.SIGINT)
        if before is signal.default_int_handler:  # a background job ignores Ctrl-C, a notebook has its own way
            self._before, self._process = before, os.getpid()
            signal.signal(signal.SIGINT, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        if self._speaks:  # not through a stream: this may interrupt a write to one
            os.write(2, b"\nStopping after this step, and saving. Ctrl-C again stops at once.\n")

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save here if asked to stop: between two steps, with the loader's position counted right."""
        if trainer.global_step == self._step:
            return  # in the middle of accumulating a step
        self._step = trainer.global_step
        if trainer.world_size == 1:
            self._agreed = self.asked
        elif self._step % interval(trainer) == 0:
            self._agreed = trainer.strategy.reduce_boolean_decision(self.asked, all=False)
        if self._agreed:
            self.save(trainer)

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        """Stop here, after the curves of the last step were written and the validation that was due was run."""
        if self._agreed:
            raise KeyboardInterrupt

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count from here."""
        self._step = trainer.global_step

    def on_sanity_check_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Before the first step there is nothing to save."""
        if self.asked:
            raise KeyboardInterrupt

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Give the signal back."""
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None
