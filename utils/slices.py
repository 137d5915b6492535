"""Sums over many tokens on a GPU, cut into slices."""

from torch import Tensor

SLICE = 4096
"""Tokens of a slice, at least."""


def slices(x: Tensor, tokens: int) -> int:
    """Into how many slices of equal length a matrix product that sums over ``tokens`` is cut where x lies: 1, 2, 4, 8 or 16.

    The gradient of a small weight has few tiles, and each sums over all tokens: a few dozen of a GPU's 132 multiprocessors work,
    and these for long. Slices are products of their own, added afterwards. A CPU has no such need: 1.
    """
    if not x.is_cuda:
        return 1
    return max(n for n in (1, 2, 4, 8, 16) if tokens % n == 0 and (n == 1 or tokens >= n * SLICE))
