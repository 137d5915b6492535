"""What a run leaves in its folder besides curves: the best and the last checkpoints, its config."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import pytorch_lightning as pl
from omegaconf import OmegaConf
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint
from pytorch_lightning.trainer.states import TrainerFn

from utils import checkpoint_files
from utils.checkpoint_files import LAST, PREDECESSOR

CHECKPOINTS = "checkpoints"
CONFIG = "config.yaml"


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
    """Renews ``last.ckpt``: always one file of one name, so that a script can resume from it; what it was is ``last-1.ckpt``.

    Args:
        folder: the run folder.
        every: renew after this many optimizer steps; None renews after each validation and epoch. Both renew at the end.
    """

    def __init__(self, folder: Path, every: int | None) -> None:
        self.path = folder / CHECKPOINTS / LAST
        self.every = every
        self._saved_at = -1

    def save(self, trainer: pl.Trainer, *, again: bool = False) -> None:
        """Write it, unless it is of this very step. Every rank must call this: saving is a joint effort.

        Args:
            trainer: of the run.
            again: write it also if it is of this step.
        """
        if again or trainer.global_step != self._saved_at:
            self._saved_at = trainer.global_step
            trainer.save_checkpoint(self.path, storage_options=self.path.with_name(PREDECESSOR))

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remove what a killed run left unfinished in this folder."""
        if trainer.is_global_zero:
            checkpoint_files.sweep(self.path.parent)

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
