"""The mLSTM block (Beck et al. 2024, figure 10): a residual branch around the cell, one or two directions at once."""

import math
from abc import ABC, abstractmethod
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn

from models.xlstm.kernels import kernel, nowhere
from models.xlstm.layers import BlockDiagonal, CausalConv, Linears, Norm, small_init, wang_init
from models.xlstm.lean import at_least_float32, gated_projection
from models.xlstm.mlstm import MLSTMState, empty_state, mlstm_prefill, mlstm_step, suited
from models.xlstm.projections import normed_projection
from models.xlstm.settings import BlockSettings
from models.xlstm.triton.available import FEATURES, takes_whole_blocks
from utils.optim_params import no_decay

CELL_EPS = 1e-6
"""Added to the mLSTM's normaliser, as xlstm and mlstm_kernels do."""


class Block(nn.Module, ABC):
    """A residual block over ``P B T D``; direction p runs along T and meets weights p alone.

    Attributes:
        native: :meth:`forward` computes as :meth:`step` does, so that long sequences may run in pieces.
    """

    native: bool = True

    def turns(self, x: Tensor) -> bool:
        """Whether :meth:`forward` can itself run the second direction from the end, for tokens like ``x``."""
        return False

    @abstractmethod
    def forward(self, x: Tensor, *, turn: bool = False) -> Tensor:
        """Tokens ``P B T D`` to the same shape; token t sees no later one.

        With ``turn``, which :meth:`turns` must allow, token t of the second direction sees no earlier one instead.
        """

    @abstractmethod
    def start(self, x: Tensor) -> Any:
        """The state before the first token, for tokens like ``x`` (``P B T D``, any T)."""

    @abstractmethod
    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Tokens ``P B T D`` that follow ``state``, any T of at least 1: what :meth:`forward` gives there, and the new state.

        Native code whatever ``kernels`` says; gradients flow through states.
        """


class MLSTMBlockState(NamedTuple):
    """Between two tokens of an mLSTM block.

    Attributes:
        cell: the memory, its batch dimensions ``P·H B``.
        conv: the last kernel − 1 inputs of the convolution, ``P B K−1 I``.
    """

    cell: MLSTMState
    conv: Tensor


@final
class MLSTMBlock(Block):
    """x + down((norm(cell(q, k, v, i, f)) + skip · c) · SiLU(z)), with (m, z) = up(norm(x)) and c = SiLU(conv(m)).

    q, k come from c and v from m through block-diagonal matrices; both gates read q, k and v.
    """

    def __init__(self, cfg: BlockSettings) -> None:
        super().__init__()
        P, D, inner, H, s = cfg.directions, cfg.width, cfg.mlstm_inner, cfg.mlstm_num_heads, cfg.mlstm_qkv_proj_blocksize
        self.cfg, self.inner, self.heads = cfg, inner, H
        self.norm = Norm(P, D, cfg.norm_eps)
        self.up = Linears(P, D, 2 * inner)
        self.conv = CausalConv(P, inner, cfg.mlstm_conv1d_kernel_size)
        self.q, self.k, self.v = (BlockDiagonal(P, inner, H, s) for _ in range(3))
        self.gate_weight = no_decay(nn.Parameter(torch.zeros(P, 2 * H, 3 * inner)))
        self.gate_bias = no_decay(nn.Parameter(torch.empty(P, 2 * H)))
        self.head_gain = no_decay(nn.Parameter(torch.ones(P, inner)))
        self.skip = no_decay(nn.Parameter(torch.ones(P, inner)))
        self.down = Linears(P, inner, D)
        self.dropout = nn.Dropout(cfg.dropout)
        chosen = kernel(cfg.kernels, chunk=cfg.chunk_size, soft_cap=cfg.gate_soft_cap, eps=CELL_EPS)
        self.cell, self.native, self.whole = (
            chosen.cell,
            chosen.native,
            chosen.whole if takes_whole_blocks(inner, H, s, cfg.mlstm_conv1d_kernel_size) else nowhere,
        )
        self._fill()

    @torch.no_grad()
    def _fill(self) -> None:
        """NX-AI's initial values."""
        small_init(self.up.weight, self.cfg.width)
        wang_init(self.down.weight, self.cfg.width, self.cfg.blocks)
        for part in (self.q, self.k, self.v):
            small_init(part.weight, self.cfg.width)
        override = self.cfg.override_gate_bias
        _, first, last = override or (0.0, 3.0, 6.0)
        self.gate_bias[:, self.heads :] = torch.linspace(first, last, self.heads)
        if override is None:
            nn.init.normal_(self.gate_bias[:, : self.heads], std=0.1)
        else:
            self.gate_bias[:, : self.heads] = override[0]

    def turns(self, x: Tensor) -> bool:
        """See :class:`Block`."""
        return self.whole(x)

    def forward(self, x: Tensor, *, turn: bool = False) -> Tensor:
        """See :class:`Block`."""
        if self.whole(x):
            return x + self.dropout(self.down(self._inner(self.up(self.norm(x)), turn=turn)))
        m, z = self.up(self.norm(x)).chunk(2, -1)
        c = self.conv(m)
        h = self.cell(*self._inputs(c, m)).unflatten(0, (-1, self.heads))
        return x + self.dropout(self._out(h, c, z))

    def branch(self, x: Tensor) -> Tensor:
        """Tokens ``B T D`` that all directions share to what each adds to them, ``P B T D``, before dropout; the second direction
        runs from the end. Only where :meth:`turns` allows."""
        return self.down(self._inner(normed_projection(x, self.norm.weight, self.up.weight, self.norm.eps), turn=True))

    def _inner(self, up: Tensor, *, turn: bool) -> Tensor:
        """From m and z, ``P B T 2I``, to what the projection down takes, by our Triton kernels."""
        from models.xlstm.triton.inner_op import Weights, mlstm_inner  # only where there is Triton

        blocks, features = (self.q.weight, self.k.weight, self.v.weight), (self.head_gain, self.skip)
        weights = Weights(self.conv.weight.mT, self.conv.bias, *blocks, *self._gate_weights(), self.gate_bias, *features)
        return mlstm_inner(
            up,
            weights,
            heads=self.heads,
            reversed_from=1 if turn else len(up),
            soft_cap=self.cfg.gate_soft_cap,
            cell_eps=CELL_EPS,
            norm_eps=self.cfg.norm_eps,
            recompute=self.cfg.recompute_inner,
        )

    def start(self, x: Tensor) -> MLSTMBlockState:
        """See :class:`Block`."""
        P, B = x.shape[:2]
        like = x.new_empty(P * self.heads, B, 1, self.inner // self.heads)
        past = x.new_zeros(P, B, self.cfg.mlstm_conv1d_kernel_size - 1, self.inner)
        return MLSTMBlockState(empty_state(like, like), past)

    def step(self, x: Tensor, state: MLSTMBlockState) -> tuple[Tensor, MLSTMBlockState]:
        """See :class:`Block`."""
        m, z = self.up(self.norm(x)).chunk(2, -1)
        c, past = self.conv.step(m, state.conv)
        h, cell = self._cell_step(*self._inputs(c, m), state.cell)
        return x + self.dropout(self._out(h.unflatten(0, (-1, self.heads)), c, z)), MLSTMBlockState(cell, past)

    def _cell_step(self, q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, state: MLSTMState) -> tuple[Tensor, MLSTMState]:
        """The recurrence for one token, chunks for several."""
        T, width = q.shape[2:]
        cap = self.cfg.gate_soft_cap
        if T > 1:
            return mlstm_prefill(q, k, v, i, f, state, chunk=suited(self.cfg.chunk_size, T, width), soft_cap=cap, eps=CELL_EPS)
        q, k, v, i, f = (x[:, :, 0] for x in (q, k, v, i, f))
        h, state = mlstm_step(q, k, v, i, f, state, soft_cap=cap, eps=CELL_EPS)
        return h[:, :, None], state

    def _inputs(self, c: Tensor, m: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """q, k, v ``P·H B T D/H`` and the gates' pre-activations."""
        q, k, v = (part.flatten(0, 1) for part in (self.q(c), self.k(c), self.v(m)))
        return q, k, v, *self._gates(c, m)

    def _gate_weights(self) -> tuple[Tensor, Tensor]:
        """What the pre-activations of both gates read of c and of m, each ``P 2H I``.

        As q, k and v are linear in c and m, so are the gates: their matrices are multiplied first, which
        saves a pass over q, k, v.
        """
        P = len(self.gate_weight)
        wide = self.gate_weight.view(P, 2 * self.heads, 3, -1, self.q.block)
        by_q, by_k, by_v = (
            (wide[:, :, j, :, :, None] * part.weight[:, None]).sum(-2).view(P, -1, self.inner)  # too small for matrix products
            for j, part in enumerate((self.q, self.k, self.v))
        )
        return by_q + by_k, by_v

    def _gates(self, c: Tensor, m: Tensor) -> tuple[Tensor, Tensor]:
        """Pre-activations i, f, each ``P·H B T`` float32."""
        P, B, T, inner = c.shape
        by_c, by_m = self._gate_weights()
        pre = torch.bmm(c.reshape(P, B * T, inner), by_c.transpose(1, 2))
        pre = pre + torch.bmm(m.reshape(P, B * T, inner), by_m.transpose(1, 2))
        pre = at_least_float32(pre) + self.gate_bias[:, None]
        i, f = pre.view(P, B, T, 2, self.heads).permute(3, 0, 4, 1, 2).flatten(1, 2)
        return i, f

    def _out(self, h: Tensor, c: Tensor, z: Tensor) -> Tensor:
        """Head norm, learnable skip, output gate, projection: h ``P H B T D/H`` to ``P B T D``."""
        return gated_projection(h, c, z, self.skip, self.head_gain, self.down.weight, self.cfg.norm_eps)


def examples(name: str, width: int) -> tuple[MLSTMBlock, MLSTMBlock]:
    """A block with heads of ``width`` features by the backend ``name``, and its like by native code: what a probe compares."""
    inner = math.lcm(FEATURES, width)
    made = [
        MLSTMBlock(BlockSettings(width=inner // 2, directions=2, mlstm_num_heads=inner // width, kernels=kernels))
        for kernels in (name, "recurrent")
    ]
    made[0].load_state_dict(made[1].state_dict())
    return made[0], made[1]
