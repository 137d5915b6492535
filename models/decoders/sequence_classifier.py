"""One prediction a trace: its tokens pooled over time, without padding and gaps."""

from dataclasses import dataclass
from enum import Enum
from typing import ClassVar, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.contracts import DECODERS, Decoder
from utils.errors import demand


class Pooling(str, Enum):
    """How the tokens of a trace become one vector."""

    mean = "mean"
    """Their mean."""
    mean_max = "mean_max"
    """Their mean beside their largest value, feature by feature: the average of the coda and the height of an onset."""
    attention = "attention"
    """Their mean with weights that the head learns: softmax over time of a linear score."""


@dataclass(kw_only=True)
class SequenceClassifierConfig:
    """Settings of :class:`SequenceClassifier`."""

    pooling: Pooling = Pooling.mean_max
    """mean, mean_max or attention, over the tokens that exist."""
    dropout: float = 0.1
    """Share of pooled features dropped in training."""

    def __post_init__(self) -> None:
        demand((0 <= self.dropout < 1, f"dropout = {self.dropout}: must be 0 or more, and below 1"))


@DECODERS.register("sequence-classifier", SequenceClassifierConfig)
@final
class SequenceClassifier(Decoder):
    """Masked pooling → LayerNorm → dropout → Linear: class scores ``B K``.

    A token exists where any of its samples does. A trace without any gets the scores of a vector of zeros: finite, and marked
    unlabelled by whoever padded it.

    Args:
        cfg: pooling and dropout.
        d_in: D, width of the context.
        d_out: K, number of classes.
        stride: samples a token covers.
        d_wave: ignored; for heads that read the wave.
    """

    causal = False
    per_trace: ClassVar[bool] = True

    def __init__(self, cfg: SequenceClassifierConfig, *, d_in: int, d_out: int, stride: int, d_wave: int) -> None:
        super().__init__()
        self.cfg = cfg
        self.d_out = d_out
        self.stride = stride
        width = 2 * d_in if cfg.pooling is Pooling.mean_max else d_in
        self.score = nn.Linear(d_in, 1) if cfg.pooling is Pooling.attention else None
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(cfg.dropout)
        self.head = nn.Linear(width, d_out)

    def forward(self, context: Tensor, wave: Tensor, valid: Tensor | None = None) -> Tensor:
        """See :meth:`Decoder.forward`."""
        exists = torch.ones_like(wave[..., 0], dtype=torch.bool) if valid is None else valid
        return self.head(self.dropout(self.norm(self.pool(context, self.tokens(exists, context.shape[1])))))

    def tokens(self, valid: Tensor, count: int) -> Tensor:
        """Samples ``B L`` that exist to tokens ``B T`` that do."""
        padded = F.pad(valid, (0, count * self.stride - valid.shape[1]))
        return padded.unflatten(1, (count, self.stride)).any(-1)

    def pool(self, context: Tensor, exists: Tensor) -> Tensor:
        """Tokens ``B T D`` to one vector a trace, ``B D`` or ``B 2D``, float32."""
        tokens, where = context.float(), exists[..., None]
        if self.score is None:
            weights = where / where.sum(1, keepdim=True).clamp_min(1)
        else:
            lowest = torch.finfo(torch.float32).min  # −∞ would leave a trace without tokens with NaN
            weights = torch.where(where, self.score(context).float(), lowest).softmax(1) * where
        mean = (tokens * weights).sum(1)
        if self.cfg.pooling is not Pooling.mean_max:
            return mean
        largest = torch.where(where, tokens, -torch.inf).amax(1)
        return torch.cat([mean, torch.where(exists.any(1, keepdim=True), largest, 0.0)], dim=-1)
