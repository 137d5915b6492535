"""Blocks in a row: one layer (block, norm, fusion of two directions) and a stage of layers."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast, final

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.xlstm.block import Block, MLSTMBlock
from models.xlstm.layers import Norm
from models.xlstm.projections import joined_projection
from models.xlstm.settings import BlockSettings, BlockType
from models.xlstm.slstm_block import SLSTMBlock

PIECE = 4096
"""Tokens above which a block without gradients runs piece by piece, from state to state: cost then grows with T, and the inner
activations of a block, many times the width of its tokens, are those of a piece."""

KINDS: dict[BlockType, type[MLSTMBlock] | type[SLSTMBlock]] = {BlockType.mlstm: MLSTMBlock, BlockType.slstm: SLSTMBlock}


def kinds_of(block_type: BlockType, mix: Sequence[BlockType], layers: int) -> list[BlockType]:
    """The kind of every layer: ``block_type``, or ``mix`` repeated where that is ``mixed``."""
    return [mix[j % len(mix)] if block_type is BlockType.mixed else block_type for j in range(layers)]


def in_pieces(block: Block, x: Tensor, state: Any) -> tuple[Tensor, Any]:
    """A block over tokens ``P B T D`` that follow ``state``, :data:`PIECE` at once; the output, and the state after them."""
    if x.shape[2] <= PIECE:
        return block.step(x, state)
    out = []
    for piece in x.split(PIECE, 2):
        y, state = block.step(piece, state)
        out.append(y)
    return torch.cat(out, 2), state


@final
class Stage(nn.Module):
    """Layers at one width: block and its own norm each, both directions fused by Linear(2D → D).

    Args:
        kinds: of the blocks, mlstm or slstm.
        cfg: of every block; ``cfg.directions`` 2 adds a backward block beside each forward one.
        fuse_per_block: fuse after every block, or once at the end.
        residual: add the input around each fusion.
        checkpointing: recompute blocks in the backward pass instead of keeping their activations.
    """

    def __init__(
        self, kinds: Sequence[BlockType], cfg: BlockSettings, *, fuse_per_block: bool, residual: bool, checkpointing: bool
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([KINDS[kind](cfg) for kind in kinds])
        self.norms = nn.ModuleList([Norm(cfg.directions, cfg.width, cfg.norm_eps) for _ in kinds])
        fusions = 0 if cfg.directions == 1 else len(kinds) if fuse_per_block else 1
        self.fusions = nn.ModuleList([nn.Linear(2 * cfg.width, cfg.width) for _ in range(fusions)])
        self.per_fusion = len(kinds) if fusions == 1 else 1
        self.residual = residual
        self.checkpointing = checkpointing

    def forward(self, x: Tensor) -> Tensor:
        """Tokens ``B T D`` to the same shape."""
        for first in range(0, len(self.blocks), self.per_fusion):
            layers = range(first, first + self.per_fusion)
            turn = len(self.fusions) > 0 and all(block.turns(x) for block in self._blocks()[first : layers.stop])
            if turn and len(layers) == 1:
                y = self._kept_or_again(partial(self._whole_layer, first), x)
            else:
                y = x.expand(2, *x.shape) if turn else torch.stack([x, x.flip(1)]) if self.fusions else x[None]
                for j in layers:
                    y = self._kept_or_again(partial(self._plain_layer, j, turn=turn), y)
                y = self._fused(first // self.per_fusion, y, turned=turn)
            x = x + y if self.residual else y
        return x

    def by_depth(self) -> list[list[nn.Parameter]]:
        """Parameters layer by layer: a block and its norm, and the fusion that follows them."""
        layers = [[*block.parameters(), *norm.parameters()] for block, norm in zip(self.blocks, self.norms, strict=True)]
        for number, fusion in enumerate(self.fusions, 1):
            layers[number * self.per_fusion - 1] += fusion.parameters()
        return layers

    def start(self, x: Tensor) -> list[Any]:
        """States before the first token, for tokens like ``x`` (``B T D``, any T); one direction only."""
        return [block.start(x[None]) for block in self._blocks()]

    def step(self, x: Tensor, states: Sequence[Any]) -> tuple[Tensor, list[Any]]:
        """Tokens ``B T D`` that follow ``states``; one direction only."""
        after = []
        for block, norm, state in zip(self._blocks(), self.norms, states, strict=True):
            y, state = in_pieces(block, x[None], state)
            after.append(state)
            y = norm(y)[0]
            x = x + y if self.residual else y
        return x, after

    def _blocks(self) -> list[Block]:
        return list(self.blocks)  # type: ignore[arg-type]

    def _kept_or_again(self, layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """A layer whose activations are kept for the backward pass, or computed again there."""
        if self.checkpointing and self.training and torch.is_grad_enabled():
            return checkpoint(layer, x, use_reentrant=False)  # type: ignore[return-value]
        return layer(x)

    def _whole_layer(self, j: int, x: Tensor) -> Tensor:
        """Block, norm and fusion of tokens ``B T D`` where all of it is ours: both directions read the same tokens."""
        block, norm, fusion = cast("tuple[MLSTMBlock, Norm, nn.Linear]", (self.blocks[j], self.norms[j], self.fusions[j]))
        dropout = block.dropout.p if block.training else 0.0
        return joined_projection(x, block.branch(x), dropout, norm.weight, fusion.weight, fusion.bias, norm.eps)

    def _plain_layer(self, j: int, x: Tensor, *, turn: bool) -> Tensor:
        block = self._blocks()[j]
        if x.shape[2] <= PIECE or torch.is_grad_enabled() or not block.native:
            return self.norms[j](block(x, turn=turn))
        return self.norms[j](in_pieces(block, x, block.start(x))[0])

    def _fused(self, j: int, y: Tensor, *, turned: bool) -> Tensor:
        """Both directions side by side, in the order of time, to one."""
        if not self.fusions:
            return y[0]
        return self.fusions[j](torch.cat([y[0], y[1] if turned else y[1].flip(1)], -1))
