"""What a source of waveforms promises."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from torch.utils.data import Dataset

from dataloaders.batch import Batch, DataSpec
from dataloaders.mixture import Mixture
from utils.registry import Registry


class Split(str, Enum):
    """The three parts of a source; validation is ``dev``."""

    train = "train"
    dev = "dev"
    test = "test"


class Part(Dataset[Batch], ABC):
    """One split of a source. Asked for whole batches at once, so that reading and simulating are vectorised.

    Attributes:
        spec: what its batches look like.
        mixture: how much of each set an epoch holds; None: every trace once.
    """

    spec: DataSpec
    mixture: Mixture | None = None

    @abstractmethod
    def __len__(self) -> int:
        """Number of traces."""

    @abstractmethod
    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> Batch:
        """The batch for ``(epoch, position)`` keys, position in ``0 … len − 1``. Pure: the same keys give the same batch.

        In a mixture the first number is not the epoch, but which pass over its set shows the trace.

        Only cheap work: read, crop, pad. Normalising and masking happen on the batch, on its device.
        """

    def name(self, trace: int) -> str:
        """What to call a trace in messages: its file and place, where it has one.

        Args:
            trace: its number, as ``Batch.index`` has it.
        """
        return f"trace {trace}"

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        """A batch of one."""
        return self.__getitems__([key])


@dataclass(frozen=True)
class Outlook:
    """What the settings of a source say before anything is opened.

    Attributes:
        spec: what its batches look like.
        traces: of the training split; None where only the data can tell.
        origin: where that number is from, or why there is none.
        stored: whether windows are read from a disk.
    """

    spec: DataSpec
    traces: int | None
    origin: str
    stored: bool


class Source(ABC):
    """A set of waveforms, on disk or simulated: ``Source(settings, seed=…)``.

    Attributes:
        spec: what its batches look like.
    """

    spec: DataSpec

    @classmethod
    @abstractmethod
    def outlook(cls, cfg: Any) -> Outlook:
        """What can be said of the source from its settings alone, without touching data.

        Args:
            cfg: settings of this kind of source.
        """

    @abstractmethod
    def part(self, split: Split) -> Part:
        """The traces of a split.

        Raises:
            DataError: the split is empty or unusable; says what to do.
        """

    @abstractmethod
    def describe(self) -> str:
        """A line or a short table for the start of a run: sets, traces a split, what was skipped and why."""


SOURCES: Registry[Source] = Registry("dataset")
