"""What follows the mLSTM cell in a block on the GPU: head norm, learnable skip and output gate, forwards and backwards.

A program owns a head in one direction and goes over a span of tiles; see inner_kernels.py, whose layout this is. No token meets
another here, so the direction does not matter.
"""
# ruff: noqa: ANN001, ANN201, ANN202, PLR0913, PLR0917 - Triton reads annotations as its own types; kernels are flat
# Triton's reductions are declared to return tuples as well:
# pyright: reportOperatorIssue=false, reportArgumentType=false, reportGeneralTypeIssues=false

import triton
import triton.language as tl

from models.xlstm.triton.inner_parts import added, positions, rows_of, span_of
from models.xlstm.triton.parts import sigmoid


@triton.jit
def _normed(H, row, t, feature, known, tokens, width, eps, E: tl.constexpr):
    """A head's tokens over their variance, and one over its root."""
    h = tl.load(rows_of(H, row, t, feature, tokens, width), mask=known, other=0.0).to(tl.float32)
    centred = tl.where(known, h - (tl.sum(h, 1) / E)[:, None], 0.0)
    scale = tl.rsqrt(tl.sum(centred * centred, 1) / E + eps)
    return centred * scale[:, None], scale


@triton.jit
def exit_forward(
    UP, C, H, GAIN, SKIP, Y, batch, tokens, span, eps,
    INNER: tl.constexpr, E: tl.constexpr, EP: tl.constexpr, BT: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """(gain · norm(h) + skip · c) · SiLU(z), ``P B T I``; norm over the E features of a head (EP: as a power of two)."""
    head, _, direction, first, last = span_of(INNER // E, batch, tokens, span, BT)
    feature, column = head * E + tl.arange(0, EP), tl.arange(0, EP)
    gain = tl.load(GAIN + direction * INNER + feature, mask=column < E, other=0.0)[None, :]
    skip = tl.load(SKIP + direction * INNER + feature, mask=column < E, other=0.0)[None, :]
    for tile in tl.range(first, last, num_stages=STAGES):  # named, or only what goes into a product is fetched ahead
        sequence, t = positions(tile, tokens, BT)
        row, inside = direction * batch + sequence, t < tokens
        known = inside[:, None] & (column < E)[None, :]
        normed = _normed(H, row, t, feature, known, tokens, INNER, eps, E)[0]
        c = tl.load(rows_of(C, row, t, feature, tokens, INNER), mask=known, other=0.0).to(tl.float32)
        z = tl.load(rows_of(UP, row, t, INNER + feature, tokens, 2 * INNER), mask=known, other=0.0).to(tl.float32)
        y = (gain * normed + skip * c) * (z * sigmoid(z))
        tl.store(rows_of(Y, row, t, feature, tokens, INNER), y.to(UP.dtype.element_ty), mask=known)


@triton.jit
def exit_backward(
    UP, C, H, GAIN, SKIP, DOUT, DH, DC, DUP, SUMS, batch, tokens, span, directions, eps,
    INNER: tl.constexpr, E: tl.constexpr, EP: tl.constexpr, BT: tl.constexpr, ROWS: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Gradients of h, of c by the skip, of z (the second half of ``DUP``), and sums ``spans P 2 I`` for gain and skip."""
    head, number, direction, first, last = span_of(INNER // E, batch, tokens, span, BT)
    feature, column = head * E + tl.arange(0, EP), tl.arange(0, EP)
    gain = tl.load(GAIN + direction * INNER + feature, mask=column < E, other=0.0)[None, :]
    skip = tl.load(SKIP + direction * INNER + feature, mask=column < E, other=0.0)[None, :]
    dgain, dskip = tl.zeros((ROWS, EP), tl.float32), tl.zeros((ROWS, EP), tl.float32)
    for tile in tl.range(first, last, num_stages=STAGES):  # named, or only what goes into a product is fetched ahead
        sequence, t = positions(tile, tokens, BT)
        row, inside = direction * batch + sequence, t < tokens
        known = inside[:, None] & (column < E)[None, :]
        normed, scale = _normed(H, row, t, feature, known, tokens, INNER, eps, E)
        c = tl.load(rows_of(C, row, t, feature, tokens, INNER), mask=known, other=0.0).to(tl.float32)
        z = tl.load(rows_of(UP, row, t, INNER + feature, tokens, 2 * INNER), mask=known, other=0.0).to(tl.float32)
        dout = tl.load(rows_of(DOUT, row, t, feature, tokens, INNER), mask=known, other=0.0).to(tl.float32)
        gate = sigmoid(z)
        dz = dout * (gain * normed + skip * c) * gate * (1.0 + z * (1.0 - gate))
        tl.store(rows_of(DUP, row, t, INNER + feature, tokens, 2 * INNER), dz.to(UP.dtype.element_ty), mask=known)
        d = dout * z * gate
        dgain += added(d * normed, BT, EP, ROWS)
        dskip += added(d * c, BT, EP, ROWS)
        tl.store(rows_of(DC, row, t, feature, tokens, INNER), (d * skip).to(UP.dtype.element_ty), mask=known)
        dn = d * gain
        dh = scale[:, None] * (dn - (tl.sum(dn, 1) / E)[:, None] - normed * (tl.sum(dn * normed, 1) / E)[:, None])
        tl.store(rows_of(DH, row, t, feature, tokens, INNER), dh.to(UP.dtype.element_ty), mask=known)
    at = SUMS + (number * directions + direction) * 2 * INNER + feature
    tl.store(at, tl.sum(dgain, 0), mask=column < E)
    tl.store(at + INNER, tl.sum(dskip, 0), mask=column < E)
