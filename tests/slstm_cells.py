"""Inputs and the float64 reference for tests of the Triton sLSTM, in the interpreter and on a GPU."""

import torch
from triton_cells import answers, flipped, head_norm

from models.xlstm.slstm_kernels import native

__all__ = ["answers", "flipped", "head_norm", "inputs", "reference", "relative"]


def inputs(T, D, dtype=torch.float32, device="cpu", seed=0, P=2, B=1, H=1):
    """Gate inputs ``P H B T 4 D``, recurrent matrix and bias, representable in ``dtype``, as leaves that want gradients."""
    gen = torch.Generator().manual_seed(seed)
    x = torch.randn(P, H, B, T, 4, D, generator=gen)
    recurrent = torch.randn(P, H, D, 4, D, generator=gen) * (0.7 / D**0.5)
    bias = torch.randn(P, H, 4, D, generator=gen) * 0.3
    bias[:, :, 1] += 3.0
    values = (x.to(dtype), recurrent.to(dtype).float(), bias)
    return [a.to(device).requires_grad_() for a in values]


def reference(x, reversed_from):
    """The native cell in float64, reversed directions by flips."""
    gates, recurrent, bias = (a.double() for a in x)
    return flipped(native(flipped(gates, reversed_from), recurrent, bias), reversed_from)


class Rounded(torch.autograd.Function):
    """A number as another dtype stores it, its gradient as it is: what is computed after it meets the number that was stored."""

    @staticmethod
    def forward(ctx, x, dtype):
        return x.to(dtype).to(x.dtype)

    @staticmethod
    def backward(ctx, pull):
        return pull, None


def relative(got, expected):
    """Relative error of h and of the gradients of gate inputs, recurrent matrix and bias; none is measured by less than 1e-6."""
    pairs = zip(got, expected, strict=True)
    return [((a.double() - b.double()).norm() / b.double().norm().clamp(min=1e-6)).item() for a, b in pairs]


def poisoned(x):
    """The tensor amid not-a-numbers, its last two dimensions dense as the kernels want them, and the memory around it."""
    pads = [2] * (x.dim() - 2) + [0, 0]
    around = x.new_full([n + 2 * p for n, p in zip(x.shape, pads, strict=True)], float("nan"))
    inside = around[tuple(slice(p, p + n) for n, p in zip(x.shape, pads, strict=True))]
    inside.copy_(x)
    return inside, around
