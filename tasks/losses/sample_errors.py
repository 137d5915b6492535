"""Errors between a reconstruction and the wave: losses and metrics of the ``samples`` family.

All take guess ``B L kC``, wave and ``where`` ``B L C``, compute in float32, and give 0 with a count of 0 where nothing is scored.
Amplitudes are those of the normalised wave (unit standard deviation or unit peak a channel).
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from tasks.contracts import LOSSES, SampleLoss

_FLOOR = 1e-8
"""Smallest mean squared error a logarithm sees: −80 dB of unit amplitude."""


@dataclass(kw_only=True)
class SampleErrorConfig:
    """These losses have no settings."""


class _Pointwise(SampleLoss):
    """The mean of an error over scored values."""

    def __init__(self, cfg: SampleErrorConfig) -> None:
        super().__init__()
        self.cfg = cfg

    @abstractmethod
    def error(self, difference: Tensor) -> Tensor:
        """The error of each sample, ``B L C``."""

    def forward(self, guess: Tensor, wave: Tensor, where: Tensor) -> tuple[Tensor, Tensor]:
        """See :meth:`SampleLoss.forward`."""
        count = where.sum().float()
        error = self.error(guess[..., : wave.shape[-1]].float() - wave.float())
        return torch.where(where, error, 0.0).sum() / count.clamp_min(1.0), count


@LOSSES.register("masked_mse", SampleErrorConfig)
@final
class MaskedMSE(_Pointwise):
    """Mean squared error over what was hidden."""

    def error(self, difference: Tensor) -> Tensor:
        """The square."""
        return difference.square()


@LOSSES.register("mse", SampleErrorConfig)
@final
class MSE(_Pointwise):
    """Mean squared error over every valid sample, hidden or not."""

    everywhere: ClassVar[bool] = True

    def error(self, difference: Tensor) -> Tensor:
        """The square."""
        return difference.square()


@LOSSES.register("mae", SampleErrorConfig)
@final
class MAE(_Pointwise):
    """Mean absolute error over what was hidden."""

    def error(self, difference: Tensor) -> Tensor:
        """The absolute value."""
        return difference.abs()


@LOSSES.register("log_mse", SampleErrorConfig)
@final
class LogMSE(SampleLoss):
    """Natural logarithm of each trace's mean squared error, averaged over traces in proportion to their scored values.

    A few loud traces dominate a mean of squares; here a factor in error counts the same on every trace. A trace's share does
    not depend on its batch, so averages over batches are exact.
    """

    def __init__(self, cfg: SampleErrorConfig) -> None:
        super().__init__()
        self.cfg = cfg

    def forward(self, guess: Tensor, wave: Tensor, where: Tensor) -> tuple[Tensor, Tensor]:
        """See :meth:`SampleLoss.forward`."""
        scored = where.sum((1, 2)).float()
        square = (guess[..., : wave.shape[-1]].float() - wave.float()).square()
        trace = torch.where(where, square, 0.0).sum((1, 2)) / scored.clamp_min(1.0)
        count = scored.sum()
        return ((trace + _FLOOR).log() * scored).sum() / count.clamp_min(1.0), count
