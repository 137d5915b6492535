"""The Gumbel softmax over codes on the GPU: logits are read once a way, and nothing as large as they are is written forwards.

A program owns one group and goes over a span of tiles of tokens. Codes are cut into pieces of 64, so that 320 of them fill no
512. The noise is drawn with Philox (Salmon et al. 2011; 7 rounds, the fewest that pass all tests of BigCrush): a draw is for four
pieces, and the backward pass draws it again.
"""
# ruff: noqa: ANN001, ANN201, ANN202, PLR0913, PLR0917, RUF005 - Triton reads annotations as its own types; kernels are flat
# Triton's reductions are declared to return tuples as well:
# pyright: reportOperatorIssue=false, reportArgumentType=false, reportGeneralTypeIssues=false, reportCallIssue=false

import triton
import triton.language as tl

PIECE = tl.constexpr(64)
ROUNDS = tl.constexpr(7)


@triton.jit
def _gumbel(random):
    """−log(−log(1 − v)) of 32 random bits as v in (0, 1): small v, which make large noise, keep their own precision."""
    v = tl.minimum((random.to(tl.float32) + 0.5) * (2.0**-32), 1.0 - 2.0**-24)
    e = tl.where(v < 1e-3, v * (1.0 + v * (0.5 + v * (1 / 3))), -tl.log(1.0 - v))
    return -tl.log(e)


@triton.jit
def _noise(seed, token, group, four, code):
    """Noise of tokens × codes for the four pieces from ``4 · four`` on."""
    first = (token[:, None] + 0 * code[None, :]).to(tl.uint32)
    second = (0 * token[:, None] + (group * 65536 + code + four * PIECE)[None, :]).to(tl.uint32)
    a, b, c, d = tl.philox(seed, first, second, 0 * first, 0 * first, ROUNDS)
    return _gumbel(a), _gumbel(b), _gumbel(c), _gumbel(d)


@triton.jit
def _pieces(LOGITS, seed, token, there, group, scale, G: tl.constexpr, V: tl.constexpr, NOISE: tl.constexpr):
    """Scaled logits of tokens in pieces, and with noise; −∞ beyond the codes."""
    code = tl.arange(0, PIECE)
    logits, noisy, noise = (), (), ()
    for j in tl.static_range((V + PIECE - 1) // PIECE):
        inside = there[:, None] & (code + j * PIECE < V)[None, :]
        at = LOGITS + (token[:, None] * G + group) * V + (code + j * PIECE)[None, :]
        x = tl.load(at, mask=inside, other=0.0).to(tl.float32) * scale
        x = tl.where((code + j * PIECE < V)[None, :], x, -float("inf"))
        logits = logits + (x,)
        if NOISE:
            if j % 4 == 0:
                noise = _noise(seed, token, group, j // 4, code)
            noisy = noisy + (x + noise[j % 4],)
        else:
            noisy = noisy + (x,)
    return logits, noisy


@triton.jit
def _sum_of_exponentials(pieces, factor, V: tl.constexpr, BR: tl.constexpr):
    """log Σ exp(factor · x) over all codes of tokens."""
    top, total = tl.full((BR,), -float("inf"), tl.float32), tl.zeros((BR,), tl.float32)
    for j in tl.static_range((V + PIECE - 1) // PIECE):
        top = tl.maximum(top, tl.max(pieces[j], 1))
    for j in tl.static_range((V + PIECE - 1) // PIECE):
        total += tl.sum(tl.exp(factor * (pieces[j] - top[:, None])), 1)
    return factor * top + tl.log(total)


@triton.jit
def gumbel_forward(
    LOGITS, WEIGHT, TEMPERATURE, SEED, CHOSEN, LOG_SUMS, SUMS, tokens, span, spans, scale,
    G: tl.constexpr, V: tl.constexpr, BR: tl.constexpr, NOISE: tl.constexpr,
):  # fmt: skip
    """The codes with the largest noisy logits, and weighted sums of soft and of chosen codes.

    Args:
        LOGITS: ``N G V``, to be multiplied by ``scale``.
        WEIGHT: ``N``.
        TEMPERATURE, SEED: one number each; the seed is not read without NOISE.
        CHOSEN: ``N G`` int64.
        LOG_SUMS: ``2 N G``: of the exponentials of logits, and of noisy logits over the temperature.
        SUMS: ``spans 2 G V``.
    """
    group, number = tl.program_id(0) % G, tl.program_id(0) // G
    seed = tl.full((), 0, tl.int64)
    if NOISE:
        seed = tl.load(SEED)
    code, warmth, none = tl.arange(0, PIECE), 1.0 / tl.load(TEMPERATURE), tl.zeros((BR, PIECE), tl.float32)
    soft, hard = (), ()
    for _ in tl.static_range((V + PIECE - 1) // PIECE):
        soft, hard = soft + (none,), hard + (none,)
    for tile in range(number * span, number * span + span):
        row = tile * BR + tl.arange(0, BR)
        there, token = row < tokens, row.to(tl.int64)
        logits, noisy = _pieces(LOGITS, seed, token, there, group, scale, G, V, NOISE)
        best, chosen = tl.full((BR,), -float("inf"), tl.float32), tl.zeros((BR,), tl.int32)
        for j in tl.static_range((V + PIECE - 1) // PIECE):
            value = tl.max(noisy[j], 1)
            place = tl.min(tl.where(noisy[j] == value[:, None], (code + j * PIECE)[None, :], V), 1)
            chosen = tl.where(value > best, place, chosen)
            best = tl.maximum(value, best)
        below = _sum_of_exponentials(logits, 1.0, V, BR)
        weight = tl.load(WEIGHT + token, mask=there, other=0.0)
        softer, harder = (), ()
        for j in tl.static_range((V + PIECE - 1) // PIECE):
            softer = softer + (soft[j] + tl.exp(logits[j] - below[:, None]) * weight[:, None],)
            mine = (code + j * PIECE)[None, :] == chosen[:, None]
            harder = harder + (hard[j] + tl.where(mine, weight[:, None], 0.0),)
        soft, hard = softer, harder
        tl.store(CHOSEN + token * G + group, chosen.to(tl.int64), mask=there)
        tl.store(LOG_SUMS + token * G + group, below, mask=there)
        noisy_below = _sum_of_exponentials(noisy, warmth, V, BR)
        tl.store(LOG_SUMS + (tokens + token) * G + group, noisy_below, mask=there)
    for j in tl.static_range((V + PIECE - 1) // PIECE):
        at = SUMS + (number * 2 * G + group) * V + code + j * PIECE
        tl.store(at, tl.sum(soft[j], 0), mask=code + j * PIECE < V)
        tl.store(at + G * V, tl.sum(hard[j], 0), mask=code + j * PIECE < V)


@triton.jit
def gumbel_backward(
    LOGITS, WEIGHT, TEMPERATURE, SEED, LOG_SUMS, DSOFT, DSHARES, DLOGITS, tokens, scale,
    G: tl.constexpr, V: tl.constexpr, BR: tl.constexpr, NOISE: tl.constexpr,
):  # fmt: skip
    """Gradient of the logits, ``N G V``.

    Args:
        DSOFT: of the noisy softmax, ``G N V``.
        DSHARES: of the weighted sums of soft codes, ``G V``.
    """
    group = tl.program_id(0) % G
    row = tl.program_id(0) // G * BR + tl.arange(0, BR)
    there, token = row < tokens, row.to(tl.int64)
    seed = tl.full((), 0, tl.int64)
    if NOISE:
        seed = tl.load(SEED)
    code, warmth = tl.arange(0, PIECE), 1.0 / tl.load(TEMPERATURE)
    logits, noisy = _pieces(LOGITS, seed, token, there, group, scale, G, V, NOISE)
    below = tl.load(LOG_SUMS + token * G + group, mask=there, other=0.0)
    noisy_below = tl.load(LOG_SUMS + (tokens + token) * G + group, mask=there, other=0.0)
    weight = tl.load(WEIGHT + token, mask=there, other=0.0)
    along, along_shares, pulls = tl.zeros((BR,), tl.float32), tl.zeros((BR,), tl.float32), ()
    for j in tl.static_range((V + PIECE - 1) // PIECE):
        known = code + j * PIECE < V
        at = DSOFT + (group * tokens + token[:, None]) * V + (code + j * PIECE)[None, :]
        pull = tl.load(at, mask=there[:, None] & known[None, :], other=0.0).to(tl.float32)
        shared = tl.load(DSHARES + group * V + (code + j * PIECE), mask=known, other=0.0)
        along += tl.sum(tl.exp(noisy[j] * warmth - noisy_below[:, None]) * pull, 1)
        along_shares += tl.sum(tl.exp(logits[j] - below[:, None]) * shared[None, :], 1)
        pulls = pulls + (pull,)
    for j in tl.static_range((V + PIECE - 1) // PIECE):
        known = code + j * PIECE < V
        shared = tl.load(DSHARES + group * V + (code + j * PIECE), mask=known, other=0.0)
        d = tl.exp(noisy[j] * warmth - noisy_below[:, None]) * (pulls[j] - along[:, None]) * warmth
        d += tl.exp(logits[j] - below[:, None]) * (shared[None, :] - along_shares[:, None]) * weight[:, None]
        at = DLOGITS + (token[:, None] * G + group) * V + (code + j * PIECE)[None, :]
        tl.store(at, (d * scale).to(DLOGITS.dtype.element_ty), mask=there[:, None] & known[None, :])
