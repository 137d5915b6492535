"""The mLSTM backward on the GPU: dq by a scan forwards, dk and dv by a scan backwards; nothing of the memory is ever stored.

Why two scans and not one over stored memories: a stored memory of D × D a chunk of L tokens weighs D/L of a pass over q, so at
D = L = 64 storing saves two passes of sixteen and training holds a quarter more; wider heads lose by it. dk and dv are tiles of
one launch: as programs side by side they share reads in the cache.
Both scans recompute the decays; products of the normaliser are part of them, so all gradients are exact. In true quantities,
with below = max(|n · q|, exp(−m)) + eps and h = Σ_s (q · k_s) w_ts v_s / below:

    pull_t = −dh_t · h_t,  ds_t = pull_t · sign(n · q) / below_t  where the sum decided the normaliser, else 0,
    P_ts = (dh_t · v_s / below_t + ds_t) w_ts,
    dq_t = Σ_{s≤t} P_ts k_s,  dk_s = Σ_{t≥s} P_ts q_t,  dv_s = Σ_{t≥s} (q_t · k_s) w_ts dh_t / below_t.

A program owns a row, or a tile of its keys (dq, dk) or values (dv) where a memory of D × D does not fit the registers.

With 16-bit operands the memory after every chunk goes from the first scan to the second (``KEPT``), for one number a chunk: what
passes it by, from tokens before to tokens behind, see :func:`gates_backward`.
"""
# ruff: noqa: ANN001, ANN201, ANN202, PLR0913, PLR0915, PLR0917 - Triton reads annotations as its own types; kernels are flat
# Triton's reductions are declared to return tuples as well:
# pyright: reportOperatorIssue=false

import triton
import triton.language as tl

from models.xlstm.triton.parts import (
    SIGN,
    TAKE,
    WRITE,
    about,
    base,
    behind,
    decays,
    decays_back,
    ends,
    gradient,
    line,
    put,
    row_products,
    stride,
    tile,
)


@triton.jit
def query_scan(
    Q, K, V, H, DH, DQ, stats, pull_of, rho, memories, sums, sq, sk, sv, sh, sdh, sdq, inner, heads, rows, tokens, reversed_from,
    D: tl.constexpr, BD: tl.constexpr, BK: tl.constexpr, TILES: tl.constexpr, L: tl.constexpr, ONE: tl.constexpr,
    KEPT: tl.constexpr, EVEN: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """dq, and of every token pull (``R T'``) and ρ_t = q_t · dq_t (``tiles R T'``), which the kernels after this one need.

    The memory is held transposed, values × a tile of keys,
    and is left so behind every chunk (``R chunks D D``), its normaliser beside it (``R chunks D``).
    """
    part, row = tl.program_id(0) % TILES, tl.program_id(0) // TILES
    K += base(row, sk, inner, heads, tokens, reversed_from)
    V += base(row, sv, inner, heads, tokens, reversed_from)
    H += base(row, sh, inner, heads, tokens, reversed_from)
    DH += base(row, sdh, inner, heads, tokens, reversed_from)
    Q += base(row, sq, inner, heads, tokens, reversed_from)
    step_q = stride(row, sq, inner, heads, reversed_from)
    DQ += base(row, sdq, inner, heads, tokens, reversed_from)
    step_k = stride(row, sk, inner, heads, reversed_from)
    step_v = stride(row, sv, inner, heads, reversed_from)
    step_h = stride(row, sh, inner, heads, reversed_from)
    step_dh = stride(row, sdh, inner, heads, reversed_from)
    step_dq = stride(row, sdq, inner, heads, reversed_from)
    value, key, in_chunk = tl.arange(0, BD), part * BK + tl.arange(0, BK), tl.arange(0, L)
    C, n = tl.zeros((BD, BK), tl.float32), tl.zeros((BK,), tl.float32)
    for c in range(0, tl.cdiv(tokens, L)):
        t = c * L + in_chunk
        dh = tile(DH, t, step_dh, tokens, value, D, BD == D, EVEN)
        h = tile(H, t, step_h, tokens, value, D, BD == D, EVEN)
        v = tile(V, t, step_v, tokens, value, D, BD == D, EVEN)
        k = tile(K, t, step_k, tokens, key, D, D % BK == 0, EVEN)
        known = about(stats, c * L, row, tokens) + in_chunk
        u, take, sign = tl.load(known + WRITE), tl.load(known + TAKE), tl.load(known + SIGN)
        pull = -row_products(dh, h, L, DOT)
        turn = pull * sign
        P = (tl.dot(dh, tl.trans(v), input_precision=DOT) + turn[:, None]) * decays(take, u, L)
        dq = tl.dot(P.to(k.dtype), k, input_precision=DOT)
        if not ONE:
            keep, left, before = ends(stats, c, row, tokens, L)
            old = tl.dot(dh, C.to(dh.dtype), input_precision=DOT) + turn[:, None] * n[None, :]
            dq += old * tl.exp2(take + before)[:, None]
            write, keep = tl.exp2(u + left), tl.exp2(keep)
            written = k.to(tl.float32) * write[:, None]
            C = C * keep + tl.dot(tl.trans(v), written.to(v.dtype), input_precision=DOT)
            n = n * keep + tl.sum(written, 0)
            if KEPT:
                tl.store(behind(sums, c, row, tokens, D, L) + key, n, mask=key < D)
                put(behind(memories, c, row, tokens, D * D, L), C, value, D, D, key, D, D % BK == 0, BD == D)
        q = tile(Q, t, step_q, tokens, key, D, D % BK == 0, EVEN)
        tl.store(line(rho, part, row, rows, tokens) + t, tl.sum(dq * q.to(tl.float32), 1))
        put(DQ, dq, t, step_dq, tokens, key, D, D % BK == 0, EVEN)
        if part == 0:
            tl.store(line(pull_of, 0, row, rows, tokens) + t, pull)


@triton.jit
def _key_rows(
    Q, K, V, DH, DK, stats, pull_of, kappa, memories, sums, passing, step_q, step_k, step_v, step_dh, step_dk, part, row, rows,
    tokens, D: tl.constexpr, BD: tl.constexpr, BK: tl.constexpr, TILES: tl.constexpr, L: tl.constexpr, ONE: tl.constexpr,
    KEPT: tl.constexpr, EVEN: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """A tile of dk, and what it adds to κ; the gradient of the memory is held as a tile of keys × values.

    The product of the normaliser's memory before a chunk with its gradient behind the chunk is part of what passes the chunk by.
    """
    value, key, in_chunk = tl.arange(0, BD), part * BK + tl.arange(0, BK), tl.arange(0, L)
    dC, dn = tl.zeros((BK, BD), tl.float32), tl.zeros((BK,), tl.float32)
    chunks = tl.cdiv(tokens, L)
    for j in range(0, chunks):
        c = chunks - 1 - j
        t = c * L + in_chunk
        v = tile(V, t, step_v, tokens, value, D, BD == D, EVEN)
        dh = tile(DH, t, step_dh, tokens, value, D, BD == D, EVEN)
        q = tile(Q, t, step_q, tokens, key, D, D % BK == 0, EVEN)
        k = tile(K, t, step_k, tokens, key, D, D % BK == 0, EVEN)
        known = about(stats, c * L, row, tokens) + in_chunk
        u, take = tl.load(known + WRITE), tl.load(known + TAKE)
        turn = gradient(pull_of, t, row, rows, tokens, EVEN) * tl.load(known + SIGN)
        P = (tl.dot(v, tl.trans(dh), input_precision=DOT) + turn[None, :]) * decays_back(take, u, L)
        dk = tl.dot(P.to(q.dtype), q, input_precision=DOT)
        tl.store(line(kappa, part, row, rows, tokens) + t, tl.sum(dk * k.to(tl.float32), 1))
        if not ONE:
            keep, left, before = ends(stats, c, row, tokens, L)
            keep = tl.exp2(keep)
            old = tl.dot(v, tl.trans(dC.to(v.dtype)), input_precision=DOT) + dn[None, :]
            dk += old * tl.exp2(u + left)[:, None]
            tl.store(line(kappa, TILES + part, row, rows, tokens) + t, tl.sum(dk * k.to(tl.float32), 1))
            dC *= keep
            dn *= keep
            if KEPT:
                n = tl.load(behind(sums, tl.maximum(c - 1, 0), row, tokens, D, L) + key, mask=key < D, other=0.0)
                tl.store(behind(passing, c, row + rows * part, tokens, 1, L), tl.where(c > 0, tl.sum(dn * n, 0), 0.0))
            taken = q.to(tl.float32) * tl.exp2(take + before)[:, None]
            dC += tl.dot(tl.trans(taken.to(dh.dtype)), dh, input_precision=DOT)
            dn += tl.sum(taken * turn[:, None], 0)
        put(DK, dk, t, step_dk, tokens, key, D, D % BK == 0, EVEN)


@triton.jit
def _value_rows(
    Q, K, DH, DV, stats, memories, passing, step_q, step_k, step_dh, step_dv, part, row, rows, tokens,
    D: tl.constexpr, BD: tl.constexpr, BV: tl.constexpr, TILES: tl.constexpr, L: tl.constexpr, ONE: tl.constexpr,
    KEPT: tl.constexpr, EVEN: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """A tile of dv; the gradient of the memory is held as keys × a tile of values.

    Its product with the memory before a chunk is the other part of what passes the chunk by: this tile has registers to spare.
    """
    key, value, in_chunk = tl.arange(0, BD), part * BV + tl.arange(0, BV), tl.arange(0, L)
    dC = tl.zeros((BD, BV), tl.float32)
    chunks = tl.cdiv(tokens, L)
    for j in range(0, chunks):
        c = chunks - 1 - j
        t = c * L + in_chunk
        q = tile(Q, t, step_q, tokens, key, D, BD == D, EVEN)
        k = tile(K, t, step_k, tokens, key, D, BD == D, EVEN)
        dh = tile(DH, t, step_dh, tokens, value, D, D % BV == 0, EVEN)
        known = about(stats, c * L, row, tokens) + in_chunk
        u, take = tl.load(known + WRITE), tl.load(known + TAKE)
        S = tl.dot(k, tl.trans(q), input_precision=DOT) * decays_back(take, u, L)
        dv = tl.dot(S.to(dh.dtype), dh, input_precision=DOT)
        if not ONE:
            keep, left, before = ends(stats, c, row, tokens, L)
            dv += tl.dot(k, dC.to(k.dtype), input_precision=DOT) * tl.exp2(u + left)[:, None]
            dC *= tl.exp2(keep)
            if KEPT:
                C = behind(memories, tl.maximum(c - 1, 0), row, tokens, D * D, L)
                C = tl.trans(tile(C, value, D, D, key, D, BD == D, D % BV == 0))
                by = tl.where(c > 0, tl.sum(tl.sum(dC * C, 1), 0), 0.0)
                tl.store(behind(passing, c, row + rows * (TILES + part), tokens, 1, L), by)
            taken = dh.to(tl.float32) * tl.exp2(take + before)[:, None]
            dC += tl.dot(tl.trans(q), taken.to(q.dtype), input_precision=DOT)
        put(DV, dv, t, step_dv, tokens, value, D, D % BV == 0, EVEN)


@triton.jit
def key_value_scan(
    Q, K, V, DH, DK, DV, stats, pull_of, kappa, memories, sums, passing, sq, sk, sv, sdh, sdk, sdv, inner, heads, rows, tokens,
    reversed_from, D: tl.constexpr, BD: tl.constexpr, BW: tl.constexpr, TILES: tl.constexpr, L: tl.constexpr,
    ONE: tl.constexpr, KEPT: tl.constexpr, EVEN: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """dk with κ_s = k_s · dk_s (``2 tiles R T'``: of the token's own chunk, of all), and dv: tiles of both side by side,
    so that what they share is in the cache; and what passes every chunk by (``2 tiles R chunks``).

    Products of L × L want all keys for dv and all values for dk; a program for both holds too much for the registers.
    """
    part, row = tl.program_id(0) % (2 * TILES), tl.program_id(0) // (2 * TILES)
    Q += base(row, sq, inner, heads, tokens, reversed_from)
    K += base(row, sk, inner, heads, tokens, reversed_from)
    DH += base(row, sdh, inner, heads, tokens, reversed_from)
    step_q, step_k = stride(row, sq, inner, heads, reversed_from), stride(row, sk, inner, heads, reversed_from)
    step_dh = stride(row, sdh, inner, heads, reversed_from)
    if part < TILES:
        V += base(row, sv, inner, heads, tokens, reversed_from)
        DK += base(row, sdk, inner, heads, tokens, reversed_from)
        step_v, step_dk = stride(row, sv, inner, heads, reversed_from), stride(row, sdk, inner, heads, reversed_from)
        _key_rows(
            Q, K, V, DH, DK, stats, pull_of, kappa, memories, sums, passing, step_q, step_k, step_v, step_dh, step_dk, part,
            row, rows, tokens, D, BD, BW, TILES, L, ONE, KEPT, EVEN, DOT,
        )  # fmt: skip
    else:
        DV += base(row, sdv, inner, heads, tokens, reversed_from)
        step_dv = stride(row, sdv, inner, heads, reversed_from)
        _value_rows(
            Q, K, DH, DV, stats, memories, passing, step_q, step_k, step_dh, step_dv, part - TILES, row, rows, tokens,
            D, BD, BW, TILES, L, ONE, KEPT, EVEN, DOT,
        )  # fmt: skip
