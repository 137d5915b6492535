"""What every source around a mainshock has in common: settings, classes and splits of its traces, events of its parts."""

from abc import ABC
from dataclasses import dataclass

import numpy as np

from dataloaders.contracts import Part, Split
from dataloaders.foreshock.classes import CLASS_COUNTS, class_names, classify, split_in_time, thinned
from dataloaders.normalise import PrepareConfig
from dataloaders.sets.splits import SPLITS
from utils.errors import demand


class EventPart(Part, ABC):
    """A split whose traces have classes and show known events.

    Attributes:
        label: ``N`` int64, class of each trace.
        event: ``N`` int64, identifier of each trace's event: what is resampled for intervals.
    """

    label: np.ndarray
    event: np.ndarray


@dataclass(kw_only=True)
class ClassesConfig(PrepareConfig):
    """Settings of every sequence around a mainshock."""

    classes: int = 9
    """How many stretches of time to tell apart: 2, 4 or 8, half of them before the mainshock, or 9 with Visso between."""
    samples: int = 2560
    """Length of a window at 100 Hz: 25.6 s. Shorter traces are padded, longer ones cut around P."""
    training_fraction: float = 1.0
    """Share of the training events of each class that is used, a nested seeded subset; dev and test never change with it."""
    split_seed: int = 0
    """Decides the subset of ``training_fraction``, and nothing else: splits follow from time."""

    def __post_init__(self) -> None:
        super().__post_init__()
        demand(
            (self.classes in CLASS_COUNTS, f"classes = {self.classes}: must be one of {', '.join(map(str, CLASS_COUNTS))}"),
            (self.samples >= 64, f"samples = {self.samples}: must be at least 64"),
            (0 < self.training_fraction <= 1, f"training_fraction = {self.training_fraction}: must be above 0 and at most 1"),
        )


@dataclass(frozen=True)
class Sorted:
    """Events with their classes and splits.

    Attributes:
        label: ``N`` class of each trace, −1 unused.
        split: ``N``, 0 train, 1 dev, 2 test, −1 unused: with every training event.
        used: ``N`` bool, after ``training_fraction``.
    """

    label: np.ndarray
    split: np.ndarray
    used: np.ndarray

    def traces(self, split: Split) -> np.ndarray:
        """Numbers of the traces of a split."""
        return np.flatnonzero(self.used & (self.split == SPLITS.index(split.value)))

    def table(self, names: tuple[str, ...]) -> str:
        """A line a class: traces in each split."""
        width = max(map(len, names))
        lines = [f"{'class':<{width}} {'train':>7} {'dev':>7} {'test':>7}"]
        for number, name in enumerate(names):
            counts = [int((self.label[self.traces(split)] == number).sum()) for split in Split]
            lines.append(f"{name:<{width}} " + " ".join(f"{count:>7,}" for count in counts))
        return "\n".join(lines)


def sort_traces(cfg: ClassesConfig, event: np.ndarray, time: np.ndarray, sequence: np.ndarray, number: np.ndarray) -> Sorted:
    """Classes and splits of traces, decided by event.

    Args:
        cfg: classes and training fraction.
        event: ``N`` identifiers; an event may have several traces.
        time: ``N``, s to the mainshock.
        sequence: ``N``, ``pre``, ``visso`` or ``post``.
        number: ``N`` 64-bit identifiers of the events.
    """
    names = class_names(cfg.classes)
    events, first, which = np.unique(event.astype(str), return_index=True, return_inverse=True)
    label = classify(events, time[first], sequence[first], cfg.classes)
    split = split_in_time(events, time[first], label, names)
    used = thinned(number[first], label, split, cfg.training_fraction, cfg.split_seed)
    which = which.reshape(-1)
    return Sorted(label[which], split[which], used[which])
