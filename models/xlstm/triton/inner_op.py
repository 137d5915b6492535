"""An mLSTM block between its two projections as operators of torch: one node for autograd, torch.compile and CUDA graphs."""

# ruff: noqa: PLR0913, PLR0917 - operators of torch take flat arguments

from typing import Any

import torch
from torch import Tensor

from models.xlstm.triton.inner_launch import (
    Inner,
    Weights,
    backward_calls,
    exit_backward_calls,
    exit_calls,
    forward_calls,
)
from models.xlstm.triton.launch import Cell, stats_like
from models.xlstm.triton.launch import backward_calls as cell_backward_calls
from models.xlstm.triton.launch import forward_calls as cell_forward_calls
from models.xlstm.triton.op import run_calls

__all__ = ["Weights", "mlstm_inner"]


def mlstm_inner(
    up: Tensor,
    weights: Weights,
    *,
    heads: int,
    reversed_from: int,
    soft_cap: float | None,
    cell_eps: float,
    norm_eps: float,
    recompute: bool = False,
) -> Tensor:
    """(gain · norm(cell(q, k, v, i, f)) + skip · c) · SiLU(z): an mLSTM block (Beck et al. 2024, figure 10) without projections.

    With m and z side by side in ``up``, c = SiLU(conv(m)), q and k of c and v of m by block-diagonal matrices, gates of c and m.
    The numbers are those of :class:`models.xlstm.block.MLSTMBlock` with any other kernels, gradients exact, bitwise equal from
    run to run. Nothing is flipped: a direction that runs backwards is read and written where it lies.

    Args:
        up: m and z, ``P B T 2I``, float32, bfloat16 or float16.
        weights: see :class:`Weights`; in any dtype, products are taken in that of ``up``.
        heads: H.
        reversed_from: directions from this one on run from the last token to the first; P for none.
        soft_cap: bound of the gates' pre-activations; None for none.
        cell_eps: added to the cell's normaliser.
        norm_eps: added to the variance in the head norm.
        recompute: compute c, q, k and v again in the backward pass, the same bits, instead of keeping them.

    Returns:
        ``P B T I`` in the dtype of ``up``.
    """
    told = (heads, reversed_from, soft_cap, cell_eps, norm_eps, recompute)
    laid_out = (x.contiguous() for x in (up, *weights))  # here, where the compiler makes it part of what computed them
    return torch.ops.wavexlstm.mlstm_inner(*laid_out, *told)[0]


def _by_heads(x: Tensor, heads: int) -> Tensor:
    """``P B T I`` to ``P B H T I/H``, as it lies."""
    return x.unflatten(-1, (heads, -1)).transpose(2, 3)


def _empty(up: Tensor, count: int) -> list[Tensor]:
    """Tensors ``P B T I``."""
    return [up.new_empty(*up.shape[:3], up.shape[3] // 2) for _ in range(count)]


def _entered(up: Tensor, w: Weights, told: Inner) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """c, q, k, v ``P B T I``, and shares of the gates ``I/64 P B 2H T``."""
    P, B, T, double = up.shape
    c, query, key, value = _empty(up, 4)
    shares = up.new_empty(double // 128, P, B, 2 * told.heads, T, dtype=torch.float32)
    run_calls(forward_calls(up, w, (c, query, key, value, shares), told), up.device)
    return c, query, key, value, shares


Made = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
"""y, c, q, k, v, h ``P B T I``, pre-activations ``P B 2H T``, the cell's statistics."""


@torch.library.custom_op("wavexlstm::mlstm_inner", mutates_args=())
def _forward(
    up: Tensor, conv: Tensor, conv_bias: Tensor, q: Tensor, k: Tensor, v: Tensor, gate_c: Tensor, gate_m: Tensor,
    gate_bias: Tensor, gain: Tensor, skip: Tensor, heads: int, reversed_from: int, soft_cap: float | None,
    cell_eps: float, norm_eps: float, recompute: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """What the block passes to its last projection, and what its backward pass wants again; all tensors without gaps."""
    w = Weights(conv, conv_bias, q, k, v, gate_c, gate_m, gate_bias, gain, skip)
    told = Inner(heads, reversed_from, norm_eps)
    y, h = _empty(up, 2)
    c, query, key, value, shares = _entered(up, w, told)
    pre = shares.sum(0)
    i, f = pre.split(heads, 2)
    by_q, by_k, by_v, by_h = (_by_heads(x, heads) for x in (query, key, value, h))
    stats = stats_like(by_q)
    calls = cell_forward_calls(by_q, by_k, by_v, i, f, by_h, stats, Cell(reversed_from, soft_cap, cell_eps))
    run_calls([*calls, *exit_calls(up, c, h, w, y, told)], up.device)
    return y, c, query, key, value, h, pre, stats


@_forward.register_fake
def _(
    up: Tensor, conv: Tensor, conv_bias: Tensor, q: Tensor, k: Tensor, v: Tensor, gate_c: Tensor, gate_m: Tensor,
    gate_bias: Tensor, gain: Tensor, skip: Tensor, heads: int, reversed_from: int, soft_cap: float | None,
    cell_eps: float, norm_eps: float, recompute: bool,
) -> Made:  # fmt: skip
    P, B, T = up.shape[:3]
    y, c, query, key, value, h = _empty(up, 6)
    pre = up.new_empty(P, B, 2 * heads, T, dtype=torch.float32)
    return y, c, query, key, value, h, pre, stats_like(_by_heads(query, heads))


@torch.library.custom_op("wavexlstm::mlstm_inner_backward", mutates_args=())
def _backward(
    dy: Tensor, up: Tensor, conv: Tensor, conv_bias: Tensor, q: Tensor, k: Tensor, v: Tensor, gate_c: Tensor, gate_m: Tensor,
    gate_bias: Tensor, gain: Tensor, skip: Tensor, c: Tensor | None, query: Tensor | None, key: Tensor | None,
    value: Tensor | None, h: Tensor, pre: Tensor, stats: Tensor, heads: int, reversed_from: int, soft_cap: float | None,
    cell_eps: float, norm_eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of ``up``; of the weights by feature, ``P I X``; of gain and skip, ``P 2 I``; of the gates' bias.

    c, q, k and v are computed again where they are None.
    """
    w = Weights(conv, conv_bias, q, k, v, gate_c, gate_m, gate_bias, gain, skip)
    told, dup, dpre = Inner(heads, reversed_from, norm_eps), torch.empty_like(up), torch.empty_like(pre)
    if c is None or query is None or key is None or value is None:
        c, query, key, value, _ = _entered(up, w, told)
    dh, dc, dq, dk, dv = _empty(up, 5)
    exits, exit_sums = exit_backward_calls(up, c, h, w, dy.contiguous(), (dh, dc, dup), told)
    i, f = pre.split(heads, 2)
    di, df = dpre.split(heads, 2)
    x, grads = ([_by_heads(one, heads) for one in group] for group in ((query, key, value, h, dh), (dq, dk, dv)))
    cell = cell_backward_calls((*x[:3], i, f), x[3], stats, x[4], (*grads, di, df), Cell(reversed_from, soft_cap, cell_eps))
    inner, sums = backward_calls(up, c, w, (dq, dk, dv, dpre), dc, dup, told)
    run_calls([*exits, *cell, *inner], up.device)
    return dup, sums.sum(0), exit_sums.sum(0), dpre.sum(3).sum(1)  # two kernels: at once it is one, far slower


@_backward.register_fake
def _(
    dy: Tensor, up: Tensor, conv: Tensor, conv_bias: Tensor, q: Tensor, k: Tensor, v: Tensor, gate_c: Tensor, gate_m: Tensor,
    gate_bias: Tensor, gain: Tensor, skip: Tensor, c: Tensor | None, query: Tensor | None, key: Tensor | None,
    value: Tensor | None, h: Tensor, pre: Tensor, stats: Tensor, heads: int, reversed_from: int, soft_cap: float | None,
    cell_eps: float, norm_eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    P, inner = gain.shape
    columns = 3 * q.shape[-1] + 4 * heads + conv.shape[1] + 1
    sums, exits = pre.new_empty(P, inner, columns), pre.new_empty(P, 2, inner)
    return torch.empty_like(up), sums, exits, pre.new_empty(P, 2 * heads)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Made) -> None:
    tensors, (*ctx.told, recompute) = inputs[:11], inputs[11:]
    _, *made = output
    ctx.mark_non_differentiable(*made)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors, *(made if not recompute else (None, None, None, None, *made[4:])))


def _pull_back(ctx: Any, dy: Tensor | None, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    if dy is None:
        return (None,) * 17
    kept = ctx.saved_tensors  # once: a checkpoint refuses to give them twice
    weights = Weights._make(kept[1:11])
    dup, sums, exits, dbias = torch.ops.wavexlstm.mlstm_inner_backward(dy, *kept, *ctx.told)
    S, gates = weights.q.shape[-1], weights.gate_bias.shape[1]
    q, k, gate_c, v, gate_m, conv, bias = sums.split([S, S, gates, S, gates, weights.conv.shape[1], 1], -1)
    blocks = (one.reshape_as(like) for one, like in zip((q, k, v), weights[2:5], strict=True))
    found = (conv.mT, bias.squeeze(-1), *blocks, gate_c.mT, gate_m.mT, dbias, exits[:, 0], exits[:, 1])
    # without gaps, or autograd would copy each of them into a tensor that lies as its weight does
    return dup, *(one.to(like.dtype).contiguous() for one, like in zip(found, weights, strict=True)), *((None,) * 6)


_forward.register_autograd(_pull_back, setup_context=_keep)
