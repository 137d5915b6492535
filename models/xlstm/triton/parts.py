"""What the kernels of the mLSTM share: where a row lies in memory, what is known of its tokens, the decays inside a chunk.

A row is one head of one sequence in one direction; a program of a scan owns a row (or a tile of it) and goes over its chunks.
Tokens are counted in the order in which they are processed; only :func:`stride` knows that a row may run backwards in time.

What is known of tokens lies as ``R T'/64 planes 64``, T' being T up to the next multiple of 64: all of a chunk at fixed distances
from one address, which saves a scan two dozen registers of addresses. A token beyond the sequence writes nothing to the memory
(its u is :data:`EMPTY`), forgets nothing and carries the running maximum on, so no scan asks where a row ends. All logarithms
are to the base 2: the GPU's exponential is, and a multiplication an element is saved.
"""
# ruff: noqa: ANN001, ANN201, RET505 - Triton reads annotations as its own types, and compiles only the branch that is taken

import triton
import triton.language as tl

PAD = tl.constexpr(64)
"""What rows of statistics are padded to and b is summed over; chunks of scans divide it."""
LOG2E = tl.constexpr(1.4426950408889634)
"""From natural logarithms to those to the base 2."""
PLANES = tl.constexpr(5)
"""Statistics of a token, below; b is the sum of log forget gates since the last multiple of 64 tokens."""
EMPTY = tl.constexpr(-1e30)
"""Logarithm of nothing: finite, so that differences of two of them are 0 and never NaN."""
READ = tl.constexpr(0)
"""b − m: what a token reads of the memory 64 tokens begin with, beside its scale."""
WRITE = tl.constexpr(64)
"""u = i − b: what a token writes, beside b − m of the one that reads."""
SCALE = tl.constexpr(128)
"""m: the running maximum."""
TAKE = tl.constexpr(192)
"""b − m − log below + log 1/√D: what a token takes of the memory 64 tokens begin with, all divisors included."""
SIGN = tl.constexpr(256)
"""Sign of n · q where the sum decided the normaliser, 0 where its floor exp(−m) did."""


@triton.jit
def stride(row, strides, inner, heads, reversed_from):
    """Step from a processed token to the next: backwards in time where the row's direction is."""
    return tl.where(row // (heads * inner) >= reversed_from, -strides[3], strides[3])


@triton.jit
def base(row, strides, inner, heads, tokens, reversed_from):
    """Offset of the first processed token; row counts over (direction, sequence, head), strides are of those and of tokens."""
    head, sequence, direction = row % heads, (row // heads) % inner, row // (heads * inner)
    first = direction.to(tl.int64) * strides[0] + sequence.to(tl.int64) * strides[1] + head.to(tl.int64) * strides[2]
    return first + tl.where(direction >= reversed_from, tokens - 1, 0).to(tl.int64) * strides[3]


@triton.jit
def about(stats, start, row, tokens):
    """Address of the first plane at token ``start`` (the first of a chunk, or any tokens)."""
    blocks = tl.cdiv(tokens, PAD)
    return stats + row.to(tl.int64) * (blocks * PAD * PLANES) + (start + start // PAD * (PAD * (PLANES - 1)))


@triton.jit
def line(values, part, row, rows, tokens):
    """A row of a plain array ``parts R T'``."""
    return values + (row + rows * part).to(tl.int64) * (tl.cdiv(tokens, PAD) * PAD)


@triton.jit
def entry(values, row, count, j, size):
    """The j-th of ``count`` entries of a row, ``size`` numbers each."""
    return values + (row.to(tl.int64) * count + j) * size


@triton.jit
def gradient(pull, t, row, rows, tokens, EVEN: tl.constexpr):
    """pull of tokens as a scan left it; it leaves nothing beyond the sequence."""
    if EVEN:
        return tl.load(line(pull, 0, row, rows, tokens) + t)
    else:
        return tl.load(line(pull, 0, row, rows, tokens) + t, mask=t < tokens, other=0.0)


@triton.jit
def tile(pointer, t, step, tokens, feature, D: tl.constexpr, WHOLE: tl.constexpr, EVEN: tl.constexpr):
    """Tokens × features of a row; zero beyond the sequence and the head.

    Args:
        WHOLE: no feature is beyond the head.
        EVEN: no token is beyond the sequence.
    """
    at = pointer + t[:, None] * step + feature[None, :]
    if WHOLE and EVEN:
        return tl.load(at)
    elif WHOLE:
        return tl.load(at, mask=(t < tokens)[:, None], other=0.0)
    else:
        return tl.load(at, mask=(t < tokens)[:, None] & (feature < D)[None, :], other=0.0)


@triton.jit
def put(pointer, value, t, step, tokens, feature, D: tl.constexpr, WHOLE: tl.constexpr, EVEN: tl.constexpr):
    """Write what :func:`tile` reads, and nothing else."""
    at, value = pointer + t[:, None] * step + feature[None, :], value.to(pointer.dtype.element_ty)
    if WHOLE and EVEN:
        tl.store(at, value)
    elif WHOLE:
        tl.store(at, value, mask=(t < tokens)[:, None])
    else:
        tl.store(at, value, mask=(t < tokens)[:, None] & (feature < D)[None, :])


@triton.jit
def ends(stats, c, row, tokens, L: tl.constexpr):
    """What chunk c does to the memory: log of what it keeps of it, log of what is left of a token beside its u, scale before.

    Where 64 tokens are several chunks, b runs on through them, so the scale before is m − b of the token before.
    """
    left = tl.load(about(stats, c * L, row, tokens) + (READ + L - 1))
    last = about(stats, c * L - 1, row, tokens)
    if L == PAD:
        before = tl.load(last + SCALE, mask=c > 0, other=EMPTY)
    else:
        begins = c * L // PAD * PAD == c * L
        before = tl.load(tl.where(begins, last + SCALE, last + READ), mask=c > 0, other=EMPTY)
        before = tl.where(begins, before, -before)
    return left + before, left, before


@triton.jit
def decays(x, u, L: tl.constexpr):
    """2^(x_t + u_s) for s ≤ t, else 0: ``t s``."""
    at = tl.arange(0, L)
    return tl.exp2(tl.where(at[:, None] >= at[None, :], x[:, None] + u[None, :], -float("inf")))


@triton.jit
def decays_back(x, u, L: tl.constexpr):
    """The same, transposed: ``s t``."""
    at = tl.arange(0, L)
    return tl.exp2(tl.where(at[:, None] <= at[None, :], x[None, :] + u[:, None], -float("inf")))


@triton.jit
def split(x, like):
    """A float32 vector as 16 columns that add up to it in the dtype of ``like``: to 2⁻¹⁶ of it in bfloat16, exactly in float32.

    A product with a vector is then one of the tensor cores, and the matrix is never wanted in registers.
    """
    column = tl.arange(0, 16)[None, :]
    high = x.to(like.dtype)
    low = (x - high.to(tl.float32)).to(like.dtype)
    return tl.where(column == 0, high[:, None], tl.where(column == 1, low[:, None], 0.0).to(like.dtype))


@triton.jit
def reciprocal(x):
    """1 / x for x ≥ 1, 0 at infinity: a division asks whether it must scale, which a fifth of the instructions would be for."""
    root = tl.rsqrt(x)
    return root * root


@triton.jit
def sigmoid(x):
    """1 / (1 + exp(−x)); exp may be infinite."""
    return reciprocal(1.0 + tl.exp2(x * -LOG2E))
