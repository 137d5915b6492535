"""What a resumed run needs besides weights: every rank's random generators, where in an epoch it is, what it still owes there."""

import random
from typing import Any, final

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, distributed

KEY = "generators"
MONITORED = "monitored"
"""Where a checkpoint holds the values that schedules watch (``plateau``)."""


def _states() -> dict[str, Any]:
    """States of this process's generators as tensors and integers, which the safe loader reads."""
    version, numbers, _ = random.getstate()
    _, keys, position, *_ = np.random.get_state()  # noqa: NPY002 - libraries may still draw from it
    states: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": [torch.from_numpy(np.asarray(keys).astype(np.int64)), int(position)],
        "python": [int(version), list(numbers)],
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def _restore(states: dict[str, Any]) -> None:
    torch.set_rng_state(states["torch"])
    keys, position = states["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), position, 0, 0.0))  # noqa: NPY002
    version, numbers = states["python"]
    random.setstate((version, tuple(numbers), None))
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


@final
class GeneratorStates(pl.Callback):
    """Carries every rank's generator states in the checkpoint and restores them before the first resumed batch.

    Gumbel noise and dropout draw from these; crops, masks and negatives need no state (see :mod:`utils.rng`). On another
    number of ranks the states are not used.
    """

    def __init__(self) -> None:
        self._loaded: list[dict[str, Any]] | None = None

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Gather the states of all ranks (a collective: Lightning calls this on every rank)."""
        states: list[Any] = [_states()]
        if trainer.world_size > 1:
            states = [None] * trainer.world_size
            distributed.all_gather_object(states, _states())
        checkpoint[KEY] = states

    def on_load_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep them until training starts: what runs before (sanity validation) must not use them up."""
        self._loaded = checkpoint.get(KEY)

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        """Restore this rank's states, once."""
        self._give_back(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The same where a validation comes first (:class:`Owed`)."""
        if not trainer.sanity_checking:
            self._give_back(trainer)

    def _give_back(self, trainer: pl.Trainer) -> None:
        if self._loaded is not None and len(self._loaded) == trainer.world_size:
            _restore(self._loaded[trainer.global_rank])
        self._loaded = None


@final
class EpochEnds(pl.Callback):
    """Has every checkpoint say rightly in which epoch it is, and whether its batch was the last one of it.

    Lightning counts the batches that this process has fetched, of which a resumed one fetches fewer, and does not count the
    beginning of an epoch that follows on a resume at the end of another. Resumed twice, a run would train an epoch too many.
    """

    def __init__(self) -> None:
        self._within = False

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        """An epoch has begun."""
        self._within = True

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """From here on its counts are right, or as those who wrote the loop expect them."""
        self._within = False

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Within an epoch: begun is one more than done; the last batch is the one with that number."""
        loop = checkpoint["loops"]["fit_loop"]
        batches = loop["epoch_loop.batch_progress"]
        batches["is_last_batch"] = batches["current"]["ready"] >= trainer.num_training_batches
        if self._within:
            for counts in (loop["epoch_progress"]["total"], loop["epoch_progress"]["current"]):
                done = counts["processed"]
                counts |= {"ready": done + 1, "started": done + 1, "completed": done}


@final
class Owed(pl.Callback):
    """Has a resumed run do first what was due at the step of its checkpoint and not done yet: validation, ``plateau``'s step.

    A checkpoint is often written between a step and the validation of that step. Lightning takes such a validation for done, and
    does not step ``plateau`` at the end of an epoch within which a run was resumed, since it keeps no metrics. Here the
    checkpoint marks the step as completed and its validation as begun, which Lightning then runs, all of it; and keeps what
    schedules watch.
    """

    def __init__(self) -> None:
        self._between = False
        self._watched: dict[str, Tensor] = {}
        self._owed_at: int | None = None
        self._max_steps: int | None = None

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        """What was due before this batch is done."""
        self._between = False

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """From here until a validation has ended, a checkpoint owes it, where one is due."""
        self._between = True

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """It is done: the checkpoints it leads to (:func:`utils.keep.best`), which are written after this, owe nothing."""
        self._between = False

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Mark a validation that is due; keep what schedules watch."""
        watched = _watched(trainer)
        checkpoint[MONITORED] = {name: value for name, value in trainer.callback_metrics.items() if name in watched}
        if self._between and _due(trainer):
            loops = checkpoint["loops"]["fit_loop"]
            for counts in (loops["epoch_loop.batch_progress"][span] for span in ("total", "current")):
                counts["completed"] = counts["processed"]
            validation = loops["epoch_loop.val_loop.batch_progress"]
            done = validation["total"]["completed"]
            validation["total"] |= {"ready": done + 1, "started": done + 1, "processed": done}
            validation["current"] |= {"ready": 1, "started": 1, "processed": 0, "completed": 0}

    def on_load_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep what was kept, and at which step a validation is owed, until training starts."""
        self._watched = checkpoint.get(MONITORED, {})
        counts = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]["current"]
        self._owed_at = checkpoint["global_step"] if counts["ready"] > counts["processed"] else None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning would not begin where ``max_steps`` is reached: one more, until the validation of the last step starts."""
        loop = trainer.fit_loop.epoch_loop
        if self._owed_at is not None and 0 < loop.max_steps <= self._owed_at:
            self._max_steps, loop.max_steps = loop.max_steps, self._owed_at + 1

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give schedules back what they watch; train no step more where settings changed, and no validation is due now."""
        trainer.callback_metrics.update({name: value.to(pl_module.device) for name, value in self._watched.items()})
        self._watched, self._owed_at = {}, None
        if not _due(trainer):
            self._settle(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The step beyond the last one was only lent."""
        self._settle(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Step ``plateau``, which Lightning does right after this, as in any epoch; without the value it watches, as it would."""
        if _watched(trainer) <= trainer.callback_metrics.keys():
            trainer.fit_loop._restarting = False

    def _settle(self, trainer: pl.Trainer) -> None:
        if self._max_steps is not None:
            trainer.fit_loop.epoch_loop.max_steps, self._max_steps = self._max_steps, None


def _watched(trainer: pl.Trainer) -> set[str | None]:
    """Names of the values that schedules watch."""
    return {schedule.monitor for schedule in trainer.lr_scheduler_configs if schedule.reduce_on_plateau}


def _due(trainer: pl.Trainer) -> bool:
    """Whether Lightning validates after the batch it is at."""
    loop = trainer.fit_loop
    return loop._data_fetcher is not None and loop.epoch_loop._should_check_val_fx(loop._data_fetcher)
