"""transformer: pre-norm self-attention (Vaswani et al. 2017; rotary positions: Su et al. 2021), for comparison."""

from dataclasses import dataclass
from enum import Enum
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.contracts import BACKBONES, Backbone, BackboneConfig
from utils.errors import demand


class Positions(str, Enum):
    """How a token knows its place."""

    rotary = "rotary"
    sinusoidal = "sinusoidal"


@dataclass(kw_only=True)
class TransformerConfig(BackboneConfig):
    """Settings of :class:`TransformerBackbone`."""

    d_model: int = 128
    """D, features of a token."""
    n_layers: int = 6
    """Layers of attention and feed-forward."""
    num_heads: int = 4
    """Attention heads; must divide D."""
    ff_factor: float = 4.0
    """Width of the feed-forward over D."""
    positions: Positions = Positions.rotary
    """rotary turns queries and keys; sinusoidal is added to the tokens once."""
    causal: bool = False
    """Attend to this token and earlier ones only."""
    dropout: float = 0.1
    """On both branches of a layer and on the attention weights."""
    norm_eps: float = 1e-6
    """Added to the variance in every norm."""

    def __post_init__(self) -> None:
        divides = self.num_heads >= 1 and self.d_model % self.num_heads == 0
        even = not divides or (self.d_model // self.num_heads) % 2 == 0
        demand(
            (self.d_model >= 2 and self.d_model % 2 == 0, f"d_model = {self.d_model}: must be even and at least 2"),
            (self.n_layers >= 1, f"n_layers = {self.n_layers}: must be at least 1"),
            (divides, f"num_heads = {self.num_heads}: must divide d_model = {self.d_model}"),
            (even or self.positions is not Positions.rotary, f"num_heads = {self.num_heads}: rotary needs heads of even width"),
            (self.ff_factor > 0, f"ff_factor = {self.ff_factor}: must be above 0"),
            (0 <= self.dropout < 1, f"dropout = {self.dropout}: must be in [0, 1)"),
            (self.norm_eps > 0, f"norm_eps = {self.norm_eps}: must be above 0"),
        )


@BACKBONES.register("transformer", TransformerConfig)
@final
class TransformerBackbone(Backbone):
    """Layers of x + attention(norm(x)), x + feed-forward(norm(x)); a final norm."""

    def __init__(self, cfg: TransformerConfig) -> None:
        super().__init__()
        self.d_in = self.d_out = cfg.d_model
        self.causal = cfg.causal
        self.positions = cfg.positions
        self.head = cfg.d_model // cfg.num_heads
        self.layers = nn.ModuleList([_Layer(cfg) for _ in range(cfg.n_layers)])
        self.norm = nn.LayerNorm(cfg.d_model, eps=cfg.norm_eps)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens ``B T D`` to context ``B T D``."""
        T, D = tokens.shape[1:]
        if self.positions is Positions.sinusoidal:
            x, angles = tokens + torch.cat(turns(T, D, tokens), -1).to(tokens.dtype), None
        else:
            x, angles = tokens, turns(T, self.head, tokens)
        for layer in self.layers:
            x = layer(x, angles)
        return self.norm(x)

    def cannot_stream(self) -> str | None:
        """See :meth:`Backbone.cannot_stream`."""
        if self.causal:
            return "attention looks at every token so far, so that its memory grows with the stream"
        return super().cannot_stream()

    def by_depth(self) -> list[list[nn.Parameter]]:
        """Layer by layer; the last norm belongs to the last one."""
        layers = [list(layer.parameters()) for layer in self.layers]
        layers[-1] += self.norm.parameters()
        return layers


class _Layer(nn.Module):
    """One layer."""

    def __init__(self, cfg: TransformerConfig) -> None:
        super().__init__()
        D, wide = cfg.d_model, round(cfg.d_model * cfg.ff_factor)
        self.heads, self.causal, self.rate = cfg.num_heads, cfg.causal, cfg.dropout
        self.attention_norm = nn.LayerNorm(D, eps=cfg.norm_eps)
        self.qkv = nn.Linear(D, 3 * D, bias=False)
        self.out = nn.Linear(D, D, bias=False)
        self.ff_norm = nn.LayerNorm(D, eps=cfg.norm_eps)
        self.ff = nn.Sequential(nn.Linear(D, wide), nn.GELU(), nn.Linear(wide, D))
        self.dropout = nn.Dropout(cfg.dropout)

    def forward(self, x: Tensor, angles: tuple[Tensor, Tensor] | None) -> Tensor:
        """Tokens ``B T D``; ``angles``: sine and cosine ``T D/(2·heads)``, or None."""
        q, k, v = self.qkv(self.attention_norm(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if angles is not None:
            q, k = turned(q, angles), turned(k, angles)
        rate = self.rate if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=rate, is_causal=self.causal)
        x = x + self.dropout(self.out(y.transpose(1, 2).flatten(2)))
        return x + self.dropout(self.ff(self.ff_norm(x)))


def turns(tokens: int, width: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Sine and cosine of place × frequency, ``T width/2``, float32; frequencies 1 … 1/10,000, spaced evenly in logarithm."""
    steps = torch.arange(0, width, 2, device=like.device, dtype=torch.float32) / width
    angle = torch.arange(tokens, device=like.device, dtype=torch.float32)[:, None] * 10_000.0**-steps
    return angle.sin(), angle.cos()


def turned(x: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate the halves of x (``B H T D``) against each other, in at least float32."""
    sin, cos = angles
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1).to(x.dtype)
