"""The mLSTM forward on the GPU: one scan over chunks, the matrix memory on chip.

A program owns a row and a tile of the value dimension; it reads q, k and its tile of v once and writes its tile of h. Tiles of
a row compute the L × L products of a chunk each for itself, which costs arithmetic (there is threefold too much of it) and no
traffic (they run side by side and meet in the cache). What is held of the memory is its true value times exp(−m), m the running
maximum at the end of the chunk before, so every factor below is at most 1.
"""
# ruff: noqa: ANN001, ANN201, PLR0913, PLR0917 - Triton reads annotations as its own types; a kernel's arguments are flat
# Triton's reductions are declared to return tuples as well:
# pyright: reportOperatorIssue=false, reportGeneralTypeIssues=false

import triton
import triton.language as tl

from models.xlstm.triton.parts import READ, SCALE, SIGN, TAKE, WRITE, about, base, decays, ends, put, split, stride, tile


@triton.jit
def forward_scan(
    Q, K, V, H, stats, sq, sk, sv, sh, inner, heads, rows, tokens, reversed_from, log_scale, eps,
    D: tl.constexpr, BD: tl.constexpr, BV: tl.constexpr, TILES: tl.constexpr, L: tl.constexpr, ONE: tl.constexpr,
    EVEN: tl.constexpr, DOT: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """h, and what the normaliser was (planes TAKE and SIGN).

    Args:
        Q, K, V, H: rows of ``T D``; strides (direction, sequence, head, token).
        stats: what is known of tokens, see parts.py.
        log_scale: of 1/√D, which every product with q takes, to the base 2.
        BD, BV: D as a power of two, and the width of a tile of values.
        ONE: whether all is one chunk, which needs no memory.
        EVEN: whether the last chunk is full.
        DOT: precision of products of float32.
    """
    part, row = tl.program_id(0) % TILES, tl.program_id(0) // TILES
    Q += base(row, sq, inner, heads, tokens, reversed_from)
    K += base(row, sk, inner, heads, tokens, reversed_from)
    V += base(row, sv, inner, heads, tokens, reversed_from)
    H += base(row, sh, inner, heads, tokens, reversed_from)
    step_q, step_k = stride(row, sq, inner, heads, reversed_from), stride(row, sk, inner, heads, reversed_from)
    step_v, step_h = stride(row, sv, inner, heads, reversed_from), stride(row, sh, inner, heads, reversed_from)
    key, value, in_chunk = tl.arange(0, BD), part * BV + tl.arange(0, BV), tl.arange(0, L)
    C, n = tl.zeros((BD, BV), tl.float32), tl.zeros((BD,), tl.float32)
    for c in tl.range(0, tl.cdiv(tokens, L), num_stages=STAGES):
        t = c * L + in_chunk
        q = tile(Q, t, step_q, tokens, key, D, BD == D, EVEN)
        k = tile(K, t, step_k, tokens, key, D, BD == D, EVEN)
        v = tile(V, t, step_v, tokens, value, D, D % BV == 0, EVEN)
        known = about(stats, c * L, row, tokens) + in_chunk
        x, u, m = tl.load(known + READ) + log_scale, tl.load(known + WRITE), tl.load(known + SCALE)
        top, total = tl.zeros((L, BV), tl.float32), tl.zeros((L,), tl.float32)
        if not ONE:
            keep, left, before = ends(stats, c, row, tokens, L)
            read, write, keep = tl.exp2(x + before), tl.exp2(u + left), tl.exp2(keep)
            top = tl.dot(q, C.to(q.dtype), input_precision=DOT) * read[:, None]
            total = tl.sum(tl.dot(q, split(n, q), input_precision=DOT), 1) * read
            C = C * keep + tl.dot(tl.trans(k), (v.to(tl.float32) * write[:, None]).to(k.dtype), input_precision=DOT)
            n = n * keep + tl.sum(tl.dot(tl.trans(k), split(write, k), input_precision=DOT), 1)
        S = tl.dot(q, tl.trans(k), input_precision=DOT) * decays(x, u, L)
        top, total = tl.dot(S.to(v.dtype), v, top, input_precision=DOT), total + tl.sum(S, 1)
        size, floor = tl.abs(total), tl.exp2(-m)
        below = tl.maximum(size, floor) + eps
        put(H, top / below[:, None], t, step_h, tokens, value, D, D % BV == 0, EVEN)
        if part == 0:
            tl.store(known + TAKE, x - tl.log2(below))
            tl.store(known + SIGN, tl.where(size > floor, tl.where(total >= 0, 1.0, -1.0), 0.0))
