"""The sLSTM forward on the GPU: a scan over tokens with everything on chip.

What is held of the memory is r = c / n beside n and m of the paper (Beck et al. 2024, equations 8–18): with α = i' / n_t, the
share of a token, its equations divided through are r_t = r_{t−1} + α (tanh z − r_{t−1}) and h_t = σ(o) r_t. m is to the base 2,
as the GPU's exponential is; n is at least 1.
"""
# ruff: noqa: ANN001, ANN201, PLR0913, PLR0917 - Triton reads annotations as its own types; a kernel's arguments are flat

import triton
import triton.language as tl

from models.xlstm.triton.parts import EMPTY, LOG2E, reciprocal, sigmoid
from models.xlstm.triton.slstm_parts import (
    PLANES,
    columns,
    features,
    gate_bias,
    kept_at,
    log2_sigmoid,
    matrix,
    mine,
    product,
    streamed,
    tile_at,
    unit_matrices,
)


@triton.jit
def gate_inputs(at, inside, ones, bias_i, bias_f, bias_z, bias_o, D: tl.constexpr):
    """Of a token, with biases."""
    i, f = streamed(at, inside, ones) + bias_i, streamed(at + D, inside, ones) + bias_f
    z, o = streamed(at + 2 * D, inside, ones) + bias_z, streamed(at + 3 * D, inside, ones) + bias_o
    return i, f, z, o


@triton.jit
def keep_planes(to, known, plane: tl.constexpr, r, share, closing, z, o):
    """See :data:`PLANES`."""
    tl.store(to, r, mask=known)
    tl.store(to + plane, share, mask=known)
    tl.store(to + 2 * plane, closing, mask=known)
    tl.store(to + 3 * plane, z, mask=known)
    tl.store(to + 4 * plane, o, mask=known)


@triton.jit
def slstm_forward(
    X, R, BIAS, H, KEPT, sx, sh, inner, heads, tokens, reversed_from,
    D: tl.constexpr, W: tl.constexpr, BR: tl.constexpr, UNIT: tl.constexpr, KEEP: tl.constexpr, DOT: tl.constexpr,
    STAGES: tl.constexpr, AHEAD: tl.constexpr,
):  # fmt: skip
    """h, and what the backward pass wants to know of tokens.

    Args:
        X: gate inputs i, f, z, o, side by side ``4 D``; strides of X and H are (direction, sequence, head, token).
        R, BIAS: ``P H D 4 D`` and ``P H 4 D``, contiguous.
        KEPT: ``programs T planes D·BR`` float32, tokens as they are processed; written only where KEEP.
        inner: sequences.
        D, W, BR: features; groups of 16 of them; sequences of a program.
        UNIT: divides all strides.
        DOT: precision of products of float32.
        STAGES: tokens in flight.
        AHEAD: make what a token needs and does not depend on h one token before: a shorter path, more registers.
    """
    block, head, direction = mine(inner, heads, BR)
    place, feature, past = direction * heads + head, features(W), columns(16 * W)
    dtype = X.dtype.element_ty
    known = (feature < D) & (columns(BR) < BR)
    inside = known & (block * BR + columns(BR) < inner)
    x_at, x_step = tile_at(sx, block, head, direction, feature, inner, heads, tokens, reversed_from, BR, UNIT)
    h_at, h_step = tile_at(sh, block, head, direction, feature, inner, heads, tokens, reversed_from, BR, UNIT)
    KEPT += tl.program_id(0).to(tl.int64) * tokens * (PLANES * D * BR)
    of, there = past * (4 * D) + feature, (past < D) & (feature < D)
    to_i, to_f = matrix(R, place, 0, of, there, D, dtype), matrix(R, place, D, of, there, D, dtype)
    to_z, to_o = matrix(R, place, 2 * D, of, there, D, dtype), matrix(R, place, 3 * D, of, there, D, dtype)
    bias_i, bias_f = gate_bias(BIAS, place, 0, feature, D), gate_bias(BIAS, place, 1, feature, D)
    bias_z, bias_o = gate_bias(BIAS, place, 2, feature, D), gate_bias(BIAS, place, 3, feature, D)
    ones, h = unit_matrices(W, dtype), tl.zeros((W, 16, BR), dtype)
    r, n, m = tl.zeros((W, 16, BR), tl.float32), tl.zeros((W, 16, BR), tl.float32), tl.full((W, 16, BR), EMPTY, tl.float32)
    if AHEAD:
        xi, xf, xz, xo = gate_inputs(X + x_at, inside, ones, bias_i, bias_f, bias_z, bias_o, D)
    for t in tl.range(0, tokens, num_stages=STAGES):  # pyright: ignore[reportGeneralTypeIssues]
        if not AHEAD:
            xi, xf, xz, xo = gate_inputs(X + t * x_step + x_at, inside, ones, bias_i, bias_f, bias_z, bias_o, D)
        i, f = (xi + product(to_i, h, W, BR, DOT)) * LOG2E, xf + product(to_f, h, W, BR, DOT)
        z, o = xz + product(to_z, h, W, BR, DOT), xo + product(to_o, h, W, BR, DOT)
        if AHEAD:
            at = X + tl.minimum(t + 1, tokens - 1) * x_step + x_at
            xi, xf, xz, xo = gate_inputs(at, inside, ones, bias_i, bias_f, bias_z, bias_o, D)
        kept, closing = log2_sigmoid(f)
        a = kept + m
        m = tl.maximum(a, i)
        smaller = tl.exp2(-tl.abs(i - a))
        write, keep = tl.where(i >= a, 1.0, smaller), tl.where(i >= a, smaller, 1.0)
        n = keep * n + write
        share = write * reciprocal(n)
        z, o = 2.0 * sigmoid(2.0 * z) - 1.0, sigmoid(o)
        if KEEP:
            keep_planes(KEPT + kept_at(feature, D, W, BR), known, D * BR, r, share, closing, z, o)
            KEPT += PLANES * D * BR
        r += share * (z - r)
        h = (o * r).to(dtype)
        tl.store(H + t * h_step + h_at, h, mask=inside)
