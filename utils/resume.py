"""What a resumed run needs besides weights: the state of every rank's random generators, and where in an epoch it is."""

import random
from typing import Any, final

import numpy as np
import pytorch_lightning as pl
import torch
from torch import distributed

KEY = "generators"


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
