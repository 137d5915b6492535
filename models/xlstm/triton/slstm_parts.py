"""What the kernels of the sLSTM share: who computes what, where it lies, and products on tiles of features × sequences.

A program owns some sequences of one head in one direction, and all tokens of them: it walks from token to token with the
recurrent matrix in shared memory and the state in registers. What comes from the GPU's memory is copied there some tokens ahead.

Tiles are ``W 16 BR``: W groups of 16 features, a warp each, and BR sequences. The matrix is then the left operand of the
tensor cores, so eight sequences are enough to fill the right one: a token's elementwise work, most of its time, is four numbers a
thread. Two dimensions instead of three would let the compiler take Hopper's matrix instructions at 64 features and more, which
work asynchronously: a fence and a wait for each of eight products, one after the other, on the way from a token to the next.
"""
# ruff: noqa: ANN001, ANN201, PLR0913, PLR0917, RET505 - Triton reads annotations as its own types; arguments are flat; only the
# branch that is taken is compiled

import triton
import triton.language as tl

from models.xlstm.triton.parts import LOG2E, base, reciprocal, stride

PLANES = tl.constexpr(5)
"""What the forward keeps of a token: r before it, α, σ(−f), tanh z, σ(o)."""


@triton.jit
def mine(inner, heads, BR: tl.constexpr):
    """Block of sequences, head and direction of this program."""
    blocks = tl.cdiv(inner, BR)
    program = tl.program_id(0)
    return program % blocks, program // blocks % heads, program // (blocks * heads)


@triton.jit
def features(W: tl.constexpr):
    """``W 16 1``."""
    return (tl.arange(0, W) * 16)[:, None, None] + tl.arange(0, 16)[None, :, None]


@triton.jit
def columns(N: tl.constexpr):
    """``1 1 N``."""
    return tl.arange(0, N)[None, None, :]


@triton.jit
def tile_at(strides, block, head, direction, feature, inner, heads, tokens, reversed_from, BR: tl.constexpr, UNIT: tl.constexpr):
    """Offsets of a tile at the first processed token, and the step to the next token.

    Args:
        strides: of direction, sequence, head, token.
        UNIT: divides all strides; said again, so that the compiler knows how wide a copy may be.
    """
    row = (direction * inner + block * BR) * heads + head
    first = base(row, strides, inner, heads, tokens, reversed_from) // UNIT * UNIT
    along = columns(BR).to(tl.int64) * (strides[1] // UNIT * UNIT)
    step = stride(row, strides, inner, heads, reversed_from) // UNIT * UNIT
    return first + (along + feature), step.to(tl.int64)


@triton.jit
def matrix(R, place, gate, at, inside, D: tl.constexpr, like):
    """The D × D numbers of a gate, at offsets ``at`` from the gate's first; zero beyond the head."""
    return tl.load(R + (place.to(tl.int64) * (4 * D * D) + gate) + at, mask=inside, other=0.0).to(like)


@triton.jit
def gate_bias(bias, place, gate, feature, D: tl.constexpr):
    """Of a gate, zero beyond the head."""
    return tl.load(bias + place * (4 * D) + gate * D + feature, mask=feature < D, other=0.0).to(tl.float32)


@triton.jit
def unit_matrices(W: tl.constexpr, like):
    """``W 16 16``."""
    row, column = tl.arange(0, 16)[None, :, None], tl.arange(0, 16)[None, None, :]
    return tl.where((row == column) & (tl.arange(0, W)[:, None, None] >= 0), 1.0, 0.0).to(like)


@triton.jit
def streamed(at, inside, ones):
    """A tile in float32. 16-bit tiles pass through a product with unit matrices, which changes no finite number.

    For what is narrower than 4 bytes is copied ahead only where the tensor cores read it; other loads are waited for.
    """
    x = tl.load(at, mask=inside, other=0.0)
    if x.dtype.primitive_bitwidth == 16:
        return tl.dot(ones, x)
    else:
        return x


@triton.jit
def product(left, x, W: tl.constexpr, BR: tl.constexpr, DOT: tl.constexpr):
    """``W 16 16·W`` times a tile, all of whose features every group wants."""
    every = tl.broadcast_to(tl.reshape(x, (1, W * 16, BR)), (W, W * 16, BR))
    return tl.dot(left, every, input_precision=DOT)


@triton.jit
def four(a, b, c, d, W: tl.constexpr, BR: tl.constexpr):
    """Tiles of four gates as one, ``4·W 16 BR``: what threads exchange before they write is then exchanged once."""
    every = tl.permute(tl.join(tl.join(a, b), tl.join(c, d)), (4, 3, 0, 1, 2))
    return tl.reshape(every, (4 * W, 16, BR))


@triton.jit
def kept_at(feature, D: tl.constexpr, W: tl.constexpr, BR: tl.constexpr):
    """Offsets of a tile in a plane, only ever read by the program that wrote it.

    As one warp has the results of products, ``BR/2 D 2``, it writes them, and exchanges nothing; several would, through shared
    memory, and for ``D BR`` they do within each of them.
    """
    sequence = columns(BR)
    if W == 1:
        return sequence // 2 * (2 * D) + feature * 2 + sequence % 2
    else:
        return feature * BR + sequence


@triton.jit
def log2_sigmoid(f):
    """log₂ σ(f) and σ(−f), from e = exp(−|f|): min(f, 0) log₂ e − log₂(1 + e), whose polynomial is exact to 2e-7 of itself."""
    e = tl.exp2(tl.abs(f) * -LOG2E)
    p = e * 0.00754897809 - 0.0425662436
    p = p * e + 0.112854861
    p = p * e - 0.197117835
    p = p * e + 0.275640875
    p = p * e - 0.358408332
    p = p * e + 0.480692953
    p = p * e - 0.721340179
    p = p * e + 1.44269502
    return tl.minimum(f, 0.0) * LOG2E - p * e, tl.where(f >= 0, e, 1.0) * reciprocal(1.0 + e)
