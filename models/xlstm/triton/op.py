"""The mLSTM kernels as operators of torch: shapes without data, gradients, one node for torch.compile and CUDA graphs.

``wavexlstm::mlstm`` and ``wavexlstm::mlstm_backward`` are opaque to the compiler, which lays out what is around them.
"""

# ruff: noqa: PLR0913, PLR0917 - operators of torch take flat arguments

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from models.xlstm.triton import assembler
from models.xlstm.triton.available import WIDEST, interpreted
from models.xlstm.triton.launch import Call, Cell, backward_calls, forward_calls, stats_like


def mlstm_triton(
    q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, *,
    soft_cap: float | None = 15.0, eps: float = 1e-6, reversed_from: int | None = None,
) -> Tensor:  # fmt: skip
    """Run the mLSTM (Beck et al. 2024, equations 19–27) over whole sequences, rows of both directions in one launch.

    The numbers are those of :func:`models.xlstm.mlstm.mlstm`, the gradients exact, and bitwise equal from run to run.

    Args:
        q, k, v: ``B H T D`` or ``P X H T D``, one dtype (float32, bfloat16, float16), any T ≥ 1, D up to 256. Any strides; a
            copy is made only where features do not lie side by side. The views ``x.permute(0, 1, 3, 2, 4)`` of
            ``P X T H D`` projections are as good as any.
        i, f: pre-activations of the gates, ``B H T`` or ``P X H T``; computed with in float32.
        soft_cap: bound of both pre-activations; None for none.
        eps: added to the normaliser.
        reversed_from: rows of the first dimension (B or P) from this one on run from the last token to the first, reading and
            writing in place; None for none. A row reversed is the row of flipped tensors, flipped.

    Returns:
        h, shape, dtype and layout of ``v``.

    Raises:
        ValueError: shapes or dtypes that do not fit together.
    """
    _check(q, k, v, i, f)
    start = q.shape[0] if reversed_from is None else reversed_from
    if q.dim() == 5:
        return torch.ops.wavexlstm.mlstm(q, k, v, i, f, start, soft_cap, eps)[0]
    wide = [x.unsqueeze(1) for x in (q, k, v, i, f)]
    return torch.ops.wavexlstm.mlstm(*wide, start, soft_cap, eps)[0].squeeze(1)


def _check(q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor) -> None:
    """Refuse what the kernels would read beyond."""
    if q.dim() not in (4, 5) or k.shape != q.shape or v.shape != q.shape:
        raise ValueError(f"q, k, v are {q.shape}, {k.shape}, {v.shape}: must be alike, B H T D or P X H T D")
    if i.shape != q.shape[:-1] or f.shape != q.shape[:-1]:
        raise ValueError(f"gates are {i.shape} and {f.shape}: must be {q.shape[:-1]}, that of q without features")
    if not q.dtype == k.dtype == v.dtype or q.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        raise ValueError(f"q, k, v are {q.dtype}, {k.dtype}, {v.dtype}: must be one of float32, bfloat16, float16")
    if q.device.type != "cuda" and not interpreted():
        raise ValueError(f"q is on {q.device}: the Triton kernels need a CUDA device; kernels=native runs everywhere")
    if q.shape[-2] < 1 or not 1 <= q.shape[-1] <= WIDEST:
        raise ValueError(
            f"tokens × head width = {q.shape[-2]} × {q.shape[-1]}: must be at least 1 × 1, and at most {WIDEST} wide"
        )


def _dense(x: Tensor) -> Tensor:
    """x with features side by side: itself, nearly always."""
    return x if x.stride(-1) == 1 else x.contiguous()


def _like(x: Tensor) -> Tensor:
    """An empty tensor laid out as x where features lie side by side, else contiguous."""
    return torch.empty_like(x) if x.stride(-1) == 1 else torch.empty_like(x, memory_format=torch.contiguous_format)


def run_calls(calls: list[Call], device: torch.device) -> None:
    """Launch one after the other."""
    guard: AbstractContextManager[Any] = nullcontext()
    if device.type == "cuda":
        guard = torch.cuda.device(device)
        assembler.settle(torch.cuda.get_device_capability(device)[0])
    with guard:
        for call in calls:
            if call.programs:
                call.run()


@torch.library.custom_op("wavexlstm::mlstm", mutates_args=())
def _forward(
    q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, reversed_from: int, soft_cap: float | None, eps: float
) -> tuple[Tensor, Tensor]:
    """h like v, and the statistics of the tokens."""
    h, stats = _like(v), stats_like(q)
    q, k, v = (_dense(x) for x in (q, k, v))
    run_calls(forward_calls(q, k, v, i, f, h, stats, Cell(reversed_from, soft_cap, eps)), q.device)
    return h, stats


@_forward.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, reversed_from: int, soft_cap: float | None, eps: float
) -> tuple[Tensor, Tensor]:
    return _like(v), stats_like(q)


@torch.library.custom_op("wavexlstm::mlstm_backward", mutates_args=())
def _backward(
    dh: Tensor, q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, h: Tensor, stats: Tensor,
    reversed_from: int, soft_cap: float | None, eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of q, k, v, i, f, laid out as these."""
    grads = (_like(q), _like(k), _like(v), torch.empty_like(i), torch.empty_like(f))
    dh, q, k, v, h = (_dense(x) for x in (dh, q, k, v, h))
    run_calls(backward_calls((q, k, v, i, f), h, stats, dh, grads, Cell(reversed_from, soft_cap, eps)), q.device)
    return grads


@_backward.register_fake
def _(
    dh: Tensor, q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, h: Tensor, stats: Tensor,
    reversed_from: int, soft_cap: float | None, eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    return _like(q), _like(k), _like(v), torch.empty_like(i), torch.empty_like(f)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, i, f, *ctx.told = inputs
    h, stats = output
    ctx.mark_non_differentiable(stats)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(q, k, v, i, f, h, stats)


def _pull_back(ctx: Any, dh: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    if dh is None:
        return (None,) * 8
    return (*torch.ops.wavexlstm.mlstm_backward(dh, *ctx.saved_tensors, *ctx.told), None, None, None)


_forward.register_autograd(_pull_back, setup_context=_keep)
