"""Layers that hold the weights of P directions (1, or 2 for forward and backward) and run them in one call.

Activations are ``P B T D`` and direction p only ever meets weights p, so one launch serves both directions. Initial values
are those of NX-AI's xlstm 2.0.6, which the published models were trained from.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.xlstm.lean import at_least_float32, conv_silu, norm_of_directions
from utils.optim_params import no_decay
from utils.slices import slices


def small_init(weight: Tensor, width: int) -> None:
    """Normal with σ = √(2 / (5·width)) (Nguyen & Salazar 2019, "Transformers without Tears")."""
    nn.init.normal_(weight, std=math.sqrt(2 / (5 * width)))


def wang_init(weight: Tensor, width: int, blocks: int) -> None:
    """Normal with σ = 2 / (blocks·√width) (Wang & Komatsuzaki 2021, mesh-transformer-jax)."""
    nn.init.normal_(weight, std=2 / blocks / math.sqrt(width))


class Linears(nn.Module):
    """x ``P B T I`` to ``P B T O``: y_p = x_p W_pᵀ, no bias. Weight ``P O I``; whoever builds it fills it."""

    def __init__(self, directions: int, d_in: int, d_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(directions, d_out, d_in))

    def forward(self, x: Tensor) -> Tensor:
        """Project."""
        P, B, T, D = x.shape
        rows = x.reshape(P, slices(x, B * T), -1, D)
        return torch.matmul(rows, self.weight.transpose(1, 2)[:, None]).view(P, B, T, -1)


class Norm(nn.Module):
    """Layer norm over D of ``P B T D``, a gain a direction, no bias; reduces in float32 and returns it."""

    def __init__(self, directions: int, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = no_decay(nn.Parameter(torch.ones(directions, width)))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise."""
        if len(self.weight) == 1:
            return F.layer_norm(at_least_float32(x), x.shape[-1:], self.weight[0], eps=self.eps)
        return norm_of_directions(x, self.weight, self.eps)


class CausalConv(nn.Module):
    """SiLU of a depthwise convolution over T of ``P B T D`` that sees this token and the kernel − 1 before it.

    Weight ``P D K`` (last tap on the token itself), bias ``P D``; both start uniform in ±1/√K as torch's Conv1d does.
    """

    def __init__(self, directions: int, width: int, kernel: int) -> None:
        super().__init__()
        self.kernel = kernel
        self.weight = nn.Parameter(torch.empty(directions, width, kernel))
        self.bias = no_decay(nn.Parameter(torch.empty(directions, width)))
        bound = kernel**-0.5
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve and bend."""
        return conv_silu(x, self.weight, self.bias)

    def step(self, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens ``P B T D`` after the ``past`` kernel − 1 inputs ``P B K−1 D``; returns the output and the new past."""
        window = torch.cat([past.to(x.dtype), x], 2)
        return conv_silu(window, self.weight, self.bias)[:, :, past.shape[2] :], window[:, :, x.shape[2] :]


class BlockDiagonal(nn.Module):
    """x ``P B T D`` to heads ``P H B T D/H`` through a block-diagonal matrix of D/s blocks of s × s.

    The blocks are laid into dense tiles (a head's width, or 64), because hundreds of 4 × 4 products are far slower than
    a few dense ones. Weight ``P D/s s s`` (block, out, in), which must be filled by whoever builds it.
    """

    def __init__(self, directions: int, width: int, heads: int, block: int) -> None:
        super().__init__()
        self.heads, self.block = heads, block
        head = width // heads
        self.tile = head if head <= 128 and head % block == 0 else math.lcm(64, block)
        if width % self.tile:
            self.tile = block
        self.weight = nn.Parameter(torch.empty(directions, width // block, block, block))

    def tiles(self, dtype: torch.dtype) -> Tensor:
        """The matrix as dense tiles, input × output: ``P·D/tile tile tile``."""
        P, _, s, _ = self.weight.shape
        n = self.tile // s
        blocks = self.weight.to(dtype).view(P, -1, n, s, s).transpose(-1, -2)
        eye = torch.eye(n, dtype=dtype, device=blocks.device)
        return (blocks[:, :, :, :, None, :] * eye[:, None, :, None]).reshape(-1, self.tile, self.tile)

    def forward(self, x: Tensor) -> Tensor:
        """Project and split into heads."""
        P, B, T, D = x.shape
        G = D // self.tile
        tiles = self.tiles(x.dtype).unflatten(0, (P, G)).unbind(0)
        # One direction after the other: their rows are then views of x, which is kept once however many matrices read it.
        rows = (one.reshape(B * T, G, self.tile).transpose(0, 1) for one in x.unbind(0))
        y = torch.stack([torch.bmm(row, tile) for row, tile in zip(rows, tiles, strict=True)]).view(P, G, B, T, self.tile)
        if self.tile * self.heads == D:
            return y
        return y.permute(0, 2, 3, 1, 4).reshape(P, B, T, self.heads, -1).permute(0, 3, 1, 2, 4)
