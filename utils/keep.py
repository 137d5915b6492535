"""What a run leaves in its folder besides curves: the best and the last checkpoints, its config."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import pytorch_lightning as pl
from omegaconf import OmegaConf
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint
from pytorch_lightning.trainer.states import TrainerFn

from utils import checkpoint, checkpoint_files
from utils.checkpoint_files import LAST, PREDECESSOR

CHECKPOINTS = "checkpoints"
CONFIG = "config.yaml"
_NAME = re.compile(r"step_(\d{6,})-(\w+)_(-?\d+\.\d{3}|-?inf|nan)\.ckpt")
"""Of one of the best, with its step, metric and value, as :func:`best` has it; all of a file's name."""


@final
class BestCheckpoints(ModelCheckpoint):
    """Lightning's, which removes from a resumed run's folder, too, what is no longer among the best.

    Lightning writes a new best, then removes the one that it replaces. It does not know of the one that a kill between the two
    left, and it keeps the one that the run was resumed from. Only files that lay there at the start are looked at here, and
    each only once the run is as far as its step: from an older checkpoint it will pass the later ones again. What is better than
    the worst of the best stays. In a folder that was moved, Lightning forgets which were the best; then all stay.
    """

    _found: tuple[tuple[int, float, Path], ...] = ()

    @property
    def state_key(self) -> str:
        """As Lightning's own, whose state is in the checkpoints of earlier versions."""
        return super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note which there are, if this run knows the best of those it goes on from."""
        folder, name = Path(str(self.dirpath)), str(self.monitor).replace("/", "_")
        if trainer.is_global_zero and self.best_k_models and folder.is_dir():
            named = [(_NAME.fullmatch(file.name), file) for file in folder.iterdir()]
            self._found = tuple((int(known[1]), float(known[3]), file) for known, file in named if known and known[2] == name)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning's own, which may write a new best; then remove what is none any more."""
        super().on_validation_end(trainer, pl_module)
        if not trainer.sanity_checking:
            self._remove_superseded(trainer)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A run that was killed after its last validation does none when it is resumed."""
        self._remove_superseded(trainer)

    def _remove_superseded(self, trainer: pl.Trainer) -> None:
        best = {Path(path).name for path in self.best_k_models}
        old = {file for step, value, file in self._found if step <= trainer.global_step and file.name not in best}
        old -= {file for _, value, file in self._found if self._beats_the_worst(value)}
        self._found = tuple(one for one in self._found if one[2] not in old)
        for file in old:
            trainer.strategy.remove_checkpoint(file)

    def _beats_the_worst(self, value: float) -> bool:
        """Whether a value, as rounded in a name, is better than the worst of the best."""
        if not self.kth_best_model_path:
            return False
        worst = round(float(self.best_k_models[self.kth_best_model_path]), 3)
        return value < worst if self.mode == "min" else value > worst


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
    return BestCheckpoints(
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
        """Remove what a killed run left unfinished in this folder.

        A run that goes on from one of its best, with no ``last.ckpt`` of that step or a later one, was killed before it wrote
        that. It is made up for here: where that was the final step, there is no later one.
        """
        if not trainer.is_global_zero:
            return
        checkpoint_files.sweep(self.path.parent)
        start = Path(trainer.ckpt_path or "")
        known = _NAME.fullmatch(start.name)
        if start.resolve().parent == self.path.parent.resolve() and known and self._step() < int(known[1]):
            checkpoint_files.write(self.path, start.read_bytes(), self.path.with_name(PREDECESSOR))

    def _step(self) -> int:
        """Of the ``last.ckpt`` that is there; −1 where there is none that is whole."""
        return checkpoint.read(self.path).step if self.path.is_file() and checkpoint_files.refusal(self.path) is None else -1

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
