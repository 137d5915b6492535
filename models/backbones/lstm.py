"""lstm: the classical LSTM (Hochreiter & Schmidhuber 1997), for comparison."""

from dataclasses import dataclass
from typing import final

from torch import Tensor, nn

from models.contracts import BACKBONES, Backbone, BackboneConfig
from utils.errors import demand


@dataclass(kw_only=True)
class LSTMConfig(BackboneConfig):
    """Settings of :class:`LSTMBackbone`."""

    d_model: int = 128
    """D, features of a token and width of the memory in each direction."""
    n_layers: int = 3
    """Layers, each reading the one below."""
    bidirectional: bool = True
    """Read in both directions; false is strictly causal."""
    dropout: float = 0.1
    """Between layers."""
    norm_eps: float = 1e-6
    """Added to the variance in the final norm."""

    def __post_init__(self) -> None:
        demand(
            (self.d_model >= 1, f"d_model = {self.d_model}: must be at least 1"),
            (self.n_layers >= 1, f"n_layers = {self.n_layers}: must be at least 1"),
            (0 <= self.dropout < 1, f"dropout = {self.dropout}: must be in [0, 1)"),
            (self.norm_eps > 0, f"norm_eps = {self.norm_eps}: must be above 0"),
        )


@BACKBONES.register("lstm", LSTMConfig)
@final
class LSTMBackbone(Backbone):
    """LSTM layers, Linear back to D where both directions are read, LayerNorm."""

    def __init__(self, cfg: LSTMConfig) -> None:
        super().__init__()
        D = cfg.d_model
        self.d_in = self.d_out = D
        self.causal = not cfg.bidirectional
        between = cfg.dropout if cfg.n_layers > 1 else 0.0
        self.lstm = nn.LSTM(D, D, cfg.n_layers, batch_first=True, dropout=between, bidirectional=cfg.bidirectional)
        self.fuse = nn.Linear(2 * D, D) if cfg.bidirectional else nn.Identity()
        self.norm = nn.LayerNorm(D, eps=cfg.norm_eps)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens ``B T D`` to context ``B T D``."""
        return self.norm(self.fuse(self.lstm(tokens)[0]))

    def cannot_stream(self) -> str | None:
        """See :meth:`Backbone.cannot_stream`."""
        return None if self.causal else "it reads the window from its end as well: train it with model.bidirectional=false"

    def start(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Output and memory of every layer, ``layers B D`` each."""
        zero = tokens.new_zeros(self.lstm.num_layers, len(tokens), self.d_out)
        return zero, zero

    def step(self, tokens: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """See :meth:`Backbone.step`."""
        if not self.causal:
            raise ValueError(f"lstm cannot run on a stream: {self.cannot_stream()}")
        y, after = self.lstm(tokens, state)
        return self.norm(y), after

    def by_depth(self) -> list[list[nn.Parameter]]:
        """Layer by layer; fusion and norm belong to the last one."""
        weights, step = self.lstm.all_weights, 2 if self.lstm.bidirectional else 1
        layers = [[p for each in weights[first : first + step] for p in each] for first in range(0, len(weights), step)]
        layers[-1] += [*self.fuse.parameters(), *self.norm.parameters()]
        return layers
