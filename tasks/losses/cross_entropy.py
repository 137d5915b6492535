"""Cross-entropy of class scores: one class a trace."""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.nn import functional as F

from tasks.contracts import LOSSES, ClassLoss
from utils.errors import demand


@dataclass(kw_only=True)
class CrossEntropyConfig:
    """Settings of :class:`CrossEntropy`."""

    label_smoothing: float = 0.0
    """Probability spread evenly over all classes, 0 up to below 1; 0 trusts the labels."""

    def __post_init__(self) -> None:
        demand((0 <= self.label_smoothing < 1, f"label_smoothing = {self.label_smoothing}: must be 0 or more, and below 1"))


@LOSSES.register("cross_entropy", CrossEntropyConfig)
@final
class CrossEntropy(ClassLoss):
    """−Σ over classes of y · log softmax(logits), y = (1 − ε) · one-hot + ε / K (Szegedy et al. 2016, section 7).

    Computed in float32 whatever the autocast. Traces without a class take no part.
    """

    def __init__(self, cfg: CrossEntropyConfig) -> None:
        super().__init__()
        self.cfg = cfg

    def forward(self, logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """See :meth:`ClassLoss.forward`."""
        scored = label >= 0
        count = scored.sum().float()
        each = F.cross_entropy(logits.float(), label.clamp_min(0), reduction="none", label_smoothing=self.cfg.label_smoothing)
        return torch.where(scored, each, 0.0).sum() / count.clamp_min(1.0), count
