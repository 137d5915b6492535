"""Random numbers as a function of (seed, epoch, index, stream): no state, no order, no dependence on batch or rank.

A counter-based generator: the key of a sample is hashed with the running number of the draw by a 64-bit finaliser
(Stafford's variant 13, the one SplitMix64 uses). The same numbers come out of NumPy in a worker and of torch on any device.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15
_MIX1 = 0xBF58476D1CE4E5B9
_MIX2 = 0x94D049BB133111EB
_MASK = (1 << 64) - 1
_INVERSE = pow(_GOLDEN, -1, 1 << 64)


def _signed(value: int) -> int:
    """The int64 with the bits of an unsigned 64-bit number (torch has no full uint64 arithmetic)."""
    value &= _MASK
    return value - (1 << 64) if value >> 63 else value


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift(x, 30)) * _signed(_MIX1)
    x = (x ^ _shift(x, 27)) * _signed(_MIX2)
    return x ^ _shift(x, 31)


def _mix_numpy(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(_MIX1)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(_MIX2)
    return x ^ (x >> np.uint64(31))


def _stream(name: str) -> int:
    """A stable 64-bit number for a stream's name in ASCII (FNV-1a; Python's own hash is salted)."""
    value = 0xCBF29CE484222325
    for letter in name:  # not its bytes: torch.compile goes through a string, not through bytes
        value = ((value ^ ord(letter)) * 0x100000001B3) & _MASK
    return value


@dataclass(frozen=True)
class Draw:
    """The random numbers of a batch's samples, on their device.

    Attributes:
        seed: of the run (training) or of evaluation.
        epoch: ``B`` int64.
        index: ``B`` int64.
    """

    seed: int
    epoch: Tensor
    index: Tensor

    def _bits(self, stream: str, count: int) -> Tensor:
        key = _mix(self.index + _signed(_stream(stream) + self.seed * _GOLDEN))
        key = _mix(key ^ (self.epoch * _signed(_GOLDEN) + 1))
        number = torch.arange(1, count + 1, device=key.device, dtype=torch.int64)
        # key + number · golden, with the key inside: torch.compile takes products of a range alone for 32-bit indices.
        return _mix(((key * _signed(_INVERSE))[:, None] + number) * _signed(_GOLDEN))

    def uniform(self, stream: str, *shape: int) -> Tensor:
        """Float32 in [0, 1), ``B ×shape``. Streams with different names are independent."""
        count = math.prod(shape)
        return (_shift(self._bits(stream, count), 40).float() * 2.0**-24).view(len(self.index), *shape)

    def integers(self, stream: str, high: Tensor | int, *shape: int) -> Tensor:
        """Int64 in [0, high), ``B ×shape``; ``high`` broadcasts against ``B ×shape``, is below 2³¹, and 0 gives 0."""
        count = math.prod(shape)
        bits = _shift(self._bits(stream, count), 32).view(len(self.index), *shape)
        return _shift(bits * high, 32)

    def normal(self, stream: str, *shape: int) -> Tensor:
        """Float32 standard normal, ``B ×shape`` (Box–Muller)."""
        u = self.uniform(f"{stream}/radius", *shape)
        angle = self.uniform(f"{stream}/angle", *shape) * (2 * torch.pi)
        return (-2 * torch.log1p(-u)).sqrt() * angle.cos()


def bits(seed: int, epoch: np.ndarray, index: np.ndarray, stream: str, count: int) -> np.ndarray:
    """The hashes behind :func:`uniform`: uint64 ``B count``, for whoever needs many numbers of few bits (see ``uniform``)."""
    with np.errstate(over="ignore"):
        offset = np.uint64((_stream(stream) + seed * _GOLDEN) & _MASK)
        key = _mix_numpy(np.asarray(index).astype(np.int64).view(np.uint64) + offset)
        key = _mix_numpy(key ^ (np.asarray(epoch).astype(np.int64).view(np.uint64) * np.uint64(_GOLDEN) + np.uint64(1)))
        counter = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_GOLDEN)
        return _mix_numpy(key[:, None] + counter)


def uniform(seed: int, epoch: np.ndarray, index: np.ndarray, stream: str, count: int) -> np.ndarray:
    """What :meth:`Draw.uniform` gives, in NumPy, for workers: float32 in [0, 1), ``B count``.

    Args:
        seed: of the run.
        epoch: ``B`` integers.
        index: ``B`` integers.
        stream: name of the stream.
        count: numbers a sample.
    """
    return (bits(seed, epoch, index, stream, count) >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)
