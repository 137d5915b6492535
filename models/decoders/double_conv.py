"""Two convolutions at the sampling rate, then the classes: heads for phase picking."""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.contracts import DECODERS, Decoder
from utils.errors import demand


@dataclass(kw_only=True)
class DoubleConvConfig:
    """Settings of :class:`DoubleConv` and :class:`DoubleConvConcat`."""

    width: int | None = None
    """Channels of the convolutions, at least 1; null takes the context's width."""
    kernel: int = 7
    """Kernel of both convolutions in samples, odd."""
    dropout: float = 0.0
    """Share of channels dropped before the last layer."""

    def __post_init__(self) -> None:
        """State the ranges."""
        demand(
            (self.width is None or self.width >= 1, f"width = {self.width}: must be at least 1"),
            (self.kernel >= 1 and self.kernel % 2 == 1, f"kernel = {self.kernel}: must be odd and at least 1"),
            (0 <= self.dropout < 1, f"dropout = {self.dropout}: must be 0 … 1, without 1"),
        )


class _Head(nn.Module):
    """[Conv1d → GELU] twice, dropout of whole channels, and a map to the classes; ``B D L`` to ``B L d_out``."""

    def __init__(self, cfg: DoubleConvConfig, d_in: int, width: int, d_out: int) -> None:
        super().__init__()
        pad = cfg.kernel // 2
        self.first = nn.Conv1d(d_in, width, cfg.kernel, padding=pad)
        self.second = nn.Conv1d(width, width, cfg.kernel, padding=pad)
        self.dropout = nn.Dropout1d(cfg.dropout)
        self.classes = nn.Conv1d(width, d_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.second(F.gelu(self.first(x))))
        return self.classes(self.dropout(x)).transpose(1, 2)


def at_sampling_rate(context: Tensor, stride: int, samples: int) -> Tensor:
    """Context ``B T D`` to ``B D L``: linear between the centres of tokens, constant outside the first and last.

    Interpolating instead of repeating tokens leaves no steps, and a symmetric kernel centred on a sample sees as much before as
    after it.
    """
    x = context.transpose(1, 2)
    if stride > 1:
        x = F.interpolate(x, scale_factor=float(stride), mode="linear", align_corners=False)
    return x[..., :samples]


def _reach(kernel: int, stride: int) -> int:
    """Tokens: two centred kernels, and a neighbour to interpolate with."""
    return -(-2 * (kernel // 2) // stride) + (stride > 1)


@DECODERS.register("double-conv-phase-pick", DoubleConvConfig)
@final
class DoubleConv(Decoder):
    """Context at the sampling rate, two convolutions, class scores.

    Args:
        cfg: width, kernel, dropout.
        d_in: D, width of the context.
        d_out: classes.
        stride: samples a token covers.
        d_wave: ignored; see :class:`DoubleConvConcat`.
    """

    causal = False

    def __init__(self, cfg: DoubleConvConfig, *, d_in: int, d_out: int, stride: int, d_wave: int) -> None:
        super().__init__()
        self.cfg, self.d_out, self.stride = cfg, d_out, stride
        self.reach = _reach(cfg.kernel, stride)
        self.head = _Head(cfg, d_in, cfg.width or d_in, d_out)

    def forward(self, context: Tensor, wave: Tensor, valid: Tensor | None = None) -> Tensor:
        """See :meth:`Decoder.forward`."""
        return self.head(at_sampling_rate(context, self.stride, wave.shape[1]))


@DECODERS.register("double-conv-phase-pick-concat", DoubleConvConfig)
@final
class DoubleConvConcat(Decoder):
    """The same with the wave beside the context: onsets sharper than the stride of the encoder.

    Args:
        cfg: width, kernel, dropout.
        d_in: D, width of the context.
        d_out: classes.
        stride: samples a token covers.
        d_wave: C, channels of the wave.
    """

    causal = False

    def __init__(self, cfg: DoubleConvConfig, *, d_in: int, d_out: int, stride: int, d_wave: int) -> None:
        super().__init__()
        self.cfg, self.d_out, self.stride = cfg, d_out, stride
        self.reach = _reach(cfg.kernel, stride)
        self.head = _Head(cfg, d_in + d_wave, cfg.width or d_in, d_out)

    def forward(self, context: Tensor, wave: Tensor, valid: Tensor | None = None) -> Tensor:
        """See :meth:`Decoder.forward`."""
        x = at_sampling_rate(context, self.stride, wave.shape[1])
        return self.head(torch.cat([x, wave.transpose(1, 2).to(x.dtype)], 1))
