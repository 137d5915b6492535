"""The inside of an mLSTM block on the GPU: convolution, SiLU, q, k, v and gates before the cell; norm, skip, gate after it.

All of it is tokens × features with products of 64 × 64 at most, so what costs is traffic: everything between two products of the
network is one kernel forwards, and as few as the convolution allows backwards. A program owns 64 features (or a head) in one
direction and goes over a span of tiles of tokens, so that its weights are fetched once and their gradients are sums on chip;
what programs of other tokens sum up lies beside, and is added in a fixed order afterwards.

A direction from ``reversed_from`` on is processed from the last token to the first, in place: position s below is that of the
processing, and only :func:`time_of` knows where in memory it lies.
"""
# ruff: noqa: ANN001, ANN201, ANN202, PLR0913, PLR0917, RUF005 - Triton reads annotations as its own types; kernels are flat
# Triton's reductions are declared to return tuples as well:
# pyright: reportOperatorIssue=false, reportArgumentType=false, reportGeneralTypeIssues=false

import triton
import triton.language as tl

from models.xlstm.triton import available
from models.xlstm.triton.inner_parts import added, positions, rows_of, span_of, time_of, unit
from models.xlstm.triton.parts import sigmoid

FEATURES = tl.constexpr(available.FEATURES)
"""Features of a program; a multiple of the blocks of q, k and v, and every inner width is a multiple of it."""
BEFORE = tl.constexpr(available.BEFORE)
"""Tokens before a tile that the convolution may reach."""


@triton.jit
def _block_diagonal(W, direction, first, width, S: tl.constexpr, like):
    """Blocks ``P I/S S S`` (out, in) as a dense tile of inputs × outputs, and which of it they are."""
    i, o = tl.arange(0, FEATURES)[:, None], tl.arange(0, FEATURES)[None, :]
    at = W + (direction * width + first + o) * S + i % S
    return tl.load(at, mask=i // S == o // S, other=0.0).to(like.dtype.element_ty)


@triton.jit
def _gate_weights(G, direction, feature, gates, width, HP: tl.constexpr, like):
    """Weights ``P 2H I`` of the gates as features × gates."""
    gate = tl.arange(0, HP)
    at = G + (direction * gates + gate[None, :]) * width + feature[:, None]
    return tl.load(at, mask=(gate < gates)[None, :], other=0.0).to(like.dtype.element_ty)


@triton.jit
def _gate_rows(G, row, t, inside, tokens, gates, HP: tl.constexpr):
    """Addresses tokens × gates in an array ``rows 2H T``, and which of them there are."""
    gate = tl.arange(0, HP)
    at = G + row.to(tl.int64) * gates * tokens + gate[None, :] * tokens + t[:, None]
    return at, inside[:, None] & (gate < gates)[None, :]


@triton.jit
def _tap(CONV, tap, direction, feature, width, TAPS: tl.constexpr):
    """A tap's weights, for tokens × features. Loaded where they are used: kept, they would take the registers of a whole tile."""
    return tl.load(CONV + (direction * TAPS + tap) * width + feature).to(tl.float32)[None, :]


@triton.jit
def _tile_of(X, row, t, inside, feature, tokens, width):
    """Tokens × features of an array ``P B T width``; zero beyond the sequence."""
    return tl.load(rows_of(X, row, t, feature, tokens, width), mask=inside[:, None], other=0.0)


@triton.jit
def _convolved(UP, CONV, BIAS, row, direction, s, back, feature, tokens, width, TAPS: tl.constexpr):
    """The causal convolution at positions, in float32, from a load a tap."""
    y = tl.load(BIAS + direction * width + feature).to(tl.float32)[None, :]
    for tap in tl.static_range(TAPS):
        before = s - (TAPS - 1 - tap)
        at = rows_of(UP, row, time_of(before, back, tokens), feature, tokens, 2 * width)
        x = tl.load(at, mask=((before >= 0) & (s < tokens))[:, None], other=0.0).to(tl.float32)
        y += x * _tap(CONV, tap, direction, feature, width, TAPS)
    return y


@triton.jit
def _convolved_by_products(
    m, UP, CONV, BIAS, row, direction, start, back, feature, tokens, width,
    TAPS: tl.constexpr, BT: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """The same of the tile m that begins at ``start``; of the tokens before it, ``BEFORE`` are fetched.

    Earlier tokens are products with shifted unit matrices: that changes no bit of finite numbers (one that is not spoils its tile
    and the next), reads a token once, and the result has the layout of the products that take it; from loads, all of it was
    computed twice. Backwards the sums of the weights' gradients leave no room for it: there loads are faster.
    """
    y = tl.load(BIAS + direction * width + feature).to(tl.float32)[None, :]
    earlier = start - BEFORE + tl.arange(0, BEFORE)
    at = rows_of(UP, row, time_of(earlier, back, tokens), feature, tokens, 2 * width)
    halo = tl.load(at, mask=(earlier >= 0)[:, None], other=0.0)
    for tap in tl.static_range(TAPS):
        x = tl.dot(unit(TAPS - 1 - tap, BT, BT, m), m, input_precision=DOT)
        if tap < TAPS - 1:
            x = tl.dot(unit(TAPS - 1 - tap - BEFORE, BT, BEFORE, m), halo, x, input_precision=DOT)
        y += x * _tap(CONV, tap, direction, feature, width, TAPS)
    return y


@triton.jit
def inner_forward(
    UP, CONV, BIAS, WQ, WK, WV, GC, GM, GB, C, Q, K, V, PRE, batch, tokens, span, directions, reversed_from, gates,
    INNER: tl.constexpr, S: tl.constexpr, HP: tl.constexpr, TAPS: tl.constexpr, BT: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """c = SiLU(conv(m)), q and k of c, v of m, and what 64 features add to the gates' pre-activations.

    Args:
        UP: m and z side by side, ``P B T 2I``.
        CONV, BIAS: ``P TAPS I``, ``P I``.
        WQ, WK, WV: blocks, ``P I/S S S`` (out, in).
        GC, GM, GB: what gates read of c and of m, ``P 2H I``, and their bias ``P 2H``.
        C, Q, K, V: ``P B T I``.
        PRE: ``I/64 P B 2H T`` float32.
    """
    part, _, direction, first, last = span_of(INNER // FEATURES, batch, tokens, span, BT)
    feature = part * FEATURES + tl.arange(0, FEATURES)
    back = direction >= reversed_from
    wq = _block_diagonal(WQ, direction, part * FEATURES, INNER, S, UP)
    wk = _block_diagonal(WK, direction, part * FEATURES, INNER, S, UP)
    wv = _block_diagonal(WV, direction, part * FEATURES, INNER, S, UP)
    gc = _gate_weights(GC, direction, feature, gates, INNER, HP, UP)
    gm = _gate_weights(GM, direction, feature, gates, INNER, HP, UP)
    gate = tl.arange(0, HP)
    bias = tl.load(GB + direction * gates + gate, mask=gate < gates, other=0.0).to(tl.float32)
    bias = tl.where(part == 0, bias, 0.0)
    for tile in range(first, last):
        sequence, s = positions(tile, tokens, BT)
        row, t, inside = direction * batch + sequence, time_of(s, back, tokens), s < tokens
        m = _tile_of(UP, row, t, inside, feature, tokens, 2 * INNER)
        start = tile % tl.cdiv(tokens, BT) * BT
        y = _convolved_by_products(m, UP, CONV, BIAS, row, direction, start, back, feature, tokens, INNER, TAPS, BT, DOT)
        c = (y * sigmoid(y)).to(UP.dtype.element_ty)
        tl.store(rows_of(C, row, t, feature, tokens, INNER), c, mask=inside[:, None])
        q = tl.dot(c, wq, input_precision=DOT).to(UP.dtype.element_ty)
        tl.store(rows_of(Q, row, t, feature, tokens, INNER), q, mask=inside[:, None])
        k = tl.dot(c, wk, input_precision=DOT).to(UP.dtype.element_ty)
        tl.store(rows_of(K, row, t, feature, tokens, INNER), k, mask=inside[:, None])
        v = tl.dot(m, wv, input_precision=DOT).to(UP.dtype.element_ty)
        tl.store(rows_of(V, row, t, feature, tokens, INNER), v, mask=inside[:, None])
        pre = tl.dot(c, gc, input_precision=DOT) + tl.dot(m, gm, input_precision=DOT) + bias[None, :]
        at, there = _gate_rows(PRE, part * directions * batch + row, t, inside, tokens, gates, HP)
        tl.store(at, pre, mask=there)


@triton.jit
def _put_blocks(SUMS, value, direction, first, column, width, columns, S: tl.constexpr):
    """Blocks of a dense tile of inputs × outputs, into columns ``S`` of the rows of their outputs."""
    i, o = tl.arange(0, FEATURES)[:, None], tl.arange(0, FEATURES)[None, :]
    at = SUMS + (direction * width + first + o) * columns + column + i % S
    tl.store(at, value, mask=i // S == o // S)


@triton.jit
def _put_columns(SUMS, value, direction, feature, column, width, columns, count, N: tl.constexpr):
    """Features × N numbers, of which ``count`` are meant, into as many columns."""
    number = tl.arange(0, N)
    at = SUMS + (direction * width + feature)[:, None] * columns + column + number[None, :]
    tl.store(at, value, mask=(number < count)[None, :])


@triton.jit
def inner_backward(
    UP, CONV, BIAS, WQ, WK, GC, C, DQ, DK, DPRE, DC, SUMS, batch, tokens, span, directions, reversed_from, gates,
    INNER: tl.constexpr, S: tl.constexpr, HP: tl.constexpr, TAPS: tl.constexpr, BT: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """Gradient of the convolution's output before its SiLU, in place of that of c; sums for the weights that c meets.

    Args:
        UP, CONV, BIAS, WQ, WK, GC, C: as in :func:`inner_forward`.
        DQ, DK, DC: gradients, ``P B T I``; DC is that of c by the skip, and is overwritten.
        DPRE: of the gates' pre-activations, ``P B 2H T`` float32.
        SUMS: ``spans P I X`` float32; X: S for q, S for k, 2H for the gates' share of c, and what
            :func:`inner_inputs_backward` adds.
    """
    part, number, direction, first, last = span_of(INNER // FEATURES, batch, tokens, span, BT)
    feature = part * FEATURES + tl.arange(0, FEATURES)
    back = direction >= reversed_from
    wq = _block_diagonal(WQ, direction, part * FEATURES, INNER, S, UP)
    wk = _block_diagonal(WK, direction, part * FEATURES, INNER, S, UP)
    gc = _gate_weights(GC, direction, feature, gates, INNER, HP, UP)
    dwq, dwk = tl.zeros((FEATURES, FEATURES), tl.float32), tl.zeros((FEATURES, FEATURES), tl.float32)
    dgc = tl.zeros((FEATURES, HP), tl.float32)
    for tile in range(first, last):
        sequence, s = positions(tile, tokens, BT)
        row, t, inside = direction * batch + sequence, time_of(s, back, tokens), s < tokens
        c = _tile_of(C, row, t, inside, feature, tokens, INNER)
        dq = _tile_of(DQ, row, t, inside, feature, tokens, INNER)
        dk = _tile_of(DK, row, t, inside, feature, tokens, INNER)
        at, there = _gate_rows(DPRE, row, t, inside, tokens, gates, HP)
        dpre = tl.load(at, mask=there, other=0.0).to(UP.dtype.element_ty)
        dwq = tl.dot(tl.trans(c), dq, dwq, input_precision=DOT)
        dwk = tl.dot(tl.trans(c), dk, dwk, input_precision=DOT)
        dgc = tl.dot(tl.trans(c), dpre, dgc, input_precision=DOT)
        dc = tl.dot(dq, tl.trans(wq), input_precision=DOT)
        dc = tl.dot(dk, tl.trans(wk), dc, input_precision=DOT)
        dc = tl.dot(dpre, tl.trans(gc), dc, input_precision=DOT)
        y = _convolved(UP, CONV, BIAS, row, direction, s, back, feature, tokens, INNER, TAPS)
        gate = sigmoid(y)
        slope = gate * (1.0 + y * (1.0 - gate))
        dy = (dc + _tile_of(DC, row, t, inside, feature, tokens, INNER).to(tl.float32)) * slope
        tl.store(rows_of(DC, row, t, feature, tokens, INNER), dy.to(UP.dtype.element_ty), mask=inside[:, None])
    columns = 3 * S + 2 * gates + TAPS + 1
    mine = SUMS + number * directions * INNER * columns
    _put_blocks(mine, dwq, direction, part * FEATURES, 0, INNER, columns, S)
    _put_blocks(mine, dwk, direction, part * FEATURES, S, INNER, columns, S)
    _put_columns(mine, dgc, direction, feature, 2 * S, INNER, columns, gates, HP)


@triton.jit
def inner_inputs_backward(
    UP, DY, DV, DPRE, CONV, WV, GM, DUP, SUMS, batch, tokens, span, directions, reversed_from, gates,
    INNER: tl.constexpr, S: tl.constexpr, HP: tl.constexpr, TAPS: tl.constexpr, BT: tl.constexpr, ROWS: tl.constexpr,
    DOT: tl.constexpr,
):  # fmt: skip
    """Gradient of m: by the convolution's output ``DY`` (later tokens, so it wants all of it), by v and by the gates.

    Args:
        DUP: its first half gets the gradient, ``P B T 2I``.
        SUMS: as in :func:`inner_backward`; here S for v, 2H for the gates' share of m, TAPS, and 1 for the bias before the SiLU.
        ROWS: tokens whose sums for the convolution are kept apart until the end.
    """
    part, number, direction, first, last = span_of(INNER // FEATURES, batch, tokens, span, BT)
    feature = part * FEATURES + tl.arange(0, FEATURES)
    back = direction >= reversed_from
    wv = _block_diagonal(WV, direction, part * FEATURES, INNER, S, DY)
    gm = _gate_weights(GM, direction, feature, gates, INNER, HP, DY)
    dwv, dgm = tl.zeros((FEATURES, FEATURES), tl.float32), tl.zeros((FEATURES, HP), tl.float32)
    dbias, none = tl.zeros((ROWS, FEATURES), tl.float32), tl.zeros((ROWS, FEATURES), tl.float32)
    dconv = ()
    for _ in tl.static_range(TAPS):
        dconv = dconv + (none,)
    for tile in range(first, last):
        sequence, s = positions(tile, tokens, BT)
        row, t, inside = direction * batch + sequence, time_of(s, back, tokens), s < tokens
        m = _tile_of(UP, row, t, inside, feature, tokens, 2 * INNER)
        dv = _tile_of(DV, row, t, inside, feature, tokens, INNER)
        at, there = _gate_rows(DPRE, row, t, inside, tokens, gates, HP)
        dpre = tl.load(at, mask=there, other=0.0).to(DY.dtype.element_ty)
        dwv = tl.dot(tl.trans(m), dv, dwv, input_precision=DOT)
        dgm = tl.dot(tl.trans(m), dpre, dgm, input_precision=DOT)
        by_cell = tl.dot(dv, tl.trans(wv), input_precision=DOT)
        by_cell = tl.dot(dpre, tl.trans(gm), by_cell, input_precision=DOT)
        before, dm, more = m.to(tl.float32), tl.zeros((BT, FEATURES), tl.float32), ()
        for tap in tl.static_range(TAPS):
            later = s + (TAPS - 1 - tap)
            dy = _tile_of(DY, row, time_of(later, back, tokens), later < tokens, feature, tokens, INNER).to(tl.float32)
            dm += dy * _tap(CONV, tap, direction, feature, INNER, TAPS)
            more = more + (dconv[tap] + added(dy * before, BT, FEATURES, ROWS),)
            if tap == TAPS - 1:
                dbias += added(dy, BT, FEATURES, ROWS)
        dconv = more
        tl.store(rows_of(DUP, row, t, feature, tokens, 2 * INNER), (dm + by_cell).to(DY.dtype.element_ty), mask=inside[:, None])
    columns = 3 * S + 2 * gates + TAPS + 1
    mine = SUMS + number * directions * INNER * columns
    _put_blocks(mine, dwv, direction, part * FEATURES, 2 * S + gates, INNER, columns, S)
    _put_columns(mine, dgm, direction, feature, 3 * S + gates, INNER, columns, gates, HP)
    at = mine + (direction * INNER + feature) * columns + (3 * S + 2 * gates)
    for tap in tl.static_range(TAPS):
        tl.store(at + tap, tl.sum(dconv[tap], 0))
    tl.store(at + TAPS, tl.sum(dbias, 0))
