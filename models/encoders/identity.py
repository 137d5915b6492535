"""The wave itself as tokens."""

from dataclasses import dataclass
from typing import final

from torch import Tensor

from models.contracts import ENCODERS, Encoder
from utils.errors import ConfigError


@dataclass(kw_only=True)
class IdentityConfig:
    """The identity has no settings."""


@ENCODERS.register("identity", IdentityConfig)
@final
class Identity(Encoder):
    """One token a sample, whose features are the channels; for backbones that embed the wave themselves.

    Args:
        cfg: empty.
        d_in: C, channels of the wave.
        d_out: D, must be C.

    Raises:
        ConfigError: the backbone wants another width.
    """

    stride = 1
    causal = True

    def __init__(self, cfg: IdentityConfig, *, d_in: int, d_out: int) -> None:
        super().__init__()
        if d_in != d_out:
            raise ConfigError(
                [
                    f"encoder 'identity' gives {d_in} channels but the backbone takes width {d_out}: set model.channels={d_in} "
                    "with model=phasenet|eqtransformer, choose encoder=linear with others"
                ]
            )
        self.cfg = cfg
        self.d_features = self.d_out = d_out

    def features(self, wave: Tensor) -> Tensor:
        """The wave."""
        return wave

    def project(self, features: Tensor) -> Tensor:
        """The features."""
        return features

    def cannot_stream(self) -> None:
        """It can: a sample is a token."""

    def start(self, wave: Tensor) -> tuple[()]:
        """Nothing to remember."""
        return ()

    def step(self, wave: Tensor, state: tuple[()]) -> tuple[Tensor, tuple[()]]:
        """See :meth:`Encoder.step`."""
        return self(wave), state
