"""The mLSTM cell in three forms of one mathematics: quadratic, chunkwise, recurrent.

The recurrence (Beck et al. 2024, "xLSTM: Extended Long Short-Term Memory", equations 19–27), a head:

    m_t = max(log σ(f_t) + m_{t−1}, i_t)
    C_t = exp(log σ(f_t) + m_{t−1} − m_t) C_{t−1} + exp(i_t − m_t) k_t v_tᵀ          (n_t: the same with k_t alone)
    h_t = C_tᵀ q_t / (max(|n_t · q_t|, exp(−m_t)) + eps),  with q scaled by 1/√D

Shapes: B H T D; gates B H T. Gates, normaliser and memory are at least float32 whatever the dtype of q, k, v.
"""

from enum import Enum
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from models.xlstm.gates import EMPTY, chunk_gates, soft_capped
from models.xlstm.mlstm_core import Past, attend

QUADRATIC_UP_TO = 128
"""Tokens up to which one quadratic chunk is the fastest form on a CPU, for heads of 64 and more (benchmarks/cells_cpu.py)."""
_SHORT = 32
"""Chunk of heads up to this width: decays are work of ``L × L`` a chunk, products of ``L × D``, and the first outweighs."""


def suited(chunk: int, tokens: int, width: int) -> int:
    """Length of the chunks that ``Form.auto`` cuts a sequence into; all give the same numbers.

    Args:
        chunk: the longest that is asked for.
        tokens: T.
        width: D of a head. Narrow heads are one chunk up to ``2 D`` tokens only, and up to 32 their chunks are short.
    """
    if tokens <= min(QUADRATIC_UP_TO, max(2 * width, _SHORT)):
        return tokens
    return min(chunk, _SHORT) if width <= _SHORT else chunk


class Form(str, Enum):
    """How a sequence is computed; all give the same numbers."""

    auto = "auto"
    quadratic = "quadratic"
    chunkwise = "chunkwise"
    recurrent = "recurrent"


class MLSTMState(NamedTuple):
    """What the cell remembers; the true memory is ``memory · exp(scale)``.

    Attributes:
        memory: ``B H D D`` (keys × values), at least float32.
        norm: ``B H D``.
        scale: ``B H``, the running maximum m.
    """

    memory: Tensor
    norm: Tensor
    scale: Tensor


def empty_state(q: Tensor, v: Tensor) -> MLSTMState:
    """The state before the first token of ``q``, ``v`` (``B H T D``)."""
    B, H, _, D = q.shape
    dtype = torch.promote_types(q.dtype, torch.float32)
    memory = q.new_zeros(B, H, D, v.shape[-1], dtype=dtype)
    return MLSTMState(memory, q.new_zeros(B, H, D, dtype=dtype), q.new_full((B, H), EMPTY, dtype=dtype))


def mlstm(
    q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, *,
    form: Form = Form.auto, chunk: int = 64, soft_cap: float | None = 15.0, eps: float = 1e-6,
) -> Tensor:  # fmt: skip
    """Run the cell over a whole sequence.

    Args:
        q, k, v: ``B H T D``, any T of at least 1, any D.
        i, f: ``B H T`` pre-activations of input and forget gate.
        form: see :class:`Form`; ``auto`` is one chunk for short sequences, several beyond: see :func:`suited`.
        chunk: longest chunk of the chunkwise form.
        soft_cap: bound of both pre-activations; None for none.
        eps: added to the normaliser.

    Returns:
        h, ``B H T D`` in the dtype of ``v``.
    """
    T, D = q.shape[2:]
    if form is Form.recurrent:
        return _token_by_token(q, k, v, i, f, soft_cap, eps)
    length = {Form.auto: suited(chunk, T, D), Form.quadratic: T, Form.chunkwise: chunk}[form]
    return _chunks(q, k, v, i, f, length, soft_cap, eps, None)[0]


def mlstm_prefill(
    q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, state: MLSTMState | None = None, *,
    chunk: int = 64, soft_cap: float | None = 15.0, eps: float = 1e-6,
) -> tuple[Tensor, MLSTMState]:  # fmt: skip
    """As :func:`mlstm`, from a state to a state: a stream in pieces gives the numbers of the whole. Differentiable throughout.

    Args:
        q, k, v, i, f, chunk, soft_cap, eps: as in :func:`mlstm`.
        state: after the tokens before these; None at the start.

    Returns:
        h ``B H T D`` and the state after the last token.
    """
    before = empty_state(q, v) if state is None else state
    h, after = _chunks(q, k, v, i, f, chunk, soft_cap, eps, before)
    return h, before if after is None else after


def mlstm_step(
    q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, state: MLSTMState, *, soft_cap: float | None = 15.0, eps: float = 1e-6
) -> tuple[Tensor, MLSTMState]:
    """One token: q, k, v ``B H D``, gates ``B H``; returns h ``B H D`` and the new state."""
    dtype = state.memory.dtype
    i, log_f = soft_capped(i, soft_cap), F.logsigmoid(soft_capped(f, soft_cap))
    scale = torch.maximum(log_f + state.scale, i)
    keep, write = (log_f + state.scale - scale).exp(), (i - scale).exp()
    qs, ks = q.to(dtype) * q.shape[-1] ** -0.5, k.to(dtype) * write[..., None]
    memory = keep[..., None, None] * state.memory + ks[..., :, None] * v.to(dtype)[..., None, :]
    norm = keep[..., None] * state.norm + ks
    below = torch.maximum((qs * norm).sum(-1).abs(), (-scale).exp()) + eps
    h = (qs[..., None, :] @ memory).squeeze(-2) / below[..., None]
    return h.to(v.dtype), MLSTMState(memory, norm, scale)


def _token_by_token(q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, soft_cap: float | None, eps: float) -> Tensor:
    state, out = empty_state(q, v), []
    for t in range(q.shape[2]):
        h, state = mlstm_step(q[:, :, t], k[:, :, t], v[:, :, t], i[..., t], f[..., t], state, soft_cap=soft_cap, eps=eps)
        out.append(h)
    return torch.stack(out, 2)


def _chunks(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    chunk: int,
    soft_cap: float | None,
    eps: float,
    state: MLSTMState | None,
) -> tuple[Tensor, MLSTMState | None]:
    """The sequence as N chunks at once; N = 1 is the quadratic form. A state comes back where one was given."""
    with torch.autocast(q.device.type, enabled=False):  # every product is in the dtype it needs
        N = -(-q.shape[2] // chunk)
        L = -(-q.shape[2] // N)
        return _chunks_as_typed(q, k, v, chunk_gates(i, f, soft_cap, N, L), eps, state)


def _chunks_as_typed(
    q: Tensor, k: Tensor, v: Tensor, gates: tuple[Tensor, Tensor, Tensor], eps: float, state: MLSTMState | None
) -> tuple[Tensor, MLSTMState | None]:
    B, H, T, _ = q.shape
    u, b, peak = gates
    N, L = u.shape[1:]
    if N * L != T:
        q, k, v = (F.pad(x, (0, 0, 0, N * L - T)) for x in (q, k, v))
    q, k, v = (x.reshape(B * H * N, L, -1) for x in (q, k, v))
    if N == 1 and state is None:
        h, _, _ = attend(q, k, v, u, b, peak, None, eps)
        return h.view(B, H, L, -1).to(v.dtype), None
    past, m = _reach(u, b[..., -1], peak, state)
    M = torch.maximum(peak, m[:, :N, None].to(u.dtype))
    h, C, n = attend(q, k, v, u, b, M, past, eps)
    h = h.view(B, H, N * L, -1)[:, :, :T].to(v.dtype)
    return h, None if state is None or C is None or n is None else _state_after(C[:, N], n[:, N], m[:, N], state)


def _reach(u: Tensor, g: Tensor, peak: Tensor, state: MLSTMState | None) -> tuple[Past, Tensor]:
    """How every chunk reaches back, all at once: one masked matrix of chunk-to-chunk decays.

    Args:
        u: ``Z N L``.
        g: ``Z N``, log forget of a whole chunk.
        peak: ``Z N L``, running maximum of u in a chunk.
        state: what the first chunk remembers, or None.

    Returns:
        The reach, and the scale m ``Z R`` of the memory before each chunk (and after the last where a state was given), float64.
    """
    Z, N, _ = u.shape
    rows = N if state is None else N + 1
    wide = torch.float32 if g.device.type == "mps" else torch.float64  # a difference of long sums decides what is remembered
    G = F.pad(g.to(wide).cumsum(-1), (1, 0))
    top = peak[..., -1]
    start = G.new_full((Z, 1), EMPTY) if state is None else state.scale.reshape(Z, 1).to(wide)
    best = torch.maximum(start, (top - G[:, :N]).cummax(-1).values)
    m = G[:, :rows] + torch.cat([start, best], -1)[:, :rows]
    held, top, fixed = m.detach(), top.detach(), G.detach()
    later = torch.ones(rows, N, dtype=torch.bool, device=u.device).triu()
    log_W = (fixed[:, :rows, None] - held[..., None] + (top - fixed[:, :N])[:, None]).masked_fill(later, float("-inf"))
    W = log_W.exp().to(u.dtype)
    write = (u.detach() - top[..., None]).exp()
    read = (held[:, :N, None].to(u.dtype) - torch.maximum(peak.detach(), held[:, :N, None].to(u.dtype))).exp()
    memory = norm = None
    if state is not None:
        kept = (fixed + start - held).exp().to(u.dtype)[..., None]
        memory, norm = kept * state.memory.reshape(Z, 1, -1), kept * state.norm.reshape(Z, 1, -1)
    return Past(G[:, :rows], W, memory, norm, write, read), m


def _state_after(C: Tensor, n: Tensor, m: Tensor, like: MLSTMState) -> MLSTMState:
    """The last row as a state. Its scale carries a gradient (through eps), which a factor of one takes out of the memory."""
    one = (m.detach() - m).exp().to(C.dtype)[:, None]
    return MLSTMState((C * one).view_as(like.memory), (n * one).view_as(like.norm), m.to(C.dtype).view_as(like.scale))
