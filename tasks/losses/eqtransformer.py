"""The loss of EQTransformer: three binary cross-entropies."""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.nn import functional as F

from tasks.contracts import LOSSES, PickLoss
from utils.errors import demand

LASTING = 1.4
"""An earthquake lasts this many times S − P, counted from P (label of the authors' code, and of SeisBench)."""


@dataclass(kw_only=True)
class EQTransformerLossConfig:
    """Weights of the three terms; those of Mousavi et al. (2020)."""

    detection: float = 0.05
    """Weight of detection."""
    p: float = 0.4
    """Weight of P."""
    s: float = 0.55
    """Weight of S."""

    def __post_init__(self) -> None:
        """State the ranges."""
        weights = {"detection": self.detection, "p": self.p, "s": self.s}
        demand(*((weight >= 0, f"{name} = {weight}: must be 0 or more") for name, weight in weights.items()))


@LOSSES.register("eqtransformer", EQTransformerLossConfig)
@final
class EQTransformerLoss(PickLoss):
    """0.05 BCE(detection) + 0.4 BCE(P) + 0.55 BCE(S), the mean over valid samples.

    Source: Mousavi et al. 2020, doi:10.1038/s41467-020-17591-w.

    The heads' logits are taken out of the three scores as :class:`models.backbones.eqtransformer.EQTransformer` put them in:
    detection is the third score, P and S are the first and second less the third. The scores of any picker can be read so.

    P and S are compared with the same Gaussians as in every other picker here (the authors' are triangles), each only where
    the trace's phase is labelled. Detection is 1 from the first P to 1.4 (S − P) after it, S being the last of the window, and
    0 in windows without an arrival. It is not scored where the labels do not say how long the earthquake lasts: one of the
    phases is outside the window or unlabelled.

    Args:
        cfg: weights.
    """

    def __init__(self, cfg: EQTransformerLossConfig) -> None:
        super().__init__()
        self.cfg = cfg

    def forward(self, logits: Tensor, labels: Tensor, valid: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """See :meth:`PickLoss.forward`."""
        scores = logits.float()
        base = scores[..., 2:]
        heads = torch.cat([base, scores[..., :2] - base], -1)
        lasts, certain = earthquake(labels, known)
        targets = torch.cat([lasts[..., None].float(), labels[..., :2].float()], -1)
        # products with numbers, not a tensor of them: that would be copied to the device, and wait for it
        weights = torch.stack([self.cfg.detection * certain, self.cfg.p * known[:, 0], self.cfg.s * known[:, 1]], 1)
        each = (F.binary_cross_entropy_with_logits(heads, targets, reduction="none") * weights[:, None]).sum(-1)
        where = (valid & known.any(1, keepdim=True)).float()
        count = where.sum()
        return (each * where).sum() / count.clamp_min(1.0), count


def earthquake(labels: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Where an earthquake lasts, read off the labels of its phases.

    Args:
        labels: ``B L 3`` Gaussians around onsets, P, S, N.
        known: ``B 2`` bool, phases that are labelled.

    Returns:
        (``B L`` bool, samples during an earthquake; ``B`` bool, traces in which that is certain).
    """
    samples = labels.shape[1]
    time = torch.arange(samples, device=labels.device)
    height = labels[..., :2].amax(1)
    here = height > 0.25  # an onset in the window is a label of 1, or of 1/2 where P and S coincide
    tops = (labels[..., :2] >= (1 - 1e-6) * height[:, None]) & here[:, None]
    first = torch.where(tops[..., 0], time, samples).amin(1)
    last = torch.where(tops[..., 1], time, -1).amax(1)
    whole = here.all(1) & (last > first)
    lasts = whole[:, None] & (time >= first[:, None]) & (time <= (first + LASTING * (last - first))[:, None])
    return lasts, known.all(1) & (whole | ~here.any(1))
