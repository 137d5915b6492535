"""The sLSTM block (Beck et al. 2024, figure 9): a residual branch around the cell, then a gated feed-forward."""

from collections.abc import Callable
from typing import NamedTuple, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.xlstm.block import Block
from models.xlstm.layers import BlockDiagonal, CausalConv, Linears, Norm, small_init, wang_init
from models.xlstm.lean import at_least_float32
from models.xlstm.settings import Activation, BiasInit, BlockSettings
from models.xlstm.slstm import SLSTMState, start_of
from models.xlstm.slstm_kernels import after, slstm_cell
from utils.optim_params import no_decay

ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    Activation.gelu: F.gelu,
    Activation.relu: F.relu,
    Activation.relu2: lambda x: F.relu(x).square(),
    Activation.sigmoid: torch.sigmoid,
    Activation.swish: F.silu,
    Activation.selu: F.selu,
}


class SLSTMBlockState(NamedTuple):
    """Between two tokens of an sLSTM block.

    Attributes:
        cell: the memory, its heads ``P·H``.
        conv: the last kernel − 1 inputs of the convolution, ``P B K−1 D``.
    """

    cell: SLSTMState
    conv: Tensor


@final
class SLSTMBlock(Block):
    """x + norm(cell(i, f, z, o)), then + down(act(gate) · value); i and f are read after a causal convolution, z and o before."""

    def __init__(self, cfg: BlockSettings) -> None:
        super().__init__()
        P, D, H = cfg.directions, cfg.width, cfg.slstm_num_heads
        self.cfg, self.heads, self.head = cfg, H, D // H
        self.norm = Norm(P, D, cfg.norm_eps)
        self.conv = CausalConv(P, D, cfg.slstm_conv1d_kernel_size) if cfg.slstm_conv1d_kernel_size else None
        self.i, self.f, self.z, self.o = (BlockDiagonal(P, D, H, self.head) for _ in range(4))
        self.recurrent = no_decay(nn.Parameter(torch.zeros(P, H, self.head, 4, self.head)))
        self.gate_bias = no_decay(nn.Parameter(torch.zeros(P, H, 4, self.head)))
        self.head_gain = no_decay(nn.Parameter(torch.ones(P, D)))
        self.dropout = nn.Dropout(cfg.dropout)
        self.ff_norm = Norm(P, D, cfg.norm_eps)
        self.ff_up = Linears(P, D, 2 * cfg.ff_inner)
        self.ff_down = Linears(P, cfg.ff_inner, D)
        self.act = ACTIVATIONS[cfg.ff_act_fn]
        self.cell, self.native = slstm_cell(cfg.kernels, self.head), cfg.kernels != "triton"
        self._fill()

    @torch.no_grad()
    def _fill(self) -> None:
        """NX-AI's initial values; the recurrent matrix starts at zero."""
        cfg = self.cfg
        for part in (self.i, self.f, self.z, self.o):
            small_init(part.weight, cfg.width)
        small_init(self.ff_up.weight, cfg.width)
        wang_init(self.ff_down.weight, cfg.width, cfg.blocks)
        if cfg.slstm_bias_init is BiasInit.standard:
            nn.init.uniform_(self.gate_bias, -(cfg.width**-0.5), cfg.width**-0.5)
        elif cfg.slstm_bias_init is BiasInit.small_init:
            self.gate_bias[:, :, 1] = torch.linspace(3.0, 6.0, self.head)
        elif cfg.slstm_bias_init is BiasInit.powerlaw_blockdependent:
            depth = cfg.index / (cfg.blocks - 1) if cfg.blocks > 1 else 0.0
            place = torch.arange(self.head) / max(self.head - 1, 1)
            self.gate_bias[:, :, 1] = 5.0 - 12.0 * place ** (0.3 + 1.3 * depth)

    def forward(self, x: Tensor, *, turn: bool = False) -> Tensor:
        """See :class:`models.xlstm.block.Block`."""
        assert not turn  # turns() is False: an sLSTM is flipped by its stage
        y = self.norm(x)
        c = y if self.conv is None else self.conv(y)
        h = self.cell(self._inputs(c, y), self.recurrent, self.gate_bias)
        return self._feed_forward(x + self._out(h))

    def start(self, x: Tensor) -> SLSTMBlockState:
        """See :class:`models.xlstm.block.Block`."""
        P, B, _, D = x.shape
        cell = start_of(at_least_float32(x).new_empty(1, P * self.heads, B, 4, self.head))
        return SLSTMBlockState(cell, x.new_zeros(P, B, max(self.cfg.slstm_conv1d_kernel_size - 1, 0), D))

    def step(self, x: Tensor, state: SLSTMBlockState) -> tuple[Tensor, SLSTMBlockState]:
        """See :class:`models.xlstm.block.Block`."""
        y = self.norm(x)
        c, past = (y, state.conv) if self.conv is None else self.conv.step(y, state.conv)
        h, cell = after(state.cell, self._inputs(c, y), self.recurrent, self.gate_bias)
        return self._feed_forward(x + self._out(h)), SLSTMBlockState(cell, past)

    def _inputs(self, c: Tensor, y: Tensor) -> Tensor:
        """Gate inputs ``P H B T 4 D/H``."""
        return torch.stack([self.i(c), self.f(c), self.z(y), self.o(y)], -2)

    def _out(self, h: Tensor) -> Tensor:
        """Dropout and head norm: h ``P H B T D/H`` to ``P B T D``."""
        h = self.dropout(h).permute(0, 2, 3, 1, 4)
        return F.layer_norm(h, h.shape[-1:], eps=self.cfg.norm_eps).flatten(-2) * self.head_gain[:, None, None]

    def _feed_forward(self, x: Tensor) -> Tensor:
        gate, value = self.ff_up(self.ff_norm(x)).chunk(2, -1)
        return x + self.ff_down(self.act(gate) * value)
