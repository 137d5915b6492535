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


def covered(length: np.ndarray, samples: int) -> np.ndarray:
    """``B L`` bool: the samples of each window that its trace reaches. A short trace fills the window from its beginning.

    Args:
        length: ``B`` integers, samples of each trace.
        samples: L, length of the window.
    """
    return np.arange(samples) < np.asarray(length)[:, None]
