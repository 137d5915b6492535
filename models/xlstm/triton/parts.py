"""What the kernels of the mLSTM share: where a row lies in memory, which token is which, the decays inside a chunk.

A row is one head of one sequence in one direction; a program of a scan owns a row (or a tile of it) and goes over its chunks.
Tokens are counted in the order in which they are processed; only :func:`place` knows that a row may run backwards in time.
"""
# ruff: noqa: ANN001, ANN201 - Triton reads annotations as its own types

import triton
import triton.language as tl

EMPTY = tl.constexpr(-1e30)
"""Logarithm of nothing: finite, so that differences of two of them are 0 and never NaN."""
LOG_FORGET = tl.constexpr(0)
"""Plane of the statistics: log forget gates summed from the chunk's start (b)."""
INPUT = tl.constexpr(1)
"""Plane of the statistics: input gate minus b (u)."""
SCALE = tl.constexpr(2)
"""Plane of the statistics: the running maximum m."""
SUM = tl.constexpr(3)
"""Plane of the statistics: the signed sum n · q, times exp(−m)."""


@triton.jit
def base(row, strides, inner, heads):
    """Offset of a row's first token: row counts over (direction, sequence, head); strides are those three and the token's."""
    head, sequence, direction = row % heads, (row // heads) % inner, row // (heads * inner)
    first = direction.to(tl.int64) * strides[0] + sequence.to(tl.int64) * strides[1]
    return first + head.to(tl.int64) * strides[2]


@triton.jit
def place(t, row, tokens, inner, heads, reversed_from):
    """Where processed tokens ``t`` lie in time: a row of a reversed direction begins at the last token."""
    return tl.where(row // (heads * inner) >= reversed_from, tokens - 1 - t, t)


@triton.jit
def plane(stats, which, row, rows, tokens):
    """One plane of the statistics ``4 R T`` of a row."""
    return stats + (row + rows * which).to(tl.int64) * tokens


@triton.jit
def tile(pointer, at, stride, inside, feature, D: tl.constexpr, FULL: tl.constexpr):
    """Tokens ``at`` × features of a row; zero outside of the sequence and of the head."""
    if FULL:
        mask = inside[:, None]
    else:
        mask = inside[:, None] & (feature < D)[None, :]
    return tl.load(pointer + at[:, None] * stride + feature[None, :], mask=mask, other=0.0)


@triton.jit
def put(pointer, value, at, stride, inside, feature, D: tl.constexpr, FULL: tl.constexpr):
    """Write what :func:`tile` reads, and nothing else."""
    if FULL:
        mask = inside[:, None]
    else:
        mask = inside[:, None] & (feature < D)[None, :]
    tl.store(pointer + at[:, None] * stride + feature[None, :], value.to(pointer.dtype.element_ty), mask=mask)


@triton.jit
def exponents(stats, t, inside, row, rows, tokens):
    """(b − m, u, m) of tokens; outside of the sequence a token reads nothing and writes nothing: both exponents are -1e30."""
    b = tl.load(plane(stats, LOG_FORGET, row, rows, tokens) + t, mask=inside, other=0.0)
    u = tl.load(plane(stats, INPUT, row, rows, tokens) + t, mask=inside, other=EMPTY)
    m = tl.load(plane(stats, SCALE, row, rows, tokens) + t, mask=inside, other=-EMPTY)
    return b - m, u, m


@triton.jit
def ends(stats, c, row, rows, tokens, L: tl.constexpr):
    """Of chunk c: log forget gates of the whole chunk, the scale of the memory before it, and after it."""
    last = tl.minimum((c + 1) * L, tokens) - 1
    scale = plane(stats, SCALE, row, rows, tokens)
    total = tl.load(plane(stats, LOG_FORGET, row, rows, tokens) + last)
    before = tl.load(scale + c * L - 1, mask=c > 0, other=EMPTY)
    return total, before, tl.load(scale + last)


@triton.jit
def normaliser(total, m, eps):
    """1 / below, its part through eps, and whether the sum (and not its floor exp(−m)) decided it."""
    size, floor = tl.abs(total), tl.exp(-m)
    over = 1.0 / (tl.maximum(size, floor) + eps)
    return over, size > floor


@triton.jit
def decays(x, u, L: tl.constexpr):
    """exp(x_t + u_s) for s ≤ t, else 0: ``t s``."""
    at = tl.arange(0, L)
    return tl.exp(tl.where(at[:, None] >= at[None, :], x[:, None] + u[None, :], -float("inf")))


@triton.jit
def decays_back(x, u, L: tl.constexpr):
    """The same, transposed: ``s t``."""
    at = tl.arange(0, L)
    return tl.exp(tl.where(at[:, None] <= at[None, :], x[None, :] + u[:, None], -float("inf")))
