"""The context as the prediction."""

from dataclasses import dataclass
from typing import final

from torch import Tensor

from models.contracts import DECODERS, Decoder
from utils.errors import ConfigError


@dataclass(kw_only=True)
class IdentityDecoderConfig:
    """The identity has no settings."""


@DECODERS.register("identity", IdentityDecoderConfig)
@final
class IdentityDecoder(Decoder):
    """For backbones that end in class scores at the sampling rate: PhaseNet, EQTransformer.

    Args:
        cfg: empty.
        d_in: width of the context, must be ``d_out``.
        d_out: classes.
        stride: samples a token covers, must be 1.
        d_wave: ignored.

    Raises:
        ConfigError: the context is no prediction.
    """

    causal = True
    reach = 0

    def __init__(self, cfg: IdentityDecoderConfig, *, d_in: int, d_out: int, stride: int, d_wave: int) -> None:
        super().__init__()
        if (d_in, stride) != (d_out, 1):
            raise ConfigError(
                [
                    f"decoder 'identity' needs a backbone that predicts {d_out} channels at every sample; this one gives "
                    f"{d_in}, with stride {stride}. Use it with model=phasenet|eqtransformer and encoder=identity"
                ]
            )
        self.cfg, self.d_out = cfg, d_out

    def forward(self, context: Tensor, wave: Tensor, valid: Tensor | None = None) -> Tensor:
        """Context ``B L d_out``, unchanged."""
        return context
