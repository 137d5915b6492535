"""The convolutional encoder of masked reconstruction."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from typing import final

import torch
from torch import Tensor, nn

from models.contracts import ENCODERS, Encoder
from utils.errors import demand


class ConvChannels(str, Enum):
    """Width of the convolutions."""

    model = "model"
    """The backbone's width."""
    data = "data"
    """The wave's channels, widened by the projection only."""


@dataclass(kw_only=True)
class BidirAutoregConfig:
    """Settings of :class:`BidirAutoreg`."""

    channels: ConvChannels = ConvChannels.model
    """Convolve at the ``model``'s width, or keep the ``data``'s channels until the projection."""
    layers: int = 2
    """Convolutions, at least 1; each halves the length: stride = 2 ** layers."""
    dropout: float = 0.1
    """Dropout of the tokens, in [0, 1)."""

    def __post_init__(self) -> None:
        demand(
            (self.layers >= 1, f"layers = {self.layers}: must be at least 1"),
            (0 <= self.dropout < 1, f"dropout = {self.dropout}: must be in [0, 1)"),
        )


@ENCODERS.register("bidir-autoreg-encoder", BidirAutoregConfig)
@final
class BidirAutoreg(Encoder):
    """[Conv1d(k 3, stride 2, pad 1) → ReLU] a layer, then Linear to the backbone and dropout.

    Args:
        cfg: width of the convolutions, layers, dropout.
        d_in: C, channels of the wave.
        d_out: D, width of the backbone.
    """

    causal = True

    def __init__(self, cfg: BidirAutoregConfig, *, d_in: int, d_out: int) -> None:
        super().__init__()
        self.cfg = cfg
        self.stride = 2**cfg.layers
        self.d_features = d_out if cfg.channels is ConvChannels.model else d_in
        self.d_out = d_out
        widths = [d_in] + [self.d_features] * cfg.layers
        self.convs = nn.ModuleList(nn.Conv1d(a, b, 3, stride=2, padding=1) for a, b in pairwise(widths))
        self.projection = nn.Linear(self.d_features, d_out)
        self.dropout = nn.Dropout(cfg.dropout)

    def features(self, wave: Tensor) -> Tensor:
        """Wave ``B L C`` to ``B ⌈L/stride⌉ F``."""
        x = wave.transpose(1, 2)
        for conv in self.convs:
            x = conv(x).relu()
        return x.transpose(1, 2)

    def project(self, features: Tensor) -> Tensor:
        """Features ``B T F`` to tokens ``B T D``."""
        return self.dropout(self.projection(features))

    def cannot_stream(self) -> None:
        """It can: every convolution remembers one sample."""

    def start(self, wave: Tensor) -> list[Tensor]:
        """Zeros before the first sample at the input of every convolution, each ``B C 1``."""
        widths = [wave.shape[2]] + [self.d_features] * (self.cfg.layers - 1)
        return [wave.new_zeros(len(wave), width, 1) for width in widths]

    def step(self, wave: Tensor, state: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """See :meth:`Encoder.step`."""
        x, last = wave.transpose(1, 2), []
        for conv, past in zip(self.convs, state, strict=True):
            last.append(x[..., -1:])
            past = past.to(x.dtype)
            x = conv(torch.cat([past, past, x], -1))[..., 1:].relu()  # the first output is of what was before
        return self.project(x.transpose(1, 2)), last
