"""The sLSTM kernels as operators of torch: shapes without data, gradients, one node for torch.compile and CUDA graphs.

``wavexlstm::slstm`` and ``wavexlstm::slstm_backward`` are opaque to the compiler, which lays out what is around them.
"""

from typing import Any

import torch
from torch import Tensor

from models.xlstm.triton.available import interpreted, too_wide
from models.xlstm.triton.op import run_calls
from models.xlstm.triton.slstm_launch import Scan, kept_like, partial_sums, slstm_backward_calls, slstm_forward_calls


def slstm_triton(x: Tensor, recurrent: Tensor, bias: Tensor, *, reversed_from: int | None = None) -> Tensor:
    """Run the sLSTM (Beck et al. 2024, equations 8–18) over whole sequences from an empty memory, both directions in one launch.

    The numbers are those of :func:`models.xlstm.slstm.slstm`, the gradients exact, and bitwise equal from run to run.

    Args:
        x: ``P H B T 4 D`` gate inputs in the order i, f, z, o (float32, bfloat16, float16), finite, any T ≥ 1. Products are
            taken in its dtype, all else in float32. Any strides; a copy is made only where gates and features do not lie side
            by side. Odd head widths in 16 bits are computed in float32.
        recurrent: ``P H D 4 D`` (previous output, gate, gate's feature).
        bias: ``P H 4 D``.
        reversed_from: directions from this one on run from the last token to the first, reading and writing in place; None for
            none. A direction reversed is that of flipped tensors, flipped.

    Returns:
        h ``P H B T D`` in the dtype of x; in memory ``P B T H D``, so that heads lie side by side.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit together, or heads too wide to be kept on chip.
    """
    _check(x, recurrent, bias)
    start = x.shape[0] if reversed_from is None else reversed_from
    wanted = torch.is_grad_enabled() and any(a.requires_grad for a in (x, recurrent, bias))
    if x.shape[-1] % 2 and x.dtype is not torch.float32:
        return torch.ops.wavexlstm.slstm(x.float(), recurrent, bias, start, wanted)[0].to(x.dtype)
    return torch.ops.wavexlstm.slstm(x, recurrent, bias, start, wanted)[0]


def _check(x: Tensor, recurrent: Tensor, bias: Tensor) -> None:
    """Refuse what the kernels would read beyond."""
    if x.dim() != 6 or x.shape[-2] != 4 or min(x.shape) < 1:
        raise ValueError(f"gate inputs are {tuple(x.shape)}: must be P H B T 4 D, none of them 0")
    P, H, _, _, _, D = x.shape
    if recurrent.shape != (P, H, D, 4, D) or bias.shape != (P, H, 4, D):
        shapes = f"{tuple(recurrent.shape)} and {tuple(bias.shape)}"
        raise ValueError(f"recurrent matrix and bias are {shapes}: must be {(P, H, D, 4, D)} and {(P, H, 4, D)}")
    if x.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        raise ValueError(f"gate inputs are {x.dtype}: must be one of float32, bfloat16, float16")
    if x.device.type != "cuda" and not interpreted():
        raise ValueError(f"gate inputs are on {x.device}: the Triton kernels need a CUDA device; kernels=native runs everywhere")
    reason = too_wide(D, x.dtype)
    if reason is not None:
        raise ValueError(reason)


def _empty(x: Tensor) -> Tensor:
    """Room for h: ``P H B T D``, laid out as ``P B T H D``."""
    P, H, B, T, _, D = x.shape
    return x.new_empty(P, B, T, H, D).permute(0, 3, 1, 2, 4)


def _side_by_side(x: Tensor, dense: int) -> Tensor:
    """x with its last ``dense`` dimensions contiguous: itself, nearly always."""
    if dense == 1:
        return x if x.stride(-1) == 1 else x.contiguous()
    return x if x.stride(-1) == 1 and x.stride(-2) == x.shape[-1] else x.contiguous()


@torch.library.custom_op("wavexlstm::slstm", mutates_args=())
def _forward(x: Tensor, recurrent: Tensor, bias: Tensor, reversed_from: int, keep: bool) -> tuple[Tensor, Tensor]:
    """h, and what the backward pass wants of tokens (nothing unless ``keep``)."""
    h, kept = _empty(x), _kept(x, keep)
    x, recurrent, bias = _side_by_side(x, 2), recurrent.contiguous(), bias.contiguous()
    run_calls(slstm_forward_calls(x, recurrent, bias, h, kept, Scan(reversed_from, keep)), x.device)
    return h, kept


@_forward.register_fake
def _(x: Tensor, recurrent: Tensor, bias: Tensor, reversed_from: int, keep: bool) -> tuple[Tensor, Tensor]:
    return _empty(x), _kept(x, keep)


def _kept(x: Tensor, keep: bool) -> Tensor:
    return kept_like(x) if keep else x.new_empty(1, dtype=torch.float32)


@torch.library.custom_op("wavexlstm::slstm_backward", mutates_args=())
def _backward(
    dh: Tensor, recurrent: Tensor, bias: Tensor, h: Tensor, kept: Tensor, reversed_from: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of gate inputs, recurrent matrix and bias."""
    dx, sums = _gradient_like(h), partial_sums(h)
    dh, back = _side_by_side(dh, 1), recurrent.permute(0, 1, 3, 4, 2).contiguous()
    run_calls(slstm_backward_calls(dh, back, h, kept, dx, sums, Scan(reversed_from, True)), h.device)
    dR, db = (part.sum(0) for part in sums)
    return dx, dR.transpose(2, 3).contiguous().to(recurrent.dtype), db.to(bias.dtype)


@_backward.register_fake
def _(dh: Tensor, recurrent: Tensor, bias: Tensor, h: Tensor, kept: Tensor, reversed_from: int) -> tuple[Tensor, Tensor, Tensor]:
    return _gradient_like(h), recurrent.new_empty(recurrent.shape), bias.new_empty(bias.shape)


def _gradient_like(h: Tensor) -> Tensor:
    """Room for the gradient of the gate inputs: ``P H B T 4 D``."""
    return h.new_empty(*h.shape[:-1], 4, h.shape[-1])


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    _, recurrent, bias, ctx.reversed_from, ctx.keep = inputs
    h, kept = output
    ctx.mark_non_differentiable(kept)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(recurrent, bias, h, kept)


def _pull_back(ctx: Any, dh: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    if dh is None:
        return (None,) * 5
    if not ctx.keep:
        raise ValueError("wavexlstm::slstm was called with keep=False: nothing is left for gradients")
    return (*torch.ops.wavexlstm.slstm_backward(dh, *ctx.saved_tensors, ctx.reversed_from), None, None)


_forward.register_autograd(_pull_back, setup_context=_remember)
