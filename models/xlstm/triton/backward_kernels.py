"""The mLSTM backward on the GPU: two light scans keep the state at every border between chunks, then all chunks work at once.

``state_scan`` goes over the chunks in sequence, forwards with the memory C, backwards with its gradient: one product a chunk,
so the memory's bandwidth bounds it. ``chunk_gradients`` starts from what both left at the borders of its chunk and makes dq, dk
and dv there; no chunk waits for another, so a multiprocessor has enough to do while products wait for each other. A state of
D × D a chunk of L tokens weighs D/L of a pass over q, written once and read once; a scan that holds it on chip instead is bound
by the latency of seven products a chunk. Decays and products of the normaliser are computed again, so all gradients are exact.
In true quantities, with below = max(|n · q|, exp(−m)) + eps and h = Σ_s (q · k_s) w_ts v_s / below:

    pull_t = −dh_t · h_t,  ds_t = pull_t · sign(n · q) / below_t  where the sum decided the normaliser, else 0,
    P_ts = (dh_t · v_s / below_t + ds_t) w_ts,
    dq_t = Σ_{s≤t} P_ts k_s,  dk_s = Σ_{t≥s} P_ts q_t,  dv_s = Σ_{t≥s} (q_t · k_s) w_ts dh_t / below_t.

States lie transposed, values × keys, ``R borders D D`` in the dtype of the operands, n and its gradient ``R borders D`` in
float32; border c is behind chunk c, and there is none behind the last.
"""
# ruff: noqa: ANN001, ANN201, ANN202, C901, PLR0912, PLR0913, PLR0915, PLR0917 - Triton reads annotations as its own types;
# a kernel is flat, and its branches are taken when it is compiled
# Triton's reductions are declared to return tuples as well, its ranges not to be iterated over:
# pyright: reportOperatorIssue=false, reportArgumentType=false, reportGeneralTypeIssues=false

import triton
import triton.language as tl

from models.xlstm.triton.parts import (
    SIGN,
    TAKE,
    WRITE,
    about,
    base,
    decays,
    decays_back,
    ends,
    entry,
    gradient,
    line,
    put,
    stride,
    tile,
)


@triton.jit
def _pulled(
    DH, H, t, step_dh, step_h, tokens, D: tl.constexpr, BD: tl.constexpr, BP: tl.constexpr, L: tl.constexpr, EVEN: tl.constexpr
):
    """pull of tokens, BP features at a time."""
    pull = tl.zeros((L,), tl.float32)
    for first in tl.static_range(0, BD, BP):
        feature = first + tl.arange(0, BP)
        dh = tile(DH, t, step_dh, tokens, feature, D, D % BP == 0, EVEN)
        h = tile(H, t, step_h, tokens, feature, D, D % BP == 0, EVEN)
        pull -= tl.sum(dh.to(tl.float32) * h.to(tl.float32), 1)
    return pull


@triton.jit
def _keep_state(
    states, sums, C, n, c, row, tokens, value, key, D: tl.constexpr, BD: tl.constexpr, BK: tl.constexpr, L: tl.constexpr
):
    """Write what stands at border c: a tile of keys."""
    borders = tl.cdiv(tokens, L) - 1
    put(entry(states, row, borders, c, D * D), C, value, D, D, key, D, D % BK == 0, BD == D)
    tl.store(entry(sums, row, borders, c, D) + key, n, mask=key < D)


@triton.jit
def _memories(
    K, V, stats, memories, sums, sk, sv, part, row, inner, heads, tokens, reversed_from,
    D: tl.constexpr, BD: tl.constexpr, BK: tl.constexpr, L: tl.constexpr, DOT: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """C and n at every border, times exp(−m) there. The last chunk adds to none, and all others are full."""
    K += base(row, sk, inner, heads, tokens, reversed_from)
    V += base(row, sv, inner, heads, tokens, reversed_from)
    step_k, step_v = stride(row, sk, inner, heads, reversed_from), stride(row, sv, inner, heads, reversed_from)
    value, key, in_chunk = tl.arange(0, BD), part * BK + tl.arange(0, BK), tl.arange(0, L)
    C, n = tl.zeros((BD, BK), tl.float32), tl.zeros((BK,), tl.float32)
    for c in tl.range(0, tl.cdiv(tokens, L) - 1, num_stages=STAGES):
        t = c * L + in_chunk
        k = tile(K, t, step_k, tokens, key, D, D % BK == 0, True)
        v = tile(V, t, step_v, tokens, value, D, BD == D, True)
        u = tl.load(about(stats, c * L, row, tokens) + in_chunk + WRITE)
        keep, left, _ = ends(stats, c, row, tokens, L)
        keep = tl.exp2(keep)
        written = k.to(tl.float32) * tl.exp2(u + left)[:, None]
        C = tl.dot(tl.trans(v), written.to(v.dtype), C * keep, input_precision=DOT)
        n = n * keep + tl.sum(written, 0)
        _keep_state(memories, sums, C, n, c, row, tokens, value, key, D, BD, BK, L)


@triton.jit
def _slopes(
    Q, H, DH, stats, pull_of, slopes, slope_sums, sq, sh, sdh, part, row, inner, heads, rows, tokens, reversed_from,
    D: tl.constexpr, BD: tl.constexpr, BK: tl.constexpr, L: tl.constexpr, EVEN: tl.constexpr, DOT: tl.constexpr,
    STAGES: tl.constexpr,
):  # fmt: skip
    """The gradients of C and n at every border, and pull of all tokens. The first chunk reads no memory."""
    Q += base(row, sq, inner, heads, tokens, reversed_from)
    H += base(row, sh, inner, heads, tokens, reversed_from)
    DH += base(row, sdh, inner, heads, tokens, reversed_from)
    step_q, step_h = stride(row, sq, inner, heads, reversed_from), stride(row, sh, inner, heads, reversed_from)
    step_dh = stride(row, sdh, inner, heads, reversed_from)
    value, key, in_chunk = tl.arange(0, BD), part * BK + tl.arange(0, BK), tl.arange(0, L)
    dC, dn = tl.zeros((BD, BK), tl.float32), tl.zeros((BK,), tl.float32)
    borders = tl.cdiv(tokens, L) - 1
    for j in tl.range(0, borders, num_stages=STAGES):
        c = borders - j
        t = c * L + in_chunk
        q = tile(Q, t, step_q, tokens, key, D, D % BK == 0, EVEN)
        dh = tile(DH, t, step_dh, tokens, value, D, BD == D, EVEN)
        h = tile(H, t, step_h, tokens, value, D, BD == D, EVEN)
        known = about(stats, c * L, row, tokens) + in_chunk
        take, sign = tl.load(known + TAKE), tl.load(known + SIGN)
        pull = -tl.sum(dh.to(tl.float32) * h.to(tl.float32), 1)
        if part == 0:
            tl.store(line(pull_of, 0, row, rows, tokens) + t, pull)
        keep, _, before = ends(stats, c, row, tokens, L)
        keep = tl.exp2(keep)
        taken = q.to(tl.float32) * tl.exp2(take + before)[:, None]
        dC = tl.dot(tl.trans(dh), taken.to(dh.dtype), dC * keep, input_precision=DOT)
        dn = dn * keep + tl.sum(taken * (pull * sign)[:, None], 0)
        _keep_state(slopes, slope_sums, dC, dn, c - 1, row, tokens, value, key, D, BD, BK, L)
    if part == 0:
        pull = _pulled(DH, H, in_chunk, step_dh, step_h, tokens, D, BD, BD, L, True)
        tl.store(line(pull_of, 0, row, rows, tokens) + in_chunk, pull)


@triton.jit
def state_scan(
    Q, K, V, H, DH, stats, pull_of, memories, sums, slopes, slope_sums, sq, sk, sv, sh, sdh, inner, heads, rows, tokens,
    reversed_from, D: tl.constexpr, BD: tl.constexpr, BK: tl.constexpr, TILES: tl.constexpr, L: tl.constexpr, EVEN: tl.constexpr,
    DOT: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """The memory at every border (``memories``, ``sums``) and its gradient (``slopes``, ``slope_sums``), and pull (``R T'``).

    A program owns a row, a tile of keys and one of both; those of the gradient read more and come first. Loops name their
    stages: what a loop reads that goes into no product is in flight only so.
    """
    half = rows * TILES
    part, row = tl.program_id(0) % TILES, tl.program_id(0) % half // TILES
    if tl.program_id(0) < half:
        _slopes(
            Q, H, DH, stats, pull_of, slopes, slope_sums, sq, sh, sdh, part, row, inner, heads, rows, tokens, reversed_from,
            D, BD, BK, L, EVEN, DOT, STAGES,
        )  # fmt: skip
    else:
        _memories(
            K, V, stats, memories, sums, sk, sv, part, row, inner, heads, tokens, reversed_from, D, BD, BK, L, DOT, STAGES,
        )  # fmt: skip


@triton.jit
def chunk_gradients(
    Q, K, V, H, DH, DQ, DK, DV, stats, pull_of, rho, kappa, memories, sums, slopes, slope_sums, passing, sq, sk, sv, sh, sdh, sdq,
    sdk, sdv, inner, heads, rows, tokens, reversed_from, D: tl.constexpr, BD: tl.constexpr, BP: tl.constexpr, BW: tl.constexpr,
    TILES: tl.constexpr, L: tl.constexpr, ONE: tl.constexpr, EVEN: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """A tile of features of dq, dk, dv of one chunk, and the tile's share of what the gates' gradients are made of.

    These are ρ_t = q_t · dq_t (``tiles R T'``), κ_s = k_s · dk_s (``2 tiles R T'``: of the token's own chunk, of all) and what
    passes the chunk by, from tokens before to tokens behind (``tiles R chunks``). One result is done before the next begins.

    Args:
        BP: features of a piece, in which products over all features are added up.
        BW: features of a tile.
        ONE: whether all is one chunk: no states, and pull is computed here.
    """
    WHOLE: tl.constexpr = BW == BD and BP == BD
    chunks = tl.cdiv(tokens, L)
    part, c = tl.program_id(0) % TILES, tl.program_id(0) // TILES % chunks
    row = tl.program_id(0) // (TILES * chunks)
    Q += base(row, sq, inner, heads, tokens, reversed_from)
    K += base(row, sk, inner, heads, tokens, reversed_from)
    V += base(row, sv, inner, heads, tokens, reversed_from)
    DH += base(row, sdh, inner, heads, tokens, reversed_from)
    DQ += base(row, sdq, inner, heads, tokens, reversed_from)
    DK += base(row, sdk, inner, heads, tokens, reversed_from)
    DV += base(row, sdv, inner, heads, tokens, reversed_from)
    step_q, step_k = stride(row, sq, inner, heads, reversed_from), stride(row, sk, inner, heads, reversed_from)
    step_v, step_dh = stride(row, sv, inner, heads, reversed_from), stride(row, sdh, inner, heads, reversed_from)
    step_dq, step_dk = stride(row, sdq, inner, heads, reversed_from), stride(row, sdk, inner, heads, reversed_from)
    step_dv = stride(row, sdv, inner, heads, reversed_from)
    own, in_piece, in_chunk = part * BW + tl.arange(0, BW), tl.arange(0, BP), tl.arange(0, L)
    t = c * L + in_chunk
    known = about(stats, c * L, row, tokens) + in_chunk
    memory, slope, last = tl.maximum(c - 1, 0), tl.minimum(c, chunks - 2), c == chunks - 1
    C, dC = entry(memories, row, chunks - 1, memory, D * D), entry(slopes, row, chunks - 1, slope, D * D)

    S, dv = tl.zeros((L, L), tl.float32), tl.zeros((L, BW), tl.float32)
    dh = tile(DH, t, step_dh, tokens, own, D, D % BW == 0, EVEN)
    for first in tl.static_range(0, BD, BP):
        k = tile(K, t, step_k, tokens, first + in_piece, D, D % BP == 0, EVEN)
        q = tile(Q, t, step_q, tokens, first + in_piece, D, D % BP == 0, EVEN)
        S = tl.dot(k, tl.trans(q), S, input_precision=DOT)
    take, u = tl.load(known + TAKE), tl.load(known + WRITE)
    S = (S * decays_back(take, u, L)).to(q.dtype)
    if not ONE:
        keep, left, before = ends(stats, c, row, tokens, L)
        for first in tl.static_range(0, BD, BP):
            if BP != BD:
                k = tile(K, t, step_k, tokens, first + in_piece, D, D % BP == 0, EVEN)
            state = tile(dC, own, D, D, first + in_piece, D, D % BP == 0, D % BW == 0)
            if WHOLE:
                held = tile(C, own, D, D, first + in_piece, D, D % BP == 0, D % BW == 0)
                by = tl.sum(tl.sum(held.to(tl.float32) * state.to(tl.float32), 1), 0)
            dv = tl.dot(k, tl.trans(state), dv, input_precision=DOT)
        dv *= tl.where(last, 0.0, tl.exp2(u + left))[:, None]
    dv = tl.dot(S, dh, dv, input_precision=DOT)
    put(DV, dv, t, step_dv, tokens, own, D, D % BW == 0, EVEN)

    P, dq = tl.zeros((L, L), tl.float32), tl.zeros((L, BW), tl.float32)
    for first in tl.static_range(0, BD, BP):
        if not WHOLE:
            dh = tile(DH, t, step_dh, tokens, first + in_piece, D, D % BP == 0, EVEN)
        v = tile(V, t, step_v, tokens, first + in_piece, D, D % BP == 0, EVEN)
        P = tl.dot(dh, tl.trans(v), P, input_precision=DOT)
    if ONE:
        H += base(row, sh, inner, heads, tokens, reversed_from)
        pull = _pulled(DH, H, t, step_dh, stride(row, sh, inner, heads, reversed_from), tokens, D, BD, BP, L, EVEN)
        if part == 0:
            tl.store(line(pull_of, 0, row, rows, tokens) + t, pull)
    else:
        pull = gradient(pull_of, t, row, rows, tokens, EVEN)
    take, turn = tl.load(known + TAKE), pull * tl.load(known + SIGN)
    P = ((P + turn[:, None]) * decays(take, tl.load(known + WRITE), L)).to(q.dtype)
    if not WHOLE:
        q = tile(Q, t, step_q, tokens, own, D, D % BW == 0, EVEN)
        k = tile(K, t, step_k, tokens, own, D, D % BW == 0, EVEN)
    if not ONE:
        if not WHOLE:
            by = 0.0
        for first in tl.static_range(0, BD, BP):
            if BP != BD:
                dh = tile(DH, t, step_dh, tokens, first + in_piece, D, D % BP == 0, EVEN)
            if not WHOLE:
                state = tile(dC, first + in_piece, D, D, own, D, D % BW == 0, D % BP == 0)
                held = tile(C, first + in_piece, D, D, own, D, D % BW == 0, D % BP == 0)
                by += tl.sum(tl.sum(held.to(tl.float32) * state.to(tl.float32), 1), 0)
            dq = tl.dot(dh, held, dq, input_precision=DOT)
        n = tl.load(entry(sums, row, chunks - 1, memory, D) + own, mask=own < D, other=0.0)
        dq = (dq + turn[:, None] * n[None, :]) * tl.exp2(take + before)[:, None]
    dq = tl.dot(P, k, dq, input_precision=DOT)
    again = tile(Q, t, step_q, tokens, own, D, D % BW == 0, EVEN)
    tl.store(line(rho, part, row, rows, tokens) + t, tl.sum(dq * again.to(tl.float32), 1))
    put(DQ, dq, t, step_dq, tokens, own, D, D % BW == 0, EVEN)

    # What is added up here is a tile of its own, not what a product goes on from: Triton 3.6 then read the sum from its result.
    dk = tl.dot(tl.trans(P), q, input_precision=DOT)
    again = tile(K, t, step_k, tokens, own, D, D % BW == 0, EVEN)
    tl.store(line(kappa, part, row, rows, tokens) + t, tl.sum(dk * again.to(tl.float32), 1))
    if not ONE:
        old = tl.zeros((L, BW), tl.float32)
        for first in tl.static_range(0, BD, BP):
            if BP != BD:
                v = tile(V, t, step_v, tokens, first + in_piece, D, D % BP == 0, EVEN)
                state = tile(dC, first + in_piece, D, D, own, D, D % BW == 0, D % BP == 0)
            old = tl.dot(v, state, old, input_precision=DOT)
        n = tl.load(entry(sums, row, chunks - 1, memory, D) + own, mask=own < D, other=0.0)
        dn = tl.load(entry(slope_sums, row, chunks - 1, slope, D) + own, mask=own < D, other=0.0)
        by = tl.where(last, 0.0, (by + tl.sum(dn * n, 0)) * tl.exp2(keep))
        tl.store(entry(passing, row + rows * part, chunks, c, 1), by)
        dk += (old + dn[None, :]) * tl.where(last, 0.0, tl.exp2(tl.load(known + WRITE) + left))[:, None]
        tl.store(line(kappa, TILES + part, row, rows, tokens) + t, tl.sum(dk * again.to(tl.float32), 1))
    put(DK, dk, t, step_dk, tokens, own, D, D % BW == 0, EVEN)
