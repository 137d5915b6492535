"""Context into a small convolutional U-Net over the wave: the head of a fast picker."""

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.contracts import DECODERS, Decoder
from utils.errors import demand


@dataclass(kw_only=True)
class FineUNetConfig:
    """Settings of :class:`FineUNet`."""

    width: int = 8
    """Channels at the sampling rate, at least 1; each way down doubles them."""
    pool: list[int] = field(default_factory=lambda: [4, 4, 4, 4])
    """Samples folded into one at each way down, each at least 2."""
    kernel: int = 7
    """Kernel of all convolutions in samples of their stage, odd, at least as long as every pool."""
    dropout: float = 0.0
    """Share of channels dropped at the coarsest stage."""

    def __post_init__(self) -> None:
        """State the ranges."""
        demand(
            (self.width >= 1, f"width = {self.width}: must be at least 1"),
            (bool(self.pool) and min(self.pool) >= 2, f"pool = {self.pool}: must name at least one way down, each at least 2"),
            (self.kernel >= 1 and self.kernel % 2 == 1, f"kernel = {self.kernel}: must be odd and at least 1"),
            (self.kernel >= max(self.pool, default=1), f"kernel = {self.kernel}: must be at least the largest pool, {self.pool}"),
            (0 <= self.dropout < 1, f"dropout = {self.dropout}: must be 0 … 1, without 1"),
        )


@DECODERS.register("fine-unet-phase-pick", FineUNetConfig)
@final
class FineUNet(Decoder):
    """The backbone knows what arrives and roughly when, strided convolutions over the wave know exactly when.

    The wave goes down strided convolutions and up again with skips as in PhaseNet (Zhu & Beroza 2019); the context is added on
    the way down, at the last stage whose samples divide a token. Few channels where samples are many: a token may then cover
    many samples, which is what makes a picker fast, and onsets stay sharp.

    Args:
        cfg: widths, pools, kernel, dropout.
        d_in: D, width of the context.
        d_out: classes.
        stride: samples a token covers.
        d_wave: C, channels of the wave.
    """

    causal = False

    def __init__(self, cfg: FineUNetConfig, *, d_in: int, d_out: int, stride: int, d_wave: int) -> None:
        super().__init__()
        folds = [math.prod(cfg.pool[:stage]) for stage in range(len(cfg.pool) + 1)]
        self.level = max(stage for stage, fold in enumerate(folds) if stride % fold == 0)
        self.fold, self.whole = folds[self.level], math.lcm(stride, folds[-1])
        self.cfg, self.d_out, self.stride = cfg, d_out, stride
        widths = [cfg.width * 2**j for j in range(len(cfg.pool) + 1)]
        self.stem = _conv(d_wave, cfg.width, cfg.kernel)
        self.down = nn.ModuleList(_conv(a, b, cfg.kernel, p) for p, (a, b) in zip(cfg.pool, pairwise(widths), strict=True))
        self.context = nn.Linear(d_in, widths[self.level])
        self.centre = _conv(widths[-1], widths[-1], cfg.kernel)
        self.dropout = nn.Dropout1d(cfg.dropout)
        self.narrow = nn.ModuleList(nn.Conv1d(b, a, 1) for a, b in pairwise(widths))
        self.up = nn.ModuleList(_conv(2 * a, a, cfg.kernel) for a in widths[:-1])
        self.classes = nn.Conv1d(cfg.width, d_out, 1)

    def forward(self, context: Tensor, wave: Tensor, valid: Tensor | None = None) -> Tensor:
        """See :meth:`Decoder.forward`."""
        samples = wave.shape[1]
        x = self.stem(F.pad(wave.transpose(1, 2).to(context.dtype), (0, -samples % self.whole)))
        known = _stretched(self.context(context).transpose(1, 2), self.stride // self.fold)
        known = F.pad(known, (0, x.shape[2] // self.fold - known.shape[2]), mode="replicate")
        skips = []
        for stage, conv in enumerate(self.down):
            skips.append(x + known if stage == self.level else x)
            x = conv(skips[-1])
        x = self.centre(self.dropout(x + known if self.level == len(self.down) else x))
        for skip, pool, narrow, up in reversed(list(zip(skips, self.cfg.pool, self.narrow, self.up, strict=True))):
            x = up(torch.cat([_stretched(narrow(x), pool), skip], 1))
        return self.classes(x).transpose(1, 2)[:, :samples]


def _stretched(x: Tensor, factor: int) -> Tensor:
    """``B D T`` to ``B D factor·T``, linear between centres."""
    return x if factor == 1 else F.interpolate(x, scale_factor=float(factor), mode="linear", align_corners=False)


def _conv(d_in: int, d_out: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Conv1d → BatchNorm → GELU. Unlike a norm over channels, one over the batch keeps how loud the wave has become."""
    conv = nn.Conv1d(d_in, d_out, kernel, stride=stride, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm1d(d_out), nn.GELU())
