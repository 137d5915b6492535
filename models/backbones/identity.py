"""identity: no backbone at all; what the encoder alone can do."""

from dataclasses import dataclass
from typing import final

from torch import Tensor

from models.contracts import BACKBONES, Backbone, BackboneConfig
from utils.errors import demand


@dataclass(kw_only=True)
class IdentityConfig(BackboneConfig):
    """Settings of :class:`IdentityBackbone`."""

    d_model: int = 128
    """D, features of a token."""

    def __post_init__(self) -> None:
        demand((self.d_model >= 1, f"d_model = {self.d_model}: must be at least 1"))


@BACKBONES.register("identity", IdentityConfig)
@final
class IdentityBackbone(Backbone):
    """Context is the tokens themselves."""

    causal = True

    def __init__(self, cfg: IdentityConfig) -> None:
        super().__init__()
        self.d_in = self.d_out = cfg.d_model

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens ``B T D``, unchanged."""
        return tokens

    def cannot_stream(self) -> None:
        """It can."""

    def start(self, tokens: Tensor) -> tuple[()]:
        """Nothing to remember."""
        return ()

    def step(self, tokens: Tensor, state: tuple[()]) -> tuple[Tensor, tuple[()]]:
        """See :meth:`Backbone.step`."""
        return tokens, state
