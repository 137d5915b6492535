"""Matrix products with the norm before them, by our Triton kernels: the ways into an mLSTM block and out of its layer.

The gain of a norm is part of the matrix that follows: diag(gain) W is one small matrix, whose gradient gives both, where a gain
of its own is another pass over all tokens, forwards and backwards. Both directions then share the normalised tokens as well.
Shapes: P directions, B batch, T tokens, D features, O outputs.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.xlstm.lean import product_dtype
from utils.autograd import output_of
from utils.slices import slices


def normed_projection(x: Tensor, gain: Tensor, weight: Tensor, eps: float) -> Tensor:
    """(gain_p · norm(x)) W_pᵀ for every direction.

    Args:
        x: tokens ``B T D`` that all directions share.
        gain: ``P D``.
        weight: W, ``P O D``.
        eps: added to the variance.

    Returns:
        ``P B T O`` in the dtype that autocast names, or that of ``weight``.
    """
    from models.xlstm.triton import norm_op  # noqa: F401 - registers the operators; only where there is Triton

    dtype = product_dtype(x, weight)
    with torch.autocast(x.device.type, enabled=False):
        return _NormedProjection.apply(x, gain, weight, eps, dtype)  # pyright: ignore[reportReturnType]


def joined_projection(x: Tensor, out: Tensor, dropout: float, gain: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """W [gain_1 · norm(x + dropout(out_1)), gain_2 · norm(x + dropout(out_2)), …] + b: residual, norm and fusion of directions.

    Args:
        x: tokens ``B T D`` that all directions share.
        out: branches of the directions, ``P B T D``.
        dropout: probability that a number of a branch is dropped.
        gain: ``P D``.
        weight: W, ``O P·D``.
        bias: b, ``O``.
        eps: added to the variance.

    Returns:
        ``B T O`` in the dtype that autocast names, or that of ``weight``.
    """
    from models.xlstm.triton import norm_op  # noqa: F401 - registers the operators; only where there is Triton

    dtype = product_dtype(x, weight)
    seed = torch.randint(2**31, (1,), device=x.device) if dropout > 0 else None
    with torch.autocast(x.device.type, enabled=False):
        return _JoinedProjection.apply(x, out.to(dtype), seed, dropout, gain, weight, bias, eps)  # pyright: ignore[reportReturnType]


def _sliced(left: Tensor, right: Tensor) -> Tensor:
    """leftᵀ · right over many tokens, ``N O`` and ``N D`` to ``O D`` in float32, see :func:`utils.slices.slices`."""
    count = slices(right, len(right))
    parts = torch.bmm(left.unflatten(0, (count, -1)).mT, right.unflatten(0, (count, -1)))
    return parts.sum(0, dtype=torch.promote_types(parts.dtype, torch.float32))


class _NormedProjection(torch.autograd.Function):
    """See :func:`normed_projection`; keeps the normalised tokens, which the gradients of the matrix and of x want."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        y, scale = torch.ops.wavexlstm.token_norm(x, eps, dtype)
        ctx.save_for_backward(y, scale, gain, weight)
        ctx.dtype = x.dtype
        wide = (weight * gain[:, None]).to(dtype)
        return output_of(torch.bmm(y.flatten(0, 1).expand(len(gain), -1, -1), wide.mT).unflatten(1, y.shape[:2]))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dup: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        y, scale, gain, weight = ctx.saved_tensors
        rows = dup.flatten(1, 2)
        dy = torch.bmm(rows, (weight * gain[:, None]).to(dup.dtype)).unflatten(1, y.shape[:2])
        dx = torch.ops.wavexlstm.token_norm_backward(dy, y, scale, ctx.dtype)
        both = torch.stack([_sliced(one, y.flatten(0, 1)) for one in rows])
        dgain, dweight = (both * weight).sum(1), both * gain[:, None]
        return dx, dgain.to(gain.dtype), dweight.to(weight.dtype), None, None


class _JoinedProjection(torch.autograd.Function):
    """See :func:`joined_projection`; keeps the normalised tokens, and draws again which were dropped."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, out: Tensor, seed: Tensor | None, dropout: float, gain: Tensor, weight: Tensor, bias: Tensor,
        eps: float,
    ) -> Tensor:  # fmt: skip
        z, scale = torch.ops.wavexlstm.joined_norm(x, out, seed, dropout, eps)
        ctx.save_for_backward(z, scale, seed, gain, weight)
        ctx.told = (dropout, x.dtype, bias.dtype)
        wide = (weight * gain.flatten()).to(z.dtype)
        return output_of(torch.addmm(bias.to(z.dtype), z.flatten(0, 1), wide.T).unflatten(0, z.shape[:2]))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        z, scale, seed, gain, weight = ctx.saved_tensors
        dropout, dtype, bias_dtype = ctx.told
        rows = dy.flatten(0, 1)
        dz = torch.mm(rows, (weight * gain.flatten()).to(dy.dtype)).unflatten(0, dy.shape[:2])
        dx, dout = torch.ops.wavexlstm.joined_norm_backward(dz, z, scale, seed, dropout, dtype)
        both = _sliced(rows, z.flatten(0, 1))
        dgain, dweight = (both * weight).sum(0).view_as(gain), both * gain.flatten()
        dbias = rows.sum(0, dtype=torch.promote_types(rows.dtype, torch.float32)).to(bias_dtype)
        return dx, dout, None, None, dgain.to(gain.dtype), dweight.to(weight.dtype), dbias, None
