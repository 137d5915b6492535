"""One linear map a sample."""

from dataclasses import dataclass
from typing import final

from torch import Tensor, nn

from models.contracts import ENCODERS, Encoder


@dataclass(kw_only=True)
class LinearConfig:
    """The linear encoder has no settings: its widths follow from the data and the backbone."""


@ENCODERS.register("linear", LinearConfig)
@final
class LinearEncoder(Encoder):
    """Each sample's C channels to D features, stride 1; features are tokens already.

    Args:
        cfg: empty.
        d_in: C, channels of the wave.
        d_out: D, width of the backbone.
    """

    stride = 1
    causal = True

    def __init__(self, cfg: LinearConfig, *, d_in: int, d_out: int) -> None:
        super().__init__()
        self.cfg = cfg
        self.d_features = self.d_out = d_out
        self.embed = nn.Linear(d_in, d_out)

    def features(self, wave: Tensor) -> Tensor:
        """Wave ``B L C`` to ``B L D``."""
        return self.embed(wave)

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
