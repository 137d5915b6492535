"""Norms at both ends of an mLSTM block on the GPU: one pass forwards and one backwards each, dropout and residual included.

Gains are not here: they belong to the matrices that follow (models/xlstm/projections.py), so both directions share what their
first norm makes, and the gradient of a gain is a sum over a small matrix instead of one over all tokens. A program owns a few
tokens with all their features.

Dropout draws with Philox (Salmon et al. 2011; 7 rounds, the fewest that pass all tests of BigCrush). A draw gives four numbers,
one for each quarter of the features: hence tiles are in quarters, and nothing random is kept, the backward pass draws it again.
"""
# ruff: noqa: ANN001, ANN201, ANN202, PLR0913, PLR0917, RUF005 - Triton reads annotations as its own types; kernels are flat
# Triton's reductions are declared to return tuples as well:
# pyright: reportOperatorIssue=false, reportArgumentType=false, reportGeneralTypeIssues=false, reportAttributeAccessIssue=false

import triton
import triton.language as tl

QUARTERS = tl.constexpr(4)
ROUNDS = tl.constexpr(7)
BITS = tl.constexpr(24)
"""Of a random number that decide: a probability is a multiple of 2⁻²⁴."""


@triton.jit
def _tokens(rows, BR: tl.constexpr):
    """Which tokens a program owns, 64 bits wide as they are multiplied by features, and whether there are such."""
    row = tl.program_id(0) * BR + tl.arange(0, BR)
    return row.to(tl.int64), row < rows


@triton.jit
def token_norm_forward(X, Y, SCALE, rows, eps, D: tl.constexpr, DP: tl.constexpr, BR: tl.constexpr):
    """(x − mean) · scale, with scale one over the root of variance + eps, both of a token; X, Y ``rows D``, SCALE ``rows``."""
    row, there = _tokens(rows, BR)
    feature = tl.arange(0, DP)
    known = there[:, None] & (feature < D)[None, :]
    at = row[:, None] * D + feature[None, :]
    x = tl.load(X + at, mask=known, other=0.0).to(tl.float32)
    centred = tl.where(known, x - (tl.sum(x, 1) / D)[:, None], 0.0)
    scale = tl.rsqrt(tl.sum(centred * centred, 1) / D + eps)
    tl.store(Y + at, (centred * scale[:, None]).to(Y.dtype.element_ty), mask=known)
    tl.store(SCALE + row, scale, mask=there)


@triton.jit
def token_norm_backward(DY, Y, SCALE, DX, rows, P: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, BR: tl.constexpr):
    """Gradient of x from those of y by P directions, ``P rows D``."""
    row, there = _tokens(rows, BR)
    feature = tl.arange(0, DP)
    known = there[:, None] & (feature < D)[None, :]
    at = row[:, None] * D + feature[None, :]
    dy = tl.zeros((BR, DP), tl.float32)
    for p in tl.static_range(P):
        dy += tl.load(DY + (row + p * rows)[:, None] * D + feature[None, :], mask=known, other=0.0).to(tl.float32)
    y = tl.load(Y + at, mask=known, other=0.0).to(tl.float32)
    scale = tl.load(SCALE + row, mask=there, other=0.0)
    dx = scale[:, None] * (dy - (tl.sum(dy, 1) / D)[:, None] - y * (tl.sum(dy * y, 1) / D)[:, None])
    tl.store(DX + at, dx.to(DX.dtype.element_ty), mask=known)


@triton.jit
def _kept(seed, row, part, column, least):
    """Four tiles, 1 where a number is kept and 0 where it is dropped, for the four quarters of tokens' features.

    Args:
        seed: of this call.
        row, part, column: token, direction, feature within a quarter: no two draws of a call have the same.
        least: a random number from here on keeps, of 2²⁴.
    """
    token = (row[:, None] + 0 * column[None, :]).to(tl.uint32)
    place = (0 * row[:, None] + (part * 65536 + column)[None, :]).to(tl.uint32)
    a, b, c, d = tl.philox(seed, token, place, 0 * token, 0 * token, ROUNDS)
    return (
        ((a >> (32 - BITS)).to(tl.int32) >= least).to(tl.float32),
        ((b >> (32 - BITS)).to(tl.int32) >= least).to(tl.float32),
        ((c >> (32 - BITS)).to(tl.int32) >= least).to(tl.float32),
        ((d >> (32 - BITS)).to(tl.int32) >= least).to(tl.float32),
    )


@triton.jit
def joined_norm_forward(
    X, OUT, SEED, Z, SCALE, rows, eps, least, more,
    P: tl.constexpr, D: tl.constexpr, DQ: tl.constexpr, BR: tl.constexpr, DROP: tl.constexpr,
):  # fmt: skip
    """norm(x + dropout(out_p)) of all directions side by side.

    Args:
        X: ``rows D``.
        OUT: ``P rows D``.
        SEED: one number; not read without DROP.
        Z: ``rows P·D``.
        SCALE: one over the roots of variance + eps, ``P rows``.
        least: see :func:`_kept`.
        more: what is kept is multiplied by it.
        DQ: a quarter of D, rounded up to a power of two.
    """
    row, there = _tokens(rows, BR)
    column = tl.arange(0, DQ)
    seed = tl.full((), 0, tl.int64)
    if DROP:
        seed = tl.load(SEED)
    x = ()
    for q in tl.static_range(QUARTERS):
        feature = q * DQ + column
        known = there[:, None] & (feature < D)[None, :]
        x = x + (tl.load(X + row[:, None] * D + feature[None, :], mask=known, other=0.0).to(tl.float32),)
    for p in tl.static_range(P):
        kept = _kept(seed, row, p, column, least) if DROP else x  # else not used
        sums, total = (), tl.zeros((BR,), tl.float32)
        for q in tl.static_range(QUARTERS):
            feature = q * DQ + column
            known = there[:, None] & (feature < D)[None, :]
            at = OUT + (row + p * rows)[:, None] * D + feature[None, :]
            out = tl.load(at, mask=known, other=0.0).to(tl.float32)
            if DROP:
                out = out * kept[q] * more
            sums = sums + (x[q] + out,)
            total += tl.sum(sums[q], 1)
        mean, squares, centred = total / D, tl.zeros((BR,), tl.float32), ()
        for q in tl.static_range(QUARTERS):
            known = there[:, None] & (q * DQ + column < D)[None, :]
            centred = centred + (tl.where(known, sums[q] - mean[:, None], 0.0),)
            squares += tl.sum(centred[q] * centred[q], 1)
        scale = tl.rsqrt(squares / D + eps)
        tl.store(SCALE + (row + p * rows), scale, mask=there)
        for q in tl.static_range(QUARTERS):
            feature = q * DQ + column
            known = there[:, None] & (feature < D)[None, :]
            at = Z + row[:, None] * (P * D) + (p * D + feature)[None, :]
            tl.store(at, (centred[q] * scale[:, None]).to(Z.dtype.element_ty), mask=known)


@triton.jit
def joined_norm_backward(
    DZ, Z, SCALE, SEED, DX, DOUT, rows, least, more,
    P: tl.constexpr, D: tl.constexpr, DQ: tl.constexpr, BR: tl.constexpr, DROP: tl.constexpr,
):  # fmt: skip
    """Gradients of x, ``rows D``, and of every direction's branch before its dropout, ``P rows D``."""
    row, there = _tokens(rows, BR)
    column = tl.arange(0, DQ)
    seed = tl.full((), 0, tl.int64)
    if DROP:
        seed = tl.load(SEED)
    none, dx = tl.zeros((BR, DQ), tl.float32), ()
    for _ in tl.static_range(QUARTERS):
        dx = dx + (none,)
    for p in tl.static_range(P):
        kept = _kept(seed, row, p, column, least) if DROP else dx  # else not used
        scale = tl.load(SCALE + (row + p * rows), mask=there, other=0.0)
        dz, z, along, across = (), (), tl.zeros((BR,), tl.float32), tl.zeros((BR,), tl.float32)
        for q in tl.static_range(QUARTERS):
            feature = q * DQ + column
            known = there[:, None] & (feature < D)[None, :]
            at = row[:, None] * (P * D) + (p * D + feature)[None, :]
            dz = dz + (tl.load(DZ + at, mask=known, other=0.0).to(tl.float32),)
            z = z + (tl.load(Z + at, mask=known, other=0.0).to(tl.float32),)
            across += tl.sum(dz[q], 1)
            along += tl.sum(dz[q] * z[q], 1)
        added = ()
        for q in tl.static_range(QUARTERS):
            feature = q * DQ + column
            known = there[:, None] & (feature < D)[None, :]
            du = scale[:, None] * (dz[q] - (across / D)[:, None] - z[q] * (along / D)[:, None])
            added = added + (dx[q] + du,)
            if DROP:
                du = du * kept[q] * more
            at = DOUT + (row + p * rows)[:, None] * D + feature[None, :]
            tl.store(at, du.to(DOUT.dtype.element_ty), mask=known)
        dx = added
    for q in tl.static_range(QUARTERS):
        feature = q * DQ + column
        known = there[:, None] & (feature < D)[None, :]
        tl.store(DX + row[:, None] * D + feature[None, :], dx[q].to(DX.dtype.element_ty), mask=known)
