"""The norms at both ends of an mLSTM block as operators of torch, see norm_kernels.py; gradients: models/xlstm/projections.py."""

import torch
import triton
from torch import Tensor

from models.xlstm.triton.launch import Call
from models.xlstm.triton.norm_kernels import (
    BITS,
    joined_norm_backward,
    joined_norm_forward,
    token_norm_backward,
    token_norm_forward,
)
from models.xlstm.triton.op import run_calls

NUMBERS = 2048
"""Of a tile, at least one token: 16 a thread."""
WARPS = 4


def token_norm_calls(x: Tensor, y: Tensor, scale: Tensor, eps: float) -> list[Call]:
    """Fill y, normalised, and ``scale``, one over the root of variance + eps."""
    rows, sizes = _sizes(x)
    options = {"D": x.shape[-1], "DP": 4 * sizes["DQ"], "BR": sizes["BR"], "num_warps": WARPS}
    return [Call(token_norm_forward, triton.cdiv(rows, sizes["BR"]), (x, y, scale, rows, eps), options)]


def token_norm_backward_calls(dy: Tensor, y: Tensor, scale: Tensor, dx: Tensor) -> list[Call]:
    """Fill dx from gradients of y by several directions, ``P …``."""
    rows, sizes = _sizes(y)
    options = {"P": len(dy), "D": y.shape[-1], "DP": 4 * sizes["DQ"], "BR": sizes["BR"], "num_warps": WARPS}
    return [Call(token_norm_backward, triton.cdiv(rows, sizes["BR"]), (dy, y, scale, dx, rows), options)]


def joined_norm_calls(
    x: Tensor, out: Tensor, seed: Tensor | None, dropout: float, z: Tensor, scale: Tensor, eps: float
) -> list[Call]:
    """Fill z, directions side by side, and ``scale``, ``P …``."""
    rows, sizes = _sizes(x)
    drop = seed is not None
    args = (x, out, seed if drop else x, z, scale, rows, eps, *_dropping(dropout))
    return [
        Call(
            joined_norm_forward, triton.cdiv(rows, sizes["BR"]), args, {"P": len(out), "DROP": drop, "num_warps": WARPS, **sizes}
        )
    ]


def joined_norm_backward_calls(
    dz: Tensor, z: Tensor, scale: Tensor, seed: Tensor | None, dropout: float, dx: Tensor, dout: Tensor
) -> list[Call]:
    """Fill dx, and dout ``P …``."""
    rows, sizes = _sizes(dx)
    drop = seed is not None
    args = (dz, z, scale, seed if drop else z, dx, dout, rows, *_dropping(dropout))
    options = {"P": len(dout), "DROP": drop, "num_warps": WARPS, **sizes}
    return [Call(joined_norm_backward, triton.cdiv(rows, sizes["BR"]), args, options)]


def _sizes(x: Tensor) -> tuple[int, dict[str, int]]:
    """Tokens; features, a quarter of them padded, tokens of a program."""
    D = x.shape[-1]
    quarter = triton.next_power_of_2(triton.cdiv(D, 4))
    return x.numel() // D, {"D": D, "DQ": quarter, "BR": max(1, NUMBERS // (4 * quarter))}


def _dropping(dropout: float) -> tuple[int, float]:
    """From where on a random number keeps, and what that is multiplied by."""
    return round(dropout * 2**BITS.value), 1 / (1 - dropout)


@torch.library.custom_op("wavexlstm::token_norm", mutates_args=())
def token_norm(x: Tensor, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(x − mean) / √(variance + eps) of tokens ``… D``, in ``dtype``, and one over the root, ``…`` float32; no gain."""
    x = x.contiguous()
    y, scale = torch.empty_like(x, dtype=dtype), x.new_empty(x.shape[:-1], dtype=torch.float32)
    run_calls(token_norm_calls(x, y, scale, eps), x.device)
    return y, scale


@token_norm.register_fake
def _(x: Tensor, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape, dtype=dtype), x.new_empty(x.shape[:-1], dtype=torch.float32)


@torch.library.custom_op("wavexlstm::token_norm_backward", mutates_args=())
def token_norm_grad(dy: Tensor, y: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """Gradient of x, in ``dtype``, from those of y by several directions, ``P … D``."""
    dx = torch.empty_like(y, dtype=dtype)
    run_calls(token_norm_backward_calls(dy.contiguous(), y, scale, dx), y.device)
    return dx


@token_norm_grad.register_fake
def _(dy: Tensor, y: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.empty_like(y, dtype=dtype)


@torch.library.custom_op("wavexlstm::joined_norm", mutates_args=())
def joined_norm(x: Tensor, out: Tensor, seed: Tensor | None, dropout: float, eps: float) -> tuple[Tensor, Tensor]:
    """Norms of x + dropout(out_p), ``… D`` and ``P … D``, side by side as ``… P·D`` in the dtype of ``out``, no gain; one over
    the roots of their variances + eps, ``P …`` float32. Without a seed nothing is dropped."""
    x, out = x.contiguous(), out.contiguous()
    z = out.new_empty(*x.shape[:-1], len(out) * x.shape[-1])
    scale = x.new_empty(out.shape[:-1], dtype=torch.float32)
    run_calls(joined_norm_calls(x, out, seed, dropout, z, scale, eps), x.device)
    return z, scale


@joined_norm.register_fake
def _(x: Tensor, out: Tensor, seed: Tensor | None, dropout: float, eps: float) -> tuple[Tensor, Tensor]:
    return out.new_empty(*x.shape[:-1], len(out) * x.shape[-1]), x.new_empty(out.shape[:-1], dtype=torch.float32)


@torch.library.custom_op("wavexlstm::joined_norm_backward", mutates_args=())
def joined_norm_grad(
    dz: Tensor, z: Tensor, scale: Tensor, seed: Tensor | None, dropout: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Gradients of x, in ``dtype``, and of ``out``."""
    P, D = len(scale), z.shape[-1] // len(scale)
    dx, dout = z.new_empty(*z.shape[:-1], D, dtype=dtype), z.new_empty(P, *z.shape[:-1], D)
    run_calls(joined_norm_backward_calls(dz.contiguous(), z, scale, seed, dropout, dx, dout), z.device)
    return dx, dout


@joined_norm_grad.register_fake
def _(dz: Tensor, z: Tensor, scale: Tensor, seed: Tensor | None, dropout: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    P, D = len(scale), z.shape[-1] // len(scale)
    return z.new_empty(*z.shape[:-1], D, dtype=dtype), z.new_empty(P, *z.shape[:-1], D)
