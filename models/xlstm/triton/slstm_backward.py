"""The sLSTM backward on the GPU: backpropagation through time as one scan, then the recurrent matrix's gradient as a product.

With what the forward kept, and L the logarithm of the true normaliser, which stands for n and m:

    d = dh_t + Σ_k R_k dk_{t+1},  dr += σ(o) d,  ds = dr (tanh z − r_{t−1}) α (1 − α)
    di = ds + α dL,  da = (1 − α) dL − ds,  df = σ(−f) da,  dz = dr α (1 − tanh² z),  do = d r_t σ(o) (1 − σ(o))
    dL ← da,  dr ← (1 − α) dr

These are the derivatives of r_t = r_{t−1} + α (tanh z − r_{t−1}), α = σ(i − log σ(f) − L_{t−1}) and
L_t = log(exp(log σ(f) + L_{t−1}) + exp i): exact, and without the running maximum, of which h does not depend.

The recurrent matrix's gradient is no part of the scan: there it would hold 4 · D · D sums (64 registers a thread at D = 32) and
take four products a token on the only path there is; afterwards it costs one pass over h and dx.
"""
# ruff: noqa: ANN001, ANN201, PLR0913, PLR0917 - Triton reads annotations as its own types; a kernel's arguments are flat
# Triton's reductions are declared to return tuples as well:
# pyright: reportOperatorIssue=false

import triton
import triton.language as tl

from models.xlstm.triton.parts import base, stride
from models.xlstm.triton.slstm_parts import (
    PLANES,
    columns,
    features,
    four,
    kept_at,
    matrix,
    mine,
    product,
    streamed,
    tile_at,
    unit_matrices,
)


@triton.jit
def factors(at, known, D: tl.constexpr, BR: tl.constexpr):
    """What is multiplied on the way back: σ(o), and d or dr for do, dz, ds, (α, 1 − α), and dL and dr for df."""
    r, share = tl.load(at, mask=known, other=0.0), tl.load(at + D * BR, mask=known, other=0.0)
    closing = tl.load(at + 2 * D * BR, mask=known, other=0.0)
    z, o = tl.load(at + 3 * D * BR, mask=known, other=0.0), tl.load(at + 4 * D * BR, mask=known, other=0.0)
    left, new = 1.0 - share, z - r
    to_s = new * (share * left)
    return o, (r + share * new) * (o * (1.0 - o)), share * (1.0 - z * z), to_s, share, left, left * closing, to_s * closing


@triton.jit
def slstm_backward(
    DH, R, KEPT, DX, sdh, sdx, inner, heads, tokens, reversed_from,
    D: tl.constexpr, W: tl.constexpr, BR: tl.constexpr, UNIT: tl.constexpr, DOT: tl.constexpr, STAGES: tl.constexpr,
    AHEAD: tl.constexpr,
):  # fmt: skip
    """Gradients of the gate inputs; arguments as in the forward, but R is ``P H 4 D D`` (gate, its feature, previous output)."""
    block, head, direction = mine(inner, heads, BR)
    place, feature, later = direction * heads + head, features(W), columns(16 * W)
    dtype = DX.dtype.element_ty
    known, rest = (feature < D) & (columns(BR) < BR), block * BR + columns(BR) < inner
    gate, every = (tl.arange(0, 4 * W) // W)[:, None, None], (tl.arange(0, 4 * W) % W * 16)[:, None, None]
    every += tl.arange(0, 16)[None, :, None]
    dh_at, dh_step = tile_at(sdh, block, head, direction, feature, inner, heads, tokens, reversed_from, BR, UNIT)
    dx_at, dx_step = tile_at(sdx, block, head, direction, gate * D + every, inner, heads, tokens, reversed_from, BR, UNIT)
    KEPT += tl.program_id(0).to(tl.int64) * tokens * (PLANES * D * BR)
    plane, token = kept_at(feature, D, W, BR), tl.full((), PLANES * D * BR, tl.int64)
    of, there, size = later * D + feature, (later < D) & (feature < D), D * D
    from_i, from_f = matrix(R, place, 0, of, there, D, dtype), matrix(R, place, size, of, there, D, dtype)
    from_z, from_o = matrix(R, place, 2 * size, of, there, D, dtype), matrix(R, place, 3 * size, of, there, D, dtype)
    ones, mixed = unit_matrices(W, dtype), tl.zeros((W, 16, BR), tl.float32)
    dr, dl = tl.zeros((W, 16, BR), tl.float32), tl.zeros((W, 16, BR), tl.float32)
    if AHEAD:
        dh = streamed(DH + (tokens - 1) * dh_step + dh_at, known & rest, ones)
        o, to_o, to_z, to_s, share, left, to_f, from_s = factors(KEPT + (tokens - 1) * token + plane, known, D, BR)
    for j in tl.range(0, tokens, num_stages=STAGES):  # pyright: ignore[reportGeneralTypeIssues]
        t = tokens - 1 - j
        if not AHEAD:
            dh = streamed(DH + t * dh_step + dh_at, known & rest, ones)
            o, to_o, to_z, to_s, share, left, to_f, from_s = factors(KEPT + t * token + plane, known, D, BR)
        d = dh + mixed
        do = (d * to_o).to(dtype)
        dr += d * o
        dz, ds = (dr * to_z).to(dtype), dr * to_s
        di = (ds + dl * share).to(dtype)
        df = (dl * to_f - dr * from_s).to(dtype)
        dl = dl * left - ds
        dr *= left
        if AHEAD:
            before = tl.maximum(t - 1, 0)
            dh = streamed(DH + before * dh_step + dh_at, known & rest, ones)
            o, to_o, to_z, to_s, share, left, to_f, from_s = factors(KEPT + before * token + plane, known, D, BR)
        mixed = product(from_o, do, W, BR, DOT) + product(from_z, dz, W, BR, DOT)
        mixed += product(from_i, di, W, BR, DOT) + product(from_f, df, W, BR, DOT)
        tl.store(DX + t * dx_step + dx_at, four(di, df, dz, do, W, BR), mask=(every < D) & rest)


@triton.jit
def recurrent_gradient(
    H, DX, DR, DB, sh, sdx, inner, heads, tokens, reversed_from,
    D: tl.constexpr, BD: tl.constexpr, N: tl.constexpr, SLICES: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """Σ h_{t−1} dx_tᵀ and Σ dx_t of one gate over a slice of sequences × tokens, in a fixed order.

    Args:
        DR, DB: ``slices P·H 4 D D`` and ``slices P·H 4 D``, float32; added up afterwards.
        BD: D as a power of two.
        N: pairs of sequence and token that are multiplied at once.
    """
    gate, piece, group = tl.program_id(0) % 4, tl.program_id(0) // 4 % SLICES, tl.program_id(0) // (4 * SLICES)
    row = (group // heads * inner) * heads + group % heads
    H += base(row, sh, inner, heads, tokens, reversed_from)
    DX += base(row, sdx, inner, heads, tokens, reversed_from) + gate * D
    step_h, step_dx = stride(row, sh, inner, heads, reversed_from), stride(row, sdx, inner, heads, reversed_from)
    feature, pairs = tl.arange(0, BD), tokens * inner
    share = tl.cdiv(tl.cdiv(pairs, SLICES), N) * N
    dR, db = tl.zeros((BD, BD), tl.float32), tl.zeros((BD,), tl.float32)
    for start in range(piece * share, tl.minimum(piece * share + share, pairs), N):
        at = start + tl.arange(0, N)
        t, sequence = at % tokens, (at // tokens).to(tl.int64)
        inside = (at < pairs)[:, None] & (feature < D)[None, :]
        dx = tl.load(DX + (t.to(tl.int64) * step_dx + sequence * sdx[1])[:, None] + feature[None, :], mask=inside, other=0.0)
        before = (t - 1).to(tl.int64) * step_h + sequence * sh[1]
        h = tl.load(H + before[:, None] + feature[None, :], mask=inside & (t > 0)[:, None], other=0.0)
        dR += tl.dot(tl.trans(h), dx, input_precision=DOT)
        db += tl.sum(dx.to(tl.float32), 0)
    groups, known = tl.num_programs(0) // (4 * SLICES), feature < D
    to = ((piece * groups + group) * 4 + gate).to(tl.int64) * D
    tl.store(DB + to + feature, db, mask=known)
    tl.store(DR + (to + feature[:, None]) * D + feature[None, :], dR, mask=known[:, None] & known[None, :])
