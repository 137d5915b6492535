"""Gates of the mLSTM on the GPU: from pre-activations to exponents, and gradients from what the other kernels leave behind.

The running maximum m_t = max(log σ(f_t) + m_{t−1}, i_t) is a scan in the max-plus algebra and costs one pass over the gates,
so soft-capped and uncapped gates take the same way, and h is that of the recurrence, eps included. All is float32;
logarithms in memory are to the base 2.
"""
# pyright: reportArgumentType=false
# ruff: noqa: ANN001, ANN201, ANN202, PLR0913, PLR0917 - Triton reads annotations as its own types; kernels are flat

import triton
import triton.language as tl

from models.xlstm.triton.parts import EMPTY, LOG2E, PAD, READ, SCALE, SIGN, TAKE, WRITE, about, base, entry, line, stride


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
def _gates_at(PI, PF, t, step_i, step_f, inside, cap, CAPPED: tl.constexpr):
    """Both gates of tokens, capped."""
    i = capped(tl.load(PI + t * step_i, mask=inside, other=0.0).to(tl.float32), cap, CAPPED)
    f = capped(tl.load(PF + t * step_f, mask=inside, other=0.0).to(tl.float32), cap, CAPPED)
    return i, f


@triton.jit
def gates_forward(
    PI, PF, stats, si, sf, inner, heads, rows, tokens, reversed_from, cap,
    CAPPED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """b − m, u and m of all tokens; one program a row, BLOCK tokens (a multiple of 64) at a time.

    Beyond the sequence every plane is filled: scans of other chunk lengths read there, times 0.
    """
    row = tl.program_id(0)
    PI += base(row, si, inner, heads, tokens, reversed_from)
    PF += base(row, sf, inner, heads, tokens, reversed_from)
    step_i, step_f = stride(row, si, inner, heads, reversed_from), stride(row, sf, inner, heads, reversed_from)
    offsets = tl.arange(0, BLOCK)
    scale = tl.full((), EMPTY, tl.float32)
    padded = tl.cdiv(tokens, PAD) * PAD
    for start in range(0, padded, BLOCK):
        t = start + offsets
        inside = t < tokens
        i, f = _gates_at(PI, PF, t, step_i, step_f, inside, cap, CAPPED)
        i, log_f = tl.where(inside, i * LOG2E, EMPTY), tl.where(inside, log_sigmoid(f) * LOG2E, 0.0)
        b = tl.reshape(tl.cumsum(tl.reshape(log_f, (BLOCK // PAD, PAD)), 1), (BLOCK,))
        total, m = tl.associative_scan((log_f, i), 0, _after)
        m = tl.maximum(m, total + scale)
        scale = tl.sum(tl.where(offsets == BLOCK - 1, m, 0.0), 0)
        there = t < padded
        tl.store(about(stats, t, row, tokens) + READ, b - m, mask=there)
        tl.store(about(stats, t, row, tokens) + WRITE, i - b, mask=there)
        tl.store(about(stats, t, row, tokens) + SCALE, m, mask=there)
        beyond = there & (t >= tokens)
        tl.store(about(stats, t, row, tokens) + TAKE, tl.zeros((BLOCK,), tl.float32), mask=beyond)
        tl.store(about(stats, t, row, tokens) + SIGN, tl.zeros((BLOCK,), tl.float32), mask=beyond)


@triton.jit
def _carried(PI, PF, stats, t, step_i, step_f, row, tokens, cap, CAPPED: tl.constexpr):
    """Whether m_t is m_{t−1} carried on (1) or the input gate (0), and both capped gates; 0 outside of the sequence."""
    inside = t < tokens
    i, f = _gates_at(PI, PF, t, step_i, step_f, inside, cap, CAPPED)
    before = tl.load(about(stats, t - 1, row, tokens) + SCALE, mask=inside & (t > 0), other=EMPTY)
    return tl.where(inside & (log_sigmoid(f) * LOG2E + before > i * LOG2E), 1.0, 0.0), i, f


@triton.jit
def _summed(values, first, last, t, inside, row, rows, tokens, BLOCK: tl.constexpr):
    """Sum over tiles from the first to before the last; 0 outside of the sequence."""
    total = tl.zeros((BLOCK,), tl.float32)
    for part in range(first, last):
        total += tl.load(line(values, part, row, rows, tokens) + t, mask=inside, other=0.0)
    return total


@triton.jit
def gates_backward(
    PI, PF, stats, pull_of, rho, kappa, passing, DI, DF, si, sf, sdi, sdf, inner, heads, rows, tokens, reversed_from, log_scale,
    cap, eps, CAPPED: tl.constexpr, TILES: tl.constexpr, L: tl.constexpr, ONE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Gradients of the pre-activations; one program a row, from the last token to the first.

    With κ_s = k_s · dk_s all that token s gave and ρ_t = q_t · dq_t all that token t took, the gradient of an input gate is κ and
    that of a log forget gate what crosses it: all that tokens from its own on took of tokens before. Within a chunk that is the
    sum of ρ − κ from the token on: both are sums of the same rounded products, so nothing is left of what does not cross. Between
    chunks they are not (memory and gradient are rounded for themselves), and such a sum would carry the rounding of the whole
    sequence even past a gate that forgot all. So what crosses is added up, never taken off: ρ of chunks before from the token on,
    κ for chunks behind before the token, and what passes the chunk by.

    The running maximum is seen through eps alone: its gradient goes back along the maxima to the gate that set it.
    """
    row = tl.program_id(0)
    PI += base(row, si, inner, heads, tokens, reversed_from)
    PF += base(row, sf, inner, heads, tokens, reversed_from)
    DI += base(row, sdi, inner, heads, tokens, reversed_from)
    DF += base(row, sdf, inner, heads, tokens, reversed_from)
    step_i, step_f = stride(row, si, inner, heads, reversed_from), stride(row, sf, inner, heads, reversed_from)
    step_di, step_df = stride(row, sdi, inner, heads, reversed_from), stride(row, sdf, inner, heads, reversed_from)
    offsets = tl.arange(0, BLOCK)
    held = tl.full((), 0.0, tl.float32)
    blocks = tl.cdiv(tokens, BLOCK)
    for j in range(0, blocks):
        t = (blocks - 1 - j) * BLOCK + offsets
        inside = t < tokens
        goes_on, _, _ = _carried(PI, PF, stats, t + 1, step_i, step_f, row, tokens, cap, CAPPED)
        came, i, f = _carried(PI, PF, stats, t, step_i, step_f, row, tokens, cap, CAPPED)
        taken = _summed(rho, 0, TILES, t, inside, row, rows, tokens, BLOCK)
        near = _summed(kappa, 0, TILES, t, inside, row, rows, tokens, BLOCK)
        given = near
        if not ONE:
            given = _summed(kappa, TILES, 2 * TILES, t, inside, row, rows, tokens, BLOCK)
        pull = tl.load(line(pull_of, 0, row, rows, tokens) + t, mask=inside, other=0.0)
        known = about(stats, t, row, tokens)
        read = tl.load(known + READ, mask=inside, other=0.0) + log_scale
        take = tl.load(known + TAKE, mask=inside, other=0.0)
        dm = pull * eps * tl.exp2(take - read)
        beyond = tl.reshape(given - near, (BLOCK // L, L))
        crossed = tl.cumsum(tl.reshape(taken - near, (BLOCK // L, L)), 1, reverse=True) + tl.cumsum(beyond, 1) - beyond
        log_f = tl.reshape(crossed, (BLOCK,))
        if not ONE:
            for part in range(0, TILES):
                log_f += tl.load(entry(passing, row + rows * part, tl.cdiv(tokens, L), t // L, 1), mask=inside, other=0.0)
        chain, E = tl.associative_scan((goes_on, dm), 0, _before, reverse=True)
        E += chain * held
        held = tl.sum(tl.where(offsets == 0, E, 0.0), 0)
        di, df = given + (1.0 - came) * E, (log_f + came * E) / (1.0 + tl.exp(f))
        if CAPPED:
            di *= 1.0 - (i / cap) * (i / cap)
            df *= 1.0 - (f / cap) * (f / cap)
        tl.store(DI + t * step_di, di.to(DI.dtype.element_ty), mask=inside)
        tl.store(DF + t * step_df, df.to(DF.dtype.element_ty), mask=inside)
