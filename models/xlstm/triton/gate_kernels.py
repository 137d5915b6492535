"""Gates of the mLSTM on the GPU: from pre-activations to exponents, and gradients from what the scans leave behind.

The running maximum m_t = max(log σ(f_t) + m_{t−1}, i_t) is a scan in the max-plus algebra and costs one pass over the gates,
so soft-capped and uncapped gates take the same way, and h is that of the recurrence, eps included. All is float32.
"""
# ruff: noqa: ANN001, ANN201, PLR0913, PLR0917 - Triton reads annotations as its own types; a kernel's arguments are flat

import triton
import triton.language as tl

from models.xlstm.triton.parts import EMPTY, INPUT, LOG_FORGET, SCALE, SUM, base, normaliser, place, plane


@triton.jit
def capped(x, cap, CAPPED: tl.constexpr):
    """cap · tanh(x / cap)."""
    if CAPPED:
        e = tl.exp(-2.0 * tl.abs(x) / cap)
        size = cap * (1.0 - e) / (1.0 + e)
        x = tl.where(x < 0, -size, size)
    return x


@triton.jit
def log_sigmoid(x):
    """min(x, 0) − log(1 + e), e = exp(−|x|); log1p as 2·artanh(e / (2 + e)), whose series is exact to float32 for e ≤ 1."""
    e = tl.exp(-tl.abs(x))
    z = e / (2.0 + e)
    s = z * z
    series = 1.0 + s * (1 / 3 + s * (1 / 5 + s * (1 / 7 + s * (1 / 9 + s * (1 / 11 + s * (1 / 13))))))
    return tl.minimum(x, 0.0) - 2.0 * z * series


@triton.jit
def _after(a, m, b, n):
    """Two stretches of tokens as one: log forget gates add, and the later maximum is carried over or beaten."""
    return a + b, tl.maximum(m + b, n)


@triton.jit
def _before(g, x, h, y):
    """x_t + g_t · x_{t+1}, from the end."""
    return g * h, y + h * x


@triton.jit
def _gates_at(I, F, at, inside, si, sf, cap, CAPPED: tl.constexpr):
    """Both gates, capped, at places ``at`` of a row."""
    i = capped(tl.load(I + at * si[3], mask=inside, other=0.0).to(tl.float32), cap, CAPPED)
    f = capped(tl.load(F + at * sf[3], mask=inside, other=0.0).to(tl.float32), cap, CAPPED)
    return i, f


@triton.jit
def gates_forward(
    I, F, stats, si, sf, inner, heads, rows, tokens, reversed_from, cap,
    CAPPED: tl.constexpr, L: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Planes b, u, m of the statistics; one program a row, BLOCK tokens (a multiple of L) at a time."""
    row = tl.program_id(0)
    I += base(row, si, inner, heads)
    F += base(row, sf, inner, heads)
    offsets = tl.arange(0, BLOCK)
    scale = tl.full((), EMPTY, tl.float32)
    for start in range(0, tokens, BLOCK):
        t = start + offsets
        inside = t < tokens
        at = place(t, row, tokens, inner, heads, reversed_from)
        i, f = _gates_at(I, F, at, inside, si, sf, cap, CAPPED)
        i, log_f = tl.where(inside, i, EMPTY), tl.where(inside, log_sigmoid(f), 0.0)
        b = tl.reshape(tl.cumsum(tl.reshape(log_f, (BLOCK // L, L)), 1), (BLOCK,))
        total, m = tl.associative_scan((log_f, i), 0, _after)
        m = tl.maximum(m, total + scale)
        scale = tl.sum(tl.where(offsets == BLOCK - 1, m, 0.0), 0)
        tl.store(plane(stats, LOG_FORGET, row, rows, tokens) + t, b, mask=inside)
        tl.store(plane(stats, INPUT, row, rows, tokens) + t, i - b, mask=inside)
        tl.store(plane(stats, SCALE, row, rows, tokens) + t, m, mask=inside)


@triton.jit
def _carried(I, F, stats, t, si, sf, inner, heads, row, rows, tokens, reversed_from, cap, CAPPED: tl.constexpr):
    """Whether m_t is m_{t−1} carried on (1) or the input gate (0), and both capped gates; 0 outside of the sequence."""
    inside = t < tokens
    at = place(t, row, tokens, inner, heads, reversed_from)
    i, f = _gates_at(I, F, at, inside, si, sf, cap, CAPPED)
    before = tl.load(plane(stats, SCALE, row, rows, tokens) + t - 1, mask=inside & (t > 0), other=EMPTY)
    return tl.where(inside & (log_sigmoid(f) + before > i), 1.0, 0.0), i, f


@triton.jit
def gates_backward(
    I, F, stats, pull, kappa, DI, DF, si, sf, sdi, sdf, inner, heads, rows, tokens, reversed_from, cap, eps,
    CAPPED: tl.constexpr, TILES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Gradients of the pre-activations; one program a row, from the last token to the first.

    With κ_s = k_s · dk_s all that token s gave, and ρ_t all that token t took (known in closed form, as h is a quotient), the
    gradient of an input gate is κ and that of a log forget gate the sum of ρ − κ from its token on. The running maximum is seen
    through eps alone: its gradient goes back along the maxima to the input gate that set it.
    """
    row = tl.program_id(0)
    I += base(row, si, inner, heads)
    F += base(row, sf, inner, heads)
    DI += base(row, sdi, inner, heads)
    DF += base(row, sdf, inner, heads)
    offsets = tl.arange(0, BLOCK)
    crossing = tl.full((), 0.0, tl.float32)
    held = tl.full((), 0.0, tl.float32)
    blocks = tl.cdiv(tokens, BLOCK)
    for j in range(0, blocks):
        t = (blocks - 1 - j) * BLOCK + offsets
        inside = t < tokens
        goes_on, _, _ = _carried(I, F, stats, t + 1, si, sf, inner, heads, row, rows, tokens, reversed_from, cap, CAPPED)
        came, i, f = _carried(I, F, stats, t, si, sf, inner, heads, row, rows, tokens, reversed_from, cap, CAPPED)
        given = tl.zeros((BLOCK,), tl.float32)
        for part in range(0, TILES):
            given += tl.load(plane(kappa, part, row, rows, tokens) + t, mask=inside, other=0.0)
        total = tl.load(plane(stats, SUM, row, rows, tokens) + t, mask=inside, other=1.0)
        m = tl.load(plane(stats, SCALE, row, rows, tokens) + t, mask=inside, other=0.0)
        asked = tl.load(plane(pull, 0, row, rows, tokens) + t, mask=inside, other=0.0)
        over, by_sum = normaliser(total, m, eps)
        dm = asked * eps * over
        taken = tl.where(by_sum, -dm, -asked)
        log_f = tl.cumsum(tl.where(inside, taken - given, 0.0), 0, reverse=True) + crossing
        chain, E = tl.associative_scan((goes_on, dm), 0, _before, reverse=True)
        E += chain * held
        crossing = tl.sum(tl.where(offsets == 0, log_f, 0.0), 0)
        held = tl.sum(tl.where(offsets == 0, E, 0.0), 0)
        di, df = given + (1.0 - came) * E, (log_f + came * E) / (1.0 + tl.exp(f))
        if CAPPED:
            di *= 1.0 - (i / cap) * (i / cap)
            df *= 1.0 - (f / cap) * (f / cap)
        at = place(t, row, tokens, inner, heads, reversed_from)
        tl.store(DI + at * sdi[3], di.to(DI.dtype.element_ty), mask=inside)
        tl.store(DF + at * sdf[3], df.to(DF.dtype.element_ty), mask=inside)
