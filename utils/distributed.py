"""Sums over ranks. Without a process group every function is the identity.

The convention that makes gradients exact under data-parallel training, where every rank's gradient is averaged:

- a loss that is a mean over positions stays local; the LightningModule scales it by count · world / Σ counts;
- a penalty is a function of sums over all ranks, computed alike on each. Its gradient is exact because the sum is
  differentiable: with S = Σᵣ sᵣ and the penalty P(S), each rank receives Σᵣ ∂P/∂S = world · ∂P/∂S, and averaging over ranks
  leaves ∂P/∂S · ∂S/∂θ.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.distributed import ReduceOp


def world_size() -> int:
    """Number of ranks, 1 without a process group."""
    return torch.distributed.get_world_size() if _joined() else 1


def rank() -> int:
    """Number of this process among the ranks, 0 without a process group."""
    return torch.distributed.get_rank() if _joined() else 0


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """Sum over ranks, differentiable: the backward pass sums the gradients over ranks too.

    Every rank must call it, with the same shape, forward and backward alike.
    """
    return _Sum.apply(tensor) if _joined() else tensor


def all_reduce_plain(tensor: Tensor) -> Tensor:
    """Sum over ranks without gradient; leaves its argument as it is. Every rank must call it, with the same shape."""
    return _sum(tensor.detach()) if _joined() else tensor.detach()


def _joined() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _sum(tensor: Tensor) -> Tensor:
    total = tensor.clone(memory_format=torch.contiguous_format)
    torch.distributed.all_reduce(total, ReduceOp.SUM)
    return total


class _Sum(Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return _sum(tensor)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return _sum(grads[0])
