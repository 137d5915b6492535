"""The likelihood of what was hidden, where the network also says how sure it is."""

import math
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor
from torch.nn import functional as F

from tasks.contracts import LOSSES, SampleLoss
from utils.errors import demand


@dataclass(kw_only=True)
class GaussianNLLConfig:
    """Settings of :class:`GaussianNLL`."""

    floor: float = 3e-3
    """Smallest standard deviation, above 0, in units of the normalised wave: what is quieter counts as silence."""

    def __post_init__(self) -> None:
        """State the ranges."""
        demand((self.floor > 0, f"floor = {self.floor}: must be above 0"))


@LOSSES.register("gaussian_nll", GaussianNLLConfig)
@final
class GaussianNLL(SampleLoss):
    """Mean negative logarithm of the likelihood of what was hidden, in nats (Nix & Weigend 1994).

    The decoder predicts a mean and a standard deviation σ = √(softplus(·)² + floor²) for every sample and channel. The phases of
    waves are hardly predictable, so under a squared error it is best to guess 0 wherever nothing can be known, loud or quiet.
    Here a network must know when energy arrives, and how it decays, on every scale of amplitude: what tells noise, P and S apart.

    Args:
        cfg: floor.
    """

    per_channel: ClassVar[int] = 2

    def __init__(self, cfg: GaussianNLLConfig) -> None:
        super().__init__()
        self.cfg = cfg

    def forward(self, guess: Tensor, wave: Tensor, where: Tensor) -> tuple[Tensor, Tensor]:
        """See :meth:`SampleLoss.forward`; ``guess`` is ``B L 2C``: means, then what the standard deviations are made from."""
        mean, raw = guess.float().chunk(2, -1)
        # Not F.gaussian_nll_loss: it looks at the values on the host, which stops a GPU once a step.
        variance = F.softplus(raw).square() + self.cfg.floor**2
        error = 0.5 * ((wave.float() - mean).square() / variance + variance.log() + math.log(2 * math.pi))
        count = where.sum().float()
        return torch.where(where, error, 0.0).sum() / count.clamp_min(1.0), count
