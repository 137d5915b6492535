"""Long records through a network with a window: where the windows lie, and how their predictions become one curve."""

from enum import Enum
from typing import final

import numpy as np
from numpy.typing import NDArray


class Stacking(str, Enum):
    """How predictions of overlapping windows are combined."""

    taper = "taper"
    """Weighted mean; the weight falls linearly from a window's middle to its edges, where context is missing."""
    avg = "avg"
    """Mean."""
    max = "max"
    """Largest value."""


def offsets(first: int, samples: int, window: int, hop: int) -> NDArray[np.int64]:
    """Where windows begin in a record: at its start, flush with its end, and at every multiple of ``hop`` in between.

    Multiples count from a fixed moment, not from the record's start: two records of the same ground that begin at different
    times, or one cut in two, are seen through the same windows but for the ends. A network is never quite indifferent to where
    its window begins; picks must not depend on where somebody's file does.

    Args:
        first: number of the record's first sample since that moment.
        samples: length of the record.
        window: length of a window.
        hop: 1 … window.

    Returns:
        First samples, ascending; 0 alone where the record is not longer than a window.
    """
    last = max(0, samples - window)
    return np.unique(np.r_[0, np.arange(-first % hop, last, hop, dtype=np.int64), last])


@final
class Stack:
    """Predictions of windows, added one by one, to one curve.

    Args:
        samples: N, length of the record.
        window: W.
        classes: K.
        how: see :class:`Stacking`.
    """

    def __init__(self, samples: int, window: int, classes: int, how: Stacking) -> None:
        self.how = how
        ramp = np.minimum(np.arange(1, window + 1), np.arange(window, 0, -1)).astype(np.float32)
        self.share = (ramp if how is Stacking.taper else np.ones(window, np.float32))[:, None]
        self.total = np.full((samples, classes), -np.inf if how is Stacking.max else 0.0, np.float32)
        self.weight = np.zeros((samples, 1), np.float32)

    def add(self, offset: int, prediction: NDArray[np.float32]) -> None:
        """A window's prediction ``W K`` from sample ``offset`` on; NaN takes no part, what exceeds the record is cut off."""
        there = slice(offset, min(offset + len(prediction), len(self.total)))
        prediction = prediction[: there.stop - there.start]
        counts = np.isfinite(prediction).all(1, keepdims=True)
        share = self.share[: len(prediction)] * counts
        self.weight[there] += share
        if self.how is Stacking.max:
            np.maximum(self.total[there], np.where(counts, prediction, -np.inf), out=self.total[there])
        else:
            self.total[there] += share * np.where(counts, prediction, 0.0)

    def result(self) -> NDArray[np.float32]:
        """The curve ``N K``, NaN where no window said anything."""
        divisor = 1.0 if self.how is Stacking.max else np.maximum(self.weight, np.finfo(np.float32).tiny)
        return np.where(self.weight > 0, self.total / divisor, np.float32(np.nan))


def noise_in_gaps(curve: NDArray[np.float32]) -> NDArray[np.float32]:
    """A curve ``N 3`` with (0, 0, 1) instead of NaN between its first and last sample."""
    there = np.flatnonzero(np.isfinite(curve[:, 0]))
    if len(there):
        inside = curve[there[0] : there[-1] + 1]
        inside[~np.isfinite(inside[:, 0])] = (0.0, 0.0, 1.0)
    return curve
