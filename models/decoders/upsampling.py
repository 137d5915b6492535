"""Convolutions that climb back to the sampling rate."""

from dataclasses import dataclass
from itertools import pairwise
from typing import final

from torch import Tensor, nn
from torch.nn import functional as F

from models.contracts import DECODERS, Decoder
from utils.errors import ConfigError, demand


@dataclass(kw_only=True)
class UpsamplingConfig:
    """Settings of :class:`Upsampling`."""

    width: int | None = None
    """Channels of the convolutions, at least 1; null takes the context's width."""
    kernel: int = 3
    """Kernel of the convolutions in samples, odd."""

    def __post_init__(self) -> None:
        demand(
            (self.width is None or self.width >= 1, f"width = {self.width}: must be at least 1"),
            (self.kernel >= 1 and self.kernel % 2 == 1, f"kernel = {self.kernel}: must be odd and at least 1"),
        )


@DECODERS.register("upsampling-decoder", UpsamplingConfig)
@final
class Upsampling(Decoder):
    """[repeat each position twice → Conv1d → GELU] log₂(stride) times, then Conv1d to the prediction, cropped to the wave.

    Repeating and convolving leaves no checkerboard, which transposed convolutions do (Odena et al. 2016). The kernels are
    centred: predictions see the neighbouring tokens, on both sides.

    Args:
        cfg: width and kernel.
        d_in: D, width of the context.
        d_out: channels or classes of the prediction.
        stride: samples a token covers, a power of two.
        d_wave: ignored; for heads that read the wave.

    Raises:
        ConfigError: the stride is no power of two.
    """

    causal = False

    def __init__(self, cfg: UpsamplingConfig, *, d_in: int, d_out: int, stride: int, d_wave: int) -> None:
        super().__init__()
        if stride & (stride - 1):
            raise ConfigError(
                [f"decoder 'upsampling-decoder': stride {stride} of the encoder is no power of two: choose decoder=linear"]
            )
        self.cfg = cfg
        self.d_out = d_out
        width = d_in if cfg.width is None else cfg.width
        stages = stride.bit_length() - 1
        widths = [d_in] + [width] * stages
        pad = cfg.kernel // 2
        self.convs = nn.ModuleList(nn.Conv1d(a, b, cfg.kernel, padding=pad) for a, b in pairwise(widths))
        self.head = nn.Conv1d(widths[-1], d_out, cfg.kernel, padding=pad)
        self.reach = pad  # pad samples of every stage, the last counted twice: stride · pad samples in all

    def forward(self, context: Tensor, wave: Tensor, valid: Tensor | None = None) -> Tensor:
        """See :meth:`Decoder.forward`."""
        x = context.transpose(1, 2)
        for conv in self.convs:
            x = F.gelu(conv(x.repeat_interleave(2, dim=-1)))
        return self.head(x).transpose(1, 2)[:, : wave.shape[1]]
