"""The absence of a decoder."""

from dataclasses import dataclass
from typing import final

from torch import Tensor

from models.contracts import DECODERS, Decoder


@dataclass(kw_only=True)
class NoDecoderConfig:
    """No decoder, no settings."""


@DECODERS.register("none", NoDecoderConfig, aliases=("dummy",))
@final
class NoDecoder(Decoder):
    """For objectives that score tokens: no parameters, a prediction without channels.

    Args:
        cfg: empty.
        d_in, d_out, stride, d_wave: ignored; every decoder is built with them.
    """

    d_out = 0
    causal = True
    reach = 0

    def __init__(self, cfg: NoDecoderConfig, *, d_in: int, d_out: int, stride: int, d_wave: int) -> None:
        super().__init__()
        self.cfg = cfg

    def forward(self, context: Tensor, wave: Tensor, valid: Tensor | None = None) -> Tensor:
        """``B L 0``."""
        return context.new_zeros(*wave.shape[:2], 0)
