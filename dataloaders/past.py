"""Mean and scale of the past alone: how a window is normalised for networks that will run on live streams."""

import torch
from torch import Tensor

ROUNDING = 1e-12
"""Share of the mean square below which a variance is nothing but rounding: the component is constant so far."""


def scaled_by_past(wave: Tensor, inside: Tensor, memory: int) -> Tensor:
    """Every sample less the mean so far, divided by the standard deviation so far, in which a sample counts exp(−age / memory).

    The sums are cumulative ones of growing weights, without a loop over samples: for windows of up to some twenty memories.

    Args:
        wave: ``B C L``; neither offset nor gain matter.
        inside: ``B L``, 1 for valid samples, 0 for others.
        memory: in samples.

    Returns:
        ``B C L`` in the dtype of ``wave``; 0 where a component was constant so far, and where samples are not valid.
    """
    wide = torch.float32 if wave.device.type == "mps" else torch.float64  # a variance is the small difference of large sums
    growth = torch.arange(wave.shape[2], device=wave.device, dtype=wide).div_(memory).exp_()
    weight = (inside.to(wide) * growth)[:, None]
    x = wave.to(wide)
    count = weight.cumsum(2).clamp_min_(torch.finfo(wide).tiny)
    mean, power = (weight * x).cumsum(2) / count, (weight * x * x).cumsum(2) / count
    variance = power - mean * mean
    moves = variance > ROUNDING * power
    y = (x - mean) * torch.where(moves, variance, 1.0).rsqrt() * moves * inside[:, None]
    return y.to(wave.dtype)
