"""The mLSTM backward on the GPU: dq by a scan forwards, dk and dv by a scan backwards; nothing of the memory is ever stored.

Why two scans and not one over stored memories: a stored memory of D × D a chunk of L tokens weighs D/L of a pass over q, so at
D = L = 64 both ways move the same bytes (11 passes against 10 and 1 more in the forward), wider heads lose by storing, and
training would hold a quarter more. Both scans recompute the decays; products of the normaliser are part of them, so all
gradients are exact. In true quantities, with below = max(|n · q|, exp(−m)) + eps, h = Σ_s (q · k_s) w_ts v_s / below:

    pull_t = −dh_t · h_t,  ds_t = pull_t · sign(n · q) / below_t  where the sum decided the normaliser, else 0,
    P_ts = (dh_t · v_s / below_t + ds_t) w_ts,  dq_t = Σ_{s≤t} P_ts k_s,  dk_s = Σ_{t≥s} P_ts q_t,  dv_s = Σ_{t≥s} (q_t·k_s) w_ts dh_t/below_t.

A program owns a row, or a tile of its keys (dq, dk) or values (dv) where a memory of D × D does not fit the registers.
"""
# ruff: noqa: ANN001, ANN201, PLR0913, PLR0917 - Triton reads annotations as its own types; a kernel's arguments are flat

import triton
import triton.language as tl

from models.xlstm.triton.parts import (
    SUM,
    base,
    decays,
    decays_back,
    ends,
    exponents,
    normaliser,
    place,
    plane,
    put,
    tile,
)


@triton.jit
def _normaliser_of(stats, t, inside, m, row, rows, tokens, eps):
    """1 / below, and the sign of n · q where the sum decided it, else 0."""
    total = tl.load(plane(stats, SUM, row, rows, tokens) + t, mask=inside, other=1.0)
    over, by_sum = normaliser(total, m, eps)
    return over, tl.where(by_sum, tl.where(total < 0, -1.0, 1.0), 0.0)


@triton.jit
def query_scan(
    K, V, H, DH, DQ, stats, pull, sk, sv, sh, sdh, sdq, inner, heads, rows, tokens, reversed_from, scale, eps,
    D: tl.constexpr, BD: tl.constexpr, BK: tl.constexpr, TILES: tl.constexpr, L: tl.constexpr, ONE: tl.constexpr,
    DOT: tl.constexpr,
):  # fmt: skip
    """dq, and pull (``R T``), which the scan back needs; the memory is held transposed, values × a tile of keys."""
    part, row = tl.program_id(0) % TILES, tl.program_id(0) // TILES
    K += base(row, sk, inner, heads)
    V += base(row, sv, inner, heads)
    H += base(row, sh, inner, heads)
    DH += base(row, sdh, inner, heads)
    DQ += base(row, sdq, inner, heads)
    value, key, in_chunk = tl.arange(0, BD), part * BK + tl.arange(0, BK), tl.arange(0, L)
    C, n = tl.zeros((BD, BK), tl.float32), tl.zeros((BK,), tl.float32)
    for c in range(0, tl.cdiv(tokens, L)):
        t = c * L + in_chunk
        inside = t < tokens
        at = place(t, row, tokens, inner, heads, reversed_from)
        dh = tile(DH, at, sdh[3], inside, value, D, BD == D)
        h = tile(H, at, sh[3], inside, value, D, BD == D)
        v = tile(V, at, sv[3], inside, value, D, BD == D)
        k = tile(K, at, sk[3], inside, key, D, D % BK == 0)
        x, u, m = exponents(stats, t, inside, row, rows, tokens)
        over, sign = _normaliser_of(stats, t, inside, m, row, rows, tokens, eps)
        asked = -tl.sum(dh.to(tl.float32) * h.to(tl.float32), 1)
        ds = asked * sign * over
        P = tl.dot(dh, tl.trans(v), input_precision=DOT) * over[:, None] + ds[:, None]
        P *= decays(x, u, L) * scale
        dq = tl.dot(P.to(k.dtype), k, input_precision=DOT)
        if not ONE:
            forget, before, after = ends(stats, c, row, rows, tokens, L)
            read = tl.exp(x + before) * scale
            dq += tl.dot(dh, C.to(dh.dtype), input_precision=DOT) * (read * over)[:, None]
            dq += (read * ds)[:, None] * n[None, :]
            write, keep = tl.exp(u + (forget - after)), tl.exp(forget + before - after)
            written = k.to(tl.float32) * write[:, None]
            C = C * keep + tl.dot(tl.trans(v), written.to(v.dtype), input_precision=DOT)
            n = n * keep + tl.sum(written, 0)
        put(DQ, dq, at, sdq[3], inside, key, D, D % BK == 0)
        if part == 0:
            tl.store(plane(pull, 0, row, rows, tokens) + t, asked, mask=inside)


@triton.jit
def key_value_scan(
    Q, K, V, DH, DK, DV, stats, pull, kappa, sq, sk, sv, sdh, sdk, sdv, inner, heads, rows, tokens, reversed_from, scale, eps,
    D: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, TILES: tl.constexpr, L: tl.constexpr, ONE: tl.constexpr,
    KEYS: tl.constexpr, VALUES: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """dk with κ_s = k_s · dk_s (``tiles R T``), dv, or both; what is held is the gradient of the memory, keys × values.

    With KEYS the tile covers all values, with VALUES all keys (as the L × L products need them whole), with both there is one.
    """
    part, row = tl.program_id(0) % TILES, tl.program_id(0) // TILES
    Q += base(row, sq, inner, heads)
    K += base(row, sk, inner, heads)
    V += base(row, sv, inner, heads)
    DH += base(row, sdh, inner, heads)
    DK += base(row, sdk, inner, heads)
    DV += base(row, sdv, inner, heads)
    key, value, in_chunk = tl.arange(0, BK), tl.arange(0, BV), tl.arange(0, L)
    if KEYS:
        key += part * BK
    else:
        value += part * BV
    dC, dn = tl.zeros((BK, BV), tl.float32), tl.zeros((BK,), tl.float32)
    chunks = tl.cdiv(tokens, L)
    for j in range(0, chunks):
        c = chunks - 1 - j
        t = c * L + in_chunk
        inside = t < tokens
        at = place(t, row, tokens, inner, heads, reversed_from)
        q = tile(Q, at, sq[3], inside, key, D, D % BK == 0)
        k = tile(K, at, sk[3], inside, key, D, D % BK == 0)
        dh = tile(DH, at, sdh[3], inside, value, D, D % BV == 0)
        x, u, m = exponents(stats, t, inside, row, rows, tokens)
        over, sign = _normaliser_of(stats, t, inside, m, row, rows, tokens, eps)
        W = decays_back(x, u, L) * scale
        if not ONE:
            forget, before, after = ends(stats, c, row, rows, tokens, L)
            write, keep = tl.exp(u + (forget - after)), tl.exp(forget + before - after)
            read = tl.exp(x + before) * scale
        if VALUES:
            S = tl.dot(k, tl.trans(q), input_precision=DOT) * (W * over[None, :])
            dv = tl.dot(S.to(dh.dtype), dh, input_precision=DOT)
            if not ONE:
                dv += tl.dot(k, dC.to(k.dtype), input_precision=DOT) * write[:, None]
            put(DV, dv, at, sdv[3], inside, value, D, D % BV == 0)
        if KEYS:
            v = tile(V, at, sv[3], inside, value, D, D % BV == 0)
            ds = tl.load(plane(pull, 0, row, rows, tokens) + t, mask=inside, other=0.0) * sign * over
            P = (tl.dot(v, tl.trans(dh), input_precision=DOT) * over[None, :] + ds[None, :]) * W
            dk = tl.dot(P.to(q.dtype), q, input_precision=DOT)
            if not ONE:
                dk += (tl.dot(v, tl.trans(dC.to(v.dtype)), input_precision=DOT) + dn[None, :]) * write[:, None]
                dn = dn * keep + tl.sum(q.to(tl.float32) * (read * ds)[:, None], 0)
            put(DK, dk, at, sdk[3], inside, key, D, D % BK == 0)
            given = tl.sum(dk * k.to(tl.float32), 1)
            tl.store(plane(kappa, part, row, rows, tokens) + t, given, mask=inside)
        if not ONE:
            asked = (dh.to(tl.float32) * (read * over)[:, None]).to(q.dtype)
            dC = dC * keep + tl.dot(tl.trans(q), asked, input_precision=DOT)
