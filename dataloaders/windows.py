"""Where a window starts in its trace: pure functions of lengths, seed, epoch and the trace's number."""

import numpy as np

from utils.rng import uniform


def random_starts(length: np.ndarray, samples: int, *, seed: int, epoch: np.ndarray, index: np.ndarray) -> np.ndarray:
    """First sample of a window at a random position, every position being equally likely; 0 where the trace is too short.

    Args:
        length: ``B`` integers, samples of each trace.
        samples: L, length of the window.
        seed: of the run.
        epoch: ``B`` integers.
        index: ``B`` integers, the traces' fixed numbers.

    Returns:
        ``B`` int64.
    """
    room = np.maximum(np.asarray(length, np.int64) - samples, 0)
    share = uniform(seed, epoch, index, "window", 1)[:, 0].astype(np.float64)
    return (share * (room + 1)).astype(np.int64)


def centre_starts(length: np.ndarray, samples: int) -> np.ndarray:
    """First sample of the window in the middle of each trace, for validation and test; 0 where the trace is too short.

    Args:
        length: ``B`` integers, samples of each trace.
        samples: L, length of the window.

    Returns:
        ``B`` int64.
    """
    return np.maximum(np.asarray(length, np.int64) - samples, 0) // 2


def starts_around(onset: np.ndarray, length: np.ndarray, samples: int, *, margin: int, chance: np.ndarray) -> np.ndarray:
    """First sample of a window that holds one of the trace's arrivals, chosen at random, at a random place.

    The arrival keeps ``margin`` samples from the edges of the window as far as the trace reaches.

    Args:
        onset: ``B P`` integers, −1: none.
        length: ``B`` integers, samples of each trace.
        samples: L, length of the window.
        margin: in samples.
        chance: ``B 2`` in 0 … 1: which arrival, and where in the window.

    Returns:
        ``B`` int64; −1 where the trace has no arrival.
    """
    onset, length = np.asarray(onset, np.int64), np.asarray(length, np.int64)
    there = onset >= 0
    number = np.minimum((chance[:, 0] * there.sum(1)).astype(np.int64), np.maximum(there.sum(1) - 1, 0))
    column = (there.cumsum(1) > number[:, None]).argmax(1)  # of the arrival with that number among those that exist
    chosen = np.take_along_axis(onset, column[:, None], 1)[:, 0]
    place = margin + (chance[:, 1].astype(np.float64) * (samples - 2 * margin)).astype(np.int64)
    start = np.clip(chosen - place, 0, np.maximum(length - samples, 0))
    return np.where(there.any(1), start, -1)


def covered(length: np.ndarray, samples: int) -> np.ndarray:
    """``B L`` bool: the samples of each window that its trace reaches. A short trace fills the window from its beginning.

    Args:
        length: ``B`` integers, samples of each trace.
        samples: L, length of the window.
    """
    return np.arange(samples) < np.asarray(length)[:, None]
