"""Parts of a block with gradients by hand: they keep their inputs and compute what is cheap again in the backward pass.

Autograd keeps every intermediate result of elementwise code. Where a block's memory goes, those are most of it; here they
live only while they are needed. Matrix products are not repeated. All work in whatever dtype they are given and reduce in
at least float32, under autocast too. Shapes: P directions, B batch, T tokens, I features, H heads of E = I/H.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from utils.autograd import output_of


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision to float32; norms and gates are computed there."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def product_dtype(x: Tensor, weight: Tensor) -> torch.dtype:
    """In which a product of x and a weight is taken: that which autocast names on the device of x, else that of the weight."""
    device = x.device.type
    if torch.is_autocast_enabled(device) and weight.dtype is torch.float32:
        return torch.get_autocast_dtype(device)
    return weight.dtype


def conv_silu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """SiLU of the depthwise causal convolution: y_t = SiLU(bias + Σ_j weight_j x_{t−K+1+j}), nothing before the first token.

    Args:
        x: ``P B T I``.
        weight: ``P I K``, last tap on the token itself.
        bias: ``P I``.

    Returns:
        ``P B T I`` in the dtype of x.
    """
    return _ConvSiLU.apply(x, weight, bias)  # pyright: ignore[reportReturnType]


def norm_of_directions(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Layer norm over I of ``P B T I`` (Ba et al. 2016) with a gain ``P I`` a direction; at least float32."""
    return _Norm.apply(x, weight, eps)  # pyright: ignore[reportReturnType]


def gated_projection(h: Tensor, c: Tensor, z: Tensor, skip: Tensor, gain: Tensor, weight: Tensor, eps: float) -> Tensor:
    """((skip · c + gain · norm(h)) · SiLU(z)) Wᵀ: the way out of an mLSTM block (Beck et al. 2024, figure 10).

    Args:
        h: ``P H B T E``, normalised over E.
        c, z: ``P B T I``.
        skip, gain: ``P I``.
        weight: W, ``P O I``.
        eps: added to the variance.

    Returns:
        ``P B T O``; the product is taken in the dtype that autocast names, or that of ``weight``.
    """
    weight = weight.to(product_dtype(z, weight))
    with torch.autocast(z.device.type, enabled=False):
        return _GatedProjection.apply(h, c, z, skip, gain, weight, eps)  # pyright: ignore[reportReturnType]


def _convolved(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The convolution as shifted products: faster than conv1d on a CPU, and tokens stay where they are."""
    T, K = x.shape[2], weight.shape[-1]
    taps = at_least_float32(weight)[:, None, None].unbind(-1)
    y = torch.addcmul(at_least_float32(bias)[:, None, None], at_least_float32(x), taps[-1])
    for back in range(1, min(K, T)):
        y[:, :, back:].addcmul_(x[:, :, : T - back], taps[-1 - back])
    return y


class _ConvSiLU(torch.autograd.Function):
    """See :func:`conv_silu`; the convolution is done again in the backward pass, as SiLU's slope is read before it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight, bias)
        return output_of(F.silu(_convolved(x, weight, bias), inplace=True).to(x.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight, bias = ctx.saved_tensors
        T, K = x.shape[2], weight.shape[-1]
        pre = _convolved(x, weight, bias)
        d = torch.ops.aten.silu_backward(dy.to(pre.dtype), pre)
        taps = at_least_float32(weight)[:, None, None].unbind(-1)
        dx = d * taps[-1]
        dw = d.new_zeros(weight.shape)
        dw[..., -1] = (d * x).sum((1, 2))
        for back in range(1, min(K, T)):
            later = d[:, :, back:]
            dx[:, :, : T - back].addcmul_(later, taps[-1 - back])
            dw[..., -1 - back] = (later * x[:, :, : T - back]).sum((1, 2))
        return dx.to(x.dtype), dw.to(weight.dtype), d.sum((1, 2)).to(bias.dtype)


class _Norm(torch.autograd.Function):
    """See :func:`norm_of_directions`; keeps the input, not the normalised input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        y, mean, rstd = torch.native_layer_norm(at_least_float32(x), x.shape[-1:], None, None, eps)
        ctx.save_for_backward(x, weight, mean, rstd)
        return output_of(y.mul_(weight[:, None, None]))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight, mean, rstd = ctx.saved_tensors
        wide = at_least_float32(x)
        dweight = (wide - mean).mul_(rstd).mul_(dy).sum((1, 2))
        dx = _norm_backward(dy * weight[:, None, None], wide, mean, rstd)
        return dx.to(x.dtype), dweight.to(weight.dtype), None


class _GatedProjection(torch.autograd.Function):
    """See :func:`gated_projection`; norm, skip and gate are elementwise and are done again in the backward pass."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, c: Tensor, z: Tensor, skip: Tensor, gain: Tensor, weight: Tensor, eps: float) -> Tensor:
        normed, mean, rstd = torch.native_layer_norm(at_least_float32(h), h.shape[-1:], None, None, eps)
        ctx.save_for_backward(h, c, z, skip, gain, weight, mean, rstd)
        y = _skipped(_side_by_side(normed), c, skip, gain).mul_(F.silu(z)).to(weight.dtype)
        return torch.bmm(y.flatten(1, 2), weight.transpose(1, 2)).view(*z.shape[:3], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        h, c, z, skip, gain, weight, mean, rstd = ctx.saved_tensors
        dout = dout.flatten(1, 2)
        wide = at_least_float32(h)
        normed = _side_by_side((wide - mean).mul_(rstd))
        open_, inside = F.silu(at_least_float32(z)), _skipped(normed, c, skip, gain)
        dweight = torch.bmm(dout.transpose(1, 2), (inside * open_).to(weight.dtype).flatten(1, 2))
        dy = at_least_float32(torch.bmm(dout, weight).view_as(z))
        dz = torch.ops.aten.silu_backward(inside.mul_(dy), at_least_float32(z)).to(z.dtype)
        d = dy * open_
        dgain, dskip = (normed.mul_(d)).sum((1, 2)), (d * c).sum((1, 2))
        dnormed = (d * gain[:, None, None]).unflatten(-1, (h.shape[1], -1)).permute(0, 3, 1, 2, 4)
        dh = _norm_backward(dnormed.contiguous(), wide, mean, rstd).to(h.dtype)
        dc = d.mul_(skip[:, None, None]).to(c.dtype)
        return dh, dc, dz, dskip.to(skip.dtype), dgain.to(gain.dtype), dweight, None


def _side_by_side(h: Tensor) -> Tensor:
    """Heads ``P H B T E`` to ``P B T I``."""
    return h.permute(0, 2, 3, 1, 4).flatten(-2)


def _skipped(normed: Tensor, c: Tensor, skip: Tensor, gain: Tensor) -> Tensor:
    """skip · c + gain · normed, at least float32."""
    return torch.addcmul(skip[:, None, None] * at_least_float32(c), normed, gain[:, None, None])


def _norm_backward(dy: Tensor, x: Tensor, mean: Tensor, rstd: Tensor) -> Tensor:
    """Gradient of a layer norm's input, without gain."""
    return torch.ops.aten.native_layer_norm_backward(dy, x, x.shape[-1:], mean, rstd, None, None, [True, False, False])[0]
