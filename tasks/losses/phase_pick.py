"""Cross-entropy with soft labels, which an unlabelled phase takes no part in."""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.nn import functional as F

from tasks.contracts import LOSSES, PickLoss


@dataclass(kw_only=True)
class PhasePickLossConfig:
    """The cross-entropy has no settings: the width of labels belongs to the task."""


@LOSSES.register("phase_pick", PhasePickLossConfig)
@final
class PhasePickLoss(PickLoss):
    """−Σ y log p over P, S and noise, in float32 (PhaseNet: Zhu & Beroza 2019), the mean over valid samples.

    A phase that nobody picked cannot be told from noise: where S is unlabelled, S and noise are one class, with the probability
    p_S + p_N and the label y_S + y_N, so that P is learnt from the trace and S neither learnt nor unlearnt. A trace with
    neither phase labelled is not scored.

    Args:
        cfg: empty.
    """

    def __init__(self, cfg: PhasePickLossConfig) -> None:
        super().__init__()
        self.cfg = cfg

    def forward(self, logits: Tensor, labels: Tensor, valid: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """See :meth:`PickLoss.forward`."""
        log_p = F.log_softmax(logits.float(), dim=-1)
        every = -(labels * log_p).sum(-1)
        only = [-(labels[..., c] * log_p[..., c] + (1 - labels[..., c]) * _others(log_p, c)) for c in (0, 1)]
        p_known, s_known = known[:, 0, None], known[:, 1, None]
        each = torch.where(p_known & s_known, every, torch.where(p_known, only[0], only[1]))
        where = (valid & (p_known | s_known)).float()
        count = where.sum()
        return (each * where).sum() / count.clamp_min(1.0), count


def _others(log_p: Tensor, phase: int) -> Tensor:
    """log(1 − p) of a phase, as the log of the sum of the two other classes."""
    return torch.logaddexp(log_p[..., 1 - phase], log_p[..., 2])
