"""InfoNCE on the GPU: similarities of a trace's positions live in a tile at a time and are computed again for the gradient.

A position's negatives are drawn with replacement, so what a softmax wants of them is how often each other position was drawn:
Σ over negatives of exp(logit) is Σ over positions of count · exp(logit). So nothing is gathered, and nothing but the counts, a
byte each, has positions × positions numbers forwards. Similarities are products of the vectors as they come, 16 bits wide and
added up in float32, times the inverse of both lengths: what normalised float32 vectors would give.
"""
# ruff: noqa: ANN001, ANN201, ANN202, PLR0913, PLR0917 - Triton reads annotations as its own types; kernels are flat
# Triton's reductions are declared to return tuples as well:
# pyright: reportOperatorIssue=false, reportArgumentType=false, reportGeneralTypeIssues=false

import triton
import triton.language as tl


@triton.jit
def _vectors(X, trace, at, M, E: tl.constexpr, EP: tl.constexpr):
    """Positions × features of a trace, zero beyond both."""
    feature = tl.arange(0, EP)
    inside = (at < M)[:, None] & (feature < E)[None, :]
    return tl.load(X + (trace * M + at[:, None]) * E + feature[None, :], mask=inside, other=0.0)


@triton.jit
def _drawn(COUNTS, CODES, trace, i, j, mine, M, MP, CODED: tl.constexpr):
    """How often j was drawn for i, as numbers, and which of them carry i's own code."""
    inside = (i < M)[:, None] & (j < M)[None, :]
    count = tl.load(COUNTS + (trace * M + i[:, None]) * MP + j[None, :], mask=inside, other=0).to(tl.float32)
    same = count < 0.0
    if CODED:
        theirs = tl.load(CODES + trace * M + j, mask=j < M, other=-1)
        same = (count > 0.0) & (mine[:, None] == theirs[None, :])
    return count, same


@triton.jit
def info_nce_forward(
    C, T, RC, RT, CODES, COUNTS, OWN, SUM, HIT, M, MP, sharpness,
    E: tl.constexpr, EP: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, CODED: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """Logits of the own targets, logarithms of all exponentials, and hits, of a tile of positions.

    Args:
        C, T: context and target, ``B M E``.
        RC, RT: one over their lengths, ``B M``.
        CODES: ``B M`` int64; not read unless CODED.
        COUNTS: how often each position was drawn for each, ``B M MP`` uint8.
        OWN, SUM: ``B M`` float32.
        HIT: ``B M`` uint8: own target above all negatives, none of which carries its code.
        sharpness: one over the temperature.
    """
    tiles = tl.cdiv(M, BM)
    trace, i = (tl.program_id(0) // tiles).to(tl.int64), tl.program_id(0) % tiles * BM + tl.arange(0, BM)
    c = _vectors(C, trace, i, M, E, EP)
    rc = tl.load(RC + trace * M + i, mask=i < M, other=0.0) * sharpness
    mine = tl.zeros((BM,), tl.int64)
    if CODED:
        mine = tl.load(CODES + trace * M + i, mask=i < M, other=-2)
    own, top = tl.zeros((BM,), tl.float32), tl.full((BM,), -float("inf"), tl.float32)
    total, tied = tl.zeros((BM,), tl.float32), tl.zeros((BM,), tl.int32)
    for first in range(0, M, BN):
        j = first + tl.arange(0, BN)
        rt = tl.load(RT + trace * M + j, mask=j < M, other=0.0)
        logit = tl.dot(c, tl.trans(_vectors(T, trace, j, M, E, EP)), input_precision=DOT) * rc[:, None] * rt[None, :]
        own += tl.sum(tl.where(i[:, None] == j[None, :], logit, 0.0), 1)
        count, same = _drawn(COUNTS, CODES, trace, i, j, mine, M, MP, CODED)
        tied = tl.maximum(tied, tl.max(same.to(tl.int32), 1))
        count = tl.where(same, 0.0, count)
        logit = tl.where(count > 0.0, logit, -float("inf"))
        higher = tl.maximum(top, tl.max(logit, 1))
        level = tl.where(higher == -float("inf"), 0.0, higher)
        total = total * tl.exp(top - level) + tl.sum(count * tl.exp(logit - level[:, None]), 1)
        top = higher
    level = tl.maximum(top, own)
    tl.store(OWN + trace * M + i, own, mask=i < M)
    tl.store(SUM + trace * M + i, level + tl.log(tl.exp(own - level) + total * tl.exp(top - level)), mask=i < M)
    tl.store(HIT + trace * M + i, ((own > top) & (tied == 0)).to(tl.uint8), mask=i < M)


@triton.jit
def info_nce_backward(
    C, T, RC, RT, CODES, COUNTS, SUM, DLOSS, D, M, MP, sharpness,
    E: tl.constexpr, EP: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, CODED: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """Gradient of the products of vectors as they come, ``B M MP``, from that of the loss of every position, ``B M``."""
    tiles, across = tl.cdiv(M, BM), tl.cdiv(M, BN)
    trace = (tl.program_id(0) // (tiles * across)).to(tl.int64)
    i = tl.program_id(0) // across % tiles * BM + tl.arange(0, BM)
    j = tl.program_id(0) % across * BN + tl.arange(0, BN)
    rc = tl.load(RC + trace * M + i, mask=i < M, other=0.0) * sharpness
    rt = tl.load(RT + trace * M + j, mask=j < M, other=0.0)
    mine = tl.zeros((BM,), tl.int64)
    if CODED:
        mine = tl.load(CODES + trace * M + i, mask=i < M, other=-2)
    scale = rc[:, None] * rt[None, :]
    logit = tl.dot(_vectors(C, trace, i, M, E, EP), tl.trans(_vectors(T, trace, j, M, E, EP)), input_precision=DOT) * scale
    count, same = _drawn(COUNTS, CODES, trace, i, j, mine, M, MP, CODED)
    below = tl.load(SUM + trace * M + i, mask=i < M, other=0.0)
    pull = tl.load(DLOSS + trace * M + i, mask=i < M, other=0.0)
    own = tl.where(i[:, None] == j[None, :], 1.0, 0.0)
    count = tl.where(same, 0.0, count) + own
    d = tl.where(count > 0.0, count * tl.exp(logit - below[:, None]), 0.0) - own
    inside = (i < M)[:, None] & (j < M)[None, :]
    at = D + (trace * M + i[:, None]) * MP + j[None, :]
    tl.store(at, (d * pull[:, None] * scale).to(D.dtype.element_ty), mask=inside)
