"""InfoNCE as operators of torch with a gradient, by the kernels of info_nce_kernels.py."""

from typing import Any

import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.xlstm.triton.launch import Call
from models.xlstm.triton.op import run_calls
from tasks.losses.info_nce_kernels import info_nce_backward, info_nce_forward

TILE = 64
"""Positions of a tile, both ways."""
SHORTEST = 1e-12
"""Lengths of vectors are taken to be at least this, as ``F.normalize`` does."""


def counted(pick: Tensor) -> Tensor:
    """How often each of M positions is drawn for each: ``B M M'`` uint8 of ``B M K`` positions, M' up to a multiple of 16.

    Four counts are added up in a word of 32 bits, which no count overflows as K is at most 255; sums of integers are the same in
    any order.
    """
    B, M, _ = pick.shape
    words = pick.new_zeros(B, M, triton.cdiv(M, 16) * 4, dtype=torch.int32)
    place = pick.to(torch.int32)
    return words.scatter_add(2, pick // 4, torch.ones_like(place) << (place % 4 * 8)).view(torch.uint8)


def _options(context: Tensor, codes: Tensor | None) -> dict[str, Any]:
    E = context.shape[-1]
    told = {"E": E, "EP": max(16, triton.next_power_of_2(E)), "BM": TILE, "BN": TILE, "CODED": codes is not None}
    return {**told, "DOT": "ieee", "num_warps": 4, "num_stages": 2}


def forward_call(
    given: tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None, Tensor], temperature: float, made: tuple[Tensor, Tensor, Tensor]
) -> Call:
    """Fill ``made``, what :func:`info_nce` gives for ``given``."""
    context, codes, counts = given[0], given[4], given[5]
    B, M, _ = context.shape
    args = (*given[:4], counts if codes is None else codes, counts, *made, M, counts.shape[2], 1 / temperature)
    return Call(info_nce_forward, B * triton.cdiv(M, TILE), args, _options(context, codes))


def backward_call(
    given: tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None, Tensor], temperature: float, total: Tensor, dloss: Tensor,
    grad: Tensor,
) -> Call:  # fmt: skip
    """Fill ``grad``, what :func:`info_nce_grad` gives for ``given``."""
    context, codes, counts = given[0], given[4], given[5]
    B, M, _ = context.shape
    args = (*given[:4], counts if codes is None else codes, counts, total, dloss, grad, M, counts.shape[2], 1 / temperature)
    return Call(info_nce_backward, B * triton.cdiv(M, TILE) ** 2, args, _options(context, codes))


@torch.library.custom_op("wavexlstm::info_nce", mutates_args=())
def info_nce(
    context: Tensor, target: Tensor, rc: Tensor, rt: Tensor, codes: Tensor | None, counts: Tensor, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits of own targets, logarithms of the sums of exponentials, hits (uint8), all ``B M``; see info_nce_kernels.py."""
    B, M, _ = context.shape
    own, total = (context.new_empty(B, M, dtype=torch.float32) for _ in range(2))
    hit = context.new_empty(B, M, dtype=torch.uint8)
    run_calls([forward_call((context, target, rc, rt, codes, counts), temperature, (own, total, hit))], context.device)
    return own, total, hit


@info_nce.register_fake
def _(
    context: Tensor, target: Tensor, rc: Tensor, rt: Tensor, codes: Tensor | None, counts: Tensor, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    shape = context.shape[:2]
    own, total = (context.new_empty(shape, dtype=torch.float32) for _ in range(2))
    return own, total, context.new_empty(shape, dtype=torch.uint8)


@torch.library.custom_op("wavexlstm::info_nce_backward", mutates_args=())
def info_nce_grad(
    dloss: Tensor, context: Tensor, target: Tensor, rc: Tensor, rt: Tensor, codes: Tensor | None, counts: Tensor, total: Tensor,
    temperature: float,
) -> Tensor:  # fmt: skip
    """Gradient of context · target of all pairs, ``B M M'``; what is beyond M is not set."""
    grad, given = context.new_empty(counts.shape), (context, target, rc, rt, codes, counts)
    run_calls([backward_call(given, temperature, total, dloss.contiguous(), grad)], context.device)
    return grad


@info_nce_grad.register_fake
def _(
    dloss: Tensor, context: Tensor, target: Tensor, rc: Tensor, rt: Tensor, codes: Tensor | None, counts: Tensor, total: Tensor,
    temperature: float,
) -> Tensor:  # fmt: skip
    return context.new_empty(counts.shape)


def losses(context: Tensor, target: Tensor, codes: Tensor | None, pick: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Loss of every position against its negatives, and which of them are hits, ``B M`` float32 and bool.

    Args:
        context, target: ``B M E``, of any length; compared by cosine similarity.
        codes: a negative that carries the position's own code is left out, ``B M`` int64; None for no codes.
        pick: negatives, positions of the same trace, ``B M K``; at most 255.
        temperature: divides the similarities.
    """
    return _Losses.apply(context, target, codes, counted(pick), temperature)  # pyright: ignore[reportReturnType]


def _inverse_length(x: Tensor) -> Tensor:
    """``B M`` of ``B M E``, float32."""
    return 1 / torch.linalg.vector_norm(x.float(), dim=-1).clamp_min(SHORTEST)


class _Losses(torch.autograd.Function):
    """See :func:`losses`; keeps the vectors and the counts."""

    @staticmethod
    def forward(
        ctx: Any, context: Tensor, target: Tensor, codes: Tensor | None, counts: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor]:
        context, target = context.contiguous(), target.contiguous()
        codes = None if codes is None else codes.contiguous()
        rc, rt = _inverse_length(context), _inverse_length(target)
        own, total, hit = torch.ops.wavexlstm.info_nce(context, target, rc, rt, codes, counts, temperature)
        ctx.save_for_backward(context, target, rc, rt, codes, counts, total)
        ctx.temperature = temperature
        hits = hit > 0
        ctx.mark_non_differentiable(hits)
        return total - own, hits

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        context, target, rc, rt, codes, counts, total = ctx.saved_tensors
        told = (context, target, rc, rt, codes, counts, total, ctx.temperature)
        d = torch.ops.wavexlstm.info_nce_backward(grads[0].float(), *told)[:, :, : context.shape[1]]
        dc, dt = (
            _through_length(torch.bmm(by, other), x, r)
            for by, other, x, r in ((d, target, context, rc), (d.mT, context, target, rt))
        )
        return dc, dt, None, None, None


def _through_length(d: Tensor, x: Tensor, r: Tensor) -> Tensor:
    """Gradient of x from d, that of x / |x| already times r = 1 / |x|: what points along x is taken off."""
    wide, r = d.float(), r[..., None]
    unit = x.float() * r
    return (wide - unit * (unit * wide).sum(-1, keepdim=True)).to(x.dtype)
