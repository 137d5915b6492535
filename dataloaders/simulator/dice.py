"""Random numbers of a trace, by name and in order."""

import numpy as np

from utils.rng import bits, uniform

_STD_INT16 = float(np.sqrt((2.0**32 - 1) / 12))


class Dice:
    """A row of uniform numbers for each index, handed out from the left.

    What is drawn depends on the order of calls: to add a draw, add it last, and everything else stays as it is.

    Args:
        seed: of the virtual dataset.
        index: ``N``, numbers of traces (or stations).
        stream: name; streams are independent of each other.
        count: how many numbers there are.
    """

    def __init__(self, seed: int, index: np.ndarray, stream: str, count: int) -> None:
        self._numbers = uniform(seed, np.zeros_like(index), index, f"simulator/{stream}", count).astype(np.float64)
        self._next = 0

    def uniform(self, low: float | np.ndarray = 0.0, high: float | np.ndarray = 1.0) -> np.ndarray:
        """``N`` in [low, high)."""
        self._next += 1
        return low + (high - low) * self._numbers[:, self._next - 1]

    def log_uniform(self, low: float, high: float) -> np.ndarray:
        """``N`` in [low, high), equally often in every octave."""
        return np.exp(self.uniform(np.log(low), np.log(high)))

    def normal(self, mean: float = 0.0, std: float = 1.0) -> np.ndarray:
        """``N`` normal numbers (Box–Muller; takes two)."""
        return mean + std * np.sqrt(-2 * np.log1p(-self.uniform())) * np.cos(2 * np.pi * self.uniform())

    def integers(self, high: int) -> np.ndarray:
        """``N`` in 0 … high − 1."""
        return np.minimum((self.uniform() * high).astype(np.int64), high - 1)

    def chance(self, probability: float | np.ndarray) -> np.ndarray:
        """``N`` bool."""
        return self.uniform() < probability


def white(seed: int, index: np.ndarray, stream: str, rows: int, count: int) -> np.ndarray:
    """White noise with variance 1, uniformly distributed: four 16-bit numbers from each hash. ``N rows count`` float32.

    What is made of it sums hundreds of these numbers (a transform, a filter), and is Gaussian by the central limit theorem.
    """
    hashes = bits(seed, np.zeros_like(index), index, f"simulator/{stream}", -(-rows * count // 4))
    numbers = hashes.astype("<u8", copy=False).view("<i2")[:, : rows * count].astype(np.float32)
    numbers *= np.float32(1 / _STD_INT16)
    return numbers.reshape(len(index), rows, count)
