"""The convolutional encoder of contrastive pretraining."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.contracts import ENCODERS, Encoder
from utils.errors import demand


@dataclass(kw_only=True)
class ConvDownConfig:
    """Settings of :class:`ConvDown`."""

    width: int = 256
    """Channels of every convolution and of the features the quantizer reads, at least 1."""
    layers: int = 2
    """Convolutions, at least 1; each halves the length: stride = 2 ** layers."""
    norm_eps: float = 1e-5
    """Added to the variance in every LayerNorm, above 0."""

    def __post_init__(self) -> None:
        demand(
            (self.width >= 1, f"width = {self.width}: must be at least 1"),
            (self.layers >= 1, f"layers = {self.layers}: must be at least 1"),
            (self.norm_eps > 0, f"norm_eps = {self.norm_eps}: must be above 0"),
        )


@ENCODERS.register("conv-down-encoder-contrastive", ConvDownConfig)
@final
class ConvDown(Encoder):
    """[Conv1d(k 3, stride 2, pad 1) → LayerNorm over channels → GELU] a layer, LayerNorm, then Linear to the backbone.

    The normalised features are shared: the quantizer reads them clean, the backbone gets their projection. The receptive
    field of token t ends at its own last sample, so the encoder is causal.

    Args:
        cfg: width and number of layers.
        d_in: C, channels of the wave.
        d_out: D, width of the backbone.
    """

    causal = True

    def __init__(self, cfg: ConvDownConfig, *, d_in: int, d_out: int) -> None:
        super().__init__()
        self.cfg = cfg
        self.stride = 2**cfg.layers
        self.d_features = cfg.width
        self.d_out = d_out
        widths = [d_in] + [cfg.width] * cfg.layers
        self.convs = nn.ModuleList(nn.Conv1d(a, b, 3, stride=2, padding=1) for a, b in pairwise(widths))
        self.norms = nn.ModuleList(nn.LayerNorm(cfg.width, eps=cfg.norm_eps) for _ in range(cfg.layers))
        self.norm = nn.LayerNorm(cfg.width, eps=cfg.norm_eps)
        self.projection = nn.Linear(cfg.width, d_out)

    def features(self, wave: Tensor) -> Tensor:
        """Wave ``B L C`` to ``B ⌈L/stride⌉ width``, float32 (norms reduce in float32)."""
        return self._features(wave, self.start(wave))[0]

    def _features(self, wave: Tensor, before: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Features, given the sample before the first one at the input of every convolution; and these for what follows."""
        x, last = wave, []
        for conv, norm, past in zip(self.convs, self.norms, before, strict=True):
            last.append(x[:, -1:])
            x = F.gelu(norm(_wide(_convolved(x, past, conv))))  # pyright: ignore[reportArgumentType]
        return self.norm(_wide(x)), last

    def project(self, features: Tensor) -> Tensor:
        """Features ``B T width`` to tokens ``B T D``."""
        return self.projection(features)

    def cannot_stream(self) -> None:
        """It can: every convolution remembers one sample."""

    def start(self, wave: Tensor) -> list[Tensor]:
        """Zeros before the first sample at the input of every convolution, each ``B 1 C``."""
        widths = [wave.shape[2]] + [self.cfg.width] * (self.cfg.layers - 1)
        return [wave.new_zeros(len(wave), 1, width) for width in widths]

    def step(self, wave: Tensor, state: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """See :meth:`Encoder.step`."""
        features, last = self._features(wave, state)
        return self.project(features), last


def _wide(x: Tensor) -> Tensor:
    """At least float32."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _convolved(x: Tensor, past: Tensor, conv: nn.Conv1d) -> Tensor:
    """Conv1d(k 3, stride 2) of ``B T C`` behind ``past`` (``B 1 C``) as one matrix product over overlapping rows: ``B ⌈T/2⌉ O``.

    Norms want channels last and conv1d wants them first; this way nothing is transposed, which is up to twice as fast on a CPU.
    """
    B, T, C = x.shape
    x = torch.cat([past.to(x.dtype), x, x.new_zeros(B, 1, C)], 1).contiguous()
    rows = x.as_strided((B, -(-T // 2), 3 * C), (x.stride(0), 2 * C, 1))
    return F.linear(rows, conv.weight.transpose(1, 2).flatten(1), conv.bias)
