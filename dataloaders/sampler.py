"""The order of samples: a function of (seed, epoch, position), the same for any number of ranks, resumable within an epoch."""

from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import torch

from dataloaders.batch import Batch
from dataloaders.contracts import Part
from dataloaders.mixture import Mixture
from utils.distributed import rank, world_size
from utils.errors import CheckpointError, DataError
from utils.workers import WatchedLoader

PADDING = -1
"""Epoch in the key of a window that only fills the last validation batch: all its samples are marked invalid."""

Key = tuple[int, int]


class TrainOrder:
    """Batches of ``(epoch, position)`` keys of this rank: a slice of each global batch of a seeded permutation.

    Args:
        traces: in the split.
        batch: windows a rank and step.
        seed: of the run.
        mixture: of weighted sets; None: every trace once an epoch.

    Raises:
        DataError: a global batch is larger than an epoch.
    """

    def __init__(self, traces: int, batch: int, seed: int, mixture: Mixture | None = None) -> None:
        self.traces, self.batch, self.seed, self.mixture = traces, batch, seed, mixture
        self.windows = traces if mixture is None else len(mixture)
        self.rank, self.ranks = rank(), world_size()
        self.epoch = 0
        self.start = 0
        if batch * self.ranks > self.windows:
            what = f"{traces} traces" if mixture is None else f"{self.windows} windows an epoch"
            raise DataError(
                f"train split: {what}, but a step takes loader.batch_size = {batch} on each of {self.ranks} "
                f"device(s) = {batch * self.ranks}. Set loader.batch_size to {max(1, self.windows // self.ranks)} or less."
            )

    def __len__(self) -> int:
        return self.windows // (self.batch * self.ranks)

    def __iter__(self) -> Iterator[list[Key]]:
        order = self._order()
        for step in range(self.start, len(self)):
            first = (step * self.ranks + self.rank) * self.batch
            yield [(epoch, position) for epoch, position in order[first : first + self.batch].tolist()]

    def _order(self) -> np.ndarray:
        """The keys of all ranks, ``windows 2``."""
        if self.mixture is not None:
            return self.mixture.epoch(self.seed, self.epoch)
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + self.epoch) % 2**63)
        order = torch.randperm(self.traces, generator=generator).numpy()
        return np.stack([np.full_like(order, self.epoch), order], 1)


class EvalOrder:
    """All traces once, in order, split over the ranks; every rank gets equally many batches, the last one filled up."""

    def __init__(self, traces: int, batch: int) -> None:
        self.traces, self.batch = traces, batch
        self.rank, self.ranks = rank(), world_size()

    def __len__(self) -> int:
        return -(-self.traces // (self.batch * self.ranks))

    def __iter__(self) -> Iterator[list[Key]]:
        for step in range(len(self)):
            first = step * self.batch * self.ranks
            last = min(first + self.batch * self.ranks, self.traces)
            share = -(-(last - first) // self.ranks)
            mine = range(first + self.rank * share, first + (self.rank + 1) * share)
            yield [(0, position) if position < last else (PADDING, 0) for position in mine]


def mark_padding(batch: Batch) -> Batch:
    """Collate function: a source has built the batch; windows that only fill it are marked invalid and lose their labels."""
    real = batch.epoch != PADDING
    onsets = None if batch.onsets is None else torch.where(real[:, None], batch.onsets, -1)
    label = None if batch.label is None else torch.where(real, batch.label, -1)
    return batch._replace(valid=batch.valid & real[:, None], onsets=onsets, label=label)


class TrainLoader:
    """A DataLoader that knows where in which epoch it is; Lightning stores its state in every checkpoint.

    The position is counted when a batch is consumed, so batches that workers hold ready are not lost on resume.

    Attributes:
        limit: batches after which an epoch ends, where that is before the last one (``trainer.limit_train_batches``).
    """

    def __init__(self, part: Part, batch: int, seed: int, **options: Any) -> None:
        self.order = TrainOrder(len(part), batch, seed, part.mixture)
        self.loader: WatchedLoader[Batch] = WatchedLoader(
            part, name=part.name, batch_sampler=self.order, collate_fn=cast(Any, mark_padding), **options
        )
        self.epoch = 0
        self.done = 0
        self.limit = len(self.order)
        self._resumed = False

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[Batch]:
        if not self._resumed:
            self.epoch += self.done > 0  # an epoch that was cut short is over: the next one draws anew
            self.done = 0
        self._resumed = False
        self.order.epoch, self.order.start = self.epoch, self.done
        for batch in self.loader:
            self.done += 1
            if self.done == len(self):
                self.epoch, self.done = self.epoch + 1, 0
            yield batch

    def _identity(self) -> dict[str, int]:
        return {"traces": self.order.traces, "global_batch": self.order.batch * self.order.ranks, "seed": self.order.seed}

    def state_dict(self) -> dict[str, int]:
        """Epoch and batches done in it, and what must be equal on resume; Lightning's protocol for stateful loaders."""
        over = self.done >= self.limit
        return {"epoch": self.epoch + over, "done": 0 if over else self.done, **self._identity()}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue after the last consumed batch.

        Raises:
            CheckpointError: traces, global batch or seed are not those of the checkpoint.
        """
        changed = [f"{name} {state[name]} → {value}" for name, value in self._identity().items() if state[name] != value]
        if changed:
            raise CheckpointError(
                "train.ckpt_path: the run cannot go on where it stopped, since the order of samples has changed "
                f"({'; '.join(changed)}). Use the same data, seed and batch size (times devices), "
                "or start a new run from the weights with model.checkpoint_path."
            )
        self.epoch, self.done, self._resumed = state["epoch"], state["done"], True
