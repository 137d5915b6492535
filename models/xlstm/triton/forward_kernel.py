"""The mLSTM forward on the GPU: one scan over chunks, the matrix memory on chip.

A program owns a row and a tile of the value dimension; it reads q, k and its tile of v once and writes its tile of h. Tiles of
a row compute the L × L products of a chunk each for itself, which costs arithmetic (there is threefold too much of it) and no
traffic (they run side by side and meet in the cache). What is held of the memory is its true value times exp(−m), m the running
maximum at the end of the chunk before, so every factor below is at most 1.
"""
# ruff: noqa: ANN001, ANN201, PLR0913, PLR0917 - Triton reads annotations as its own types; a kernel's arguments are flat

import triton
import triton.language as tl

from models.xlstm.triton.parts import SUM, base, decays, ends, exponents, normaliser, place, plane, put, tile


@triton.jit
def forward_scan(
    Q, K, V, H, stats, sq, sk, sv, sh, inner, heads, rows, tokens, reversed_from, scale, eps,
    D: tl.constexpr, BD: tl.constexpr, BV: tl.constexpr, TILES: tl.constexpr, L: tl.constexpr, ONE: tl.constexpr,
    DOT: tl.constexpr,
):  # fmt: skip
    """h, and the signed sum n · q of every token (plane SUM).

    Args:
        Q, K, V, H: rows of ``T D``; strides (direction, sequence, head, token).
        stats: ``4 R T``.
        scale: 1/√D.
        BD, BV: D as a power of two, and the width of a tile of values.
        ONE: whether all is one chunk, which needs no memory.
        DOT: precision of products of float32.
    """
    part, row = tl.program_id(0) % TILES, tl.program_id(0) // TILES
    Q += base(row, sq, inner, heads)
    K += base(row, sk, inner, heads)
    V += base(row, sv, inner, heads)
    H += base(row, sh, inner, heads)
    key, value, in_chunk = tl.arange(0, BD), part * BV + tl.arange(0, BV), tl.arange(0, L)
    C, n = tl.zeros((BD, BV), tl.float32), tl.zeros((BD,), tl.float32)
    for c in range(0, tl.cdiv(tokens, L)):
        t = c * L + in_chunk
        inside = t < tokens
        at = place(t, row, tokens, inner, heads, reversed_from)
        q = tile(Q, at, sq[3], inside, key, D, BD == D)
        k = tile(K, at, sk[3], inside, key, D, BD == D)
        v = tile(V, at, sv[3], inside, value, D, D % BV == 0)
        x, u, m = exponents(stats, t, inside, row, rows, tokens)
        S = tl.dot(q, tl.trans(k), input_precision=DOT) * (decays(x, u, L) * scale)
        top, total = tl.dot(S.to(v.dtype), v, input_precision=DOT), tl.sum(S, 1)
        if not ONE:
            forget, before, after = ends(stats, c, row, rows, tokens, L)
            read = tl.exp(x + before) * scale
            top += tl.dot(q, C.to(q.dtype), input_precision=DOT) * read[:, None]
            total += tl.sum(q.to(tl.float32) * n[None, :], 1) * read
            write, keep = tl.exp(u + (forget - after)), tl.exp(forget + before - after)
            C = C * keep + tl.dot(tl.trans(k), (v.to(tl.float32) * write[:, None]).to(k.dtype), input_precision=DOT)
            n = n * keep + tl.sum(k.to(tl.float32) * write[:, None], 0)
        over, _ = normaliser(total, m, eps)
        put(H, top * over[:, None], at, sh[3], inside, value, D, D % BV == 0)
        if part == 0:
            tl.store(plane(stats, SUM, row, rows, tokens) + t, total, mask=inside)
