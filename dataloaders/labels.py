"""From onsets to what a picker learns: soft labels, made on the batch, on its device."""

import torch
from torch import Tensor

_FAR = -80.0
"""Exponent at which a Gaussian ends: further down float32 turns subnormal, and slow."""


def gaussian_labels(onsets: Tensor, phases: Tensor, samples: int, sigma: float) -> Tensor:
    """Class probabilities a sample: a Gaussian of height 1 around every onset, noise is the rest.

    As in PhaseNet (Zhu & Beroza 2019). Several arrivals of a phase give the largest of their Gaussians; where P and S together
    exceed 1, both are scaled so that noise is 0.

    Args:
        onsets: ``B P`` samples in the window, −1: none.
        phases: ``B P``, 0 for P and 1 for S.
        samples: L.
        sigma: standard deviation in samples.

    Returns:
        ``B L 3`` float32 in the order P, S, N; each sample sums to 1.
    """
    time = torch.arange(samples, device=onsets.device, dtype=torch.float32)
    # one plane a class: each is contiguous, without which torch.compile refuses to write into it
    labels = torch.empty(3, len(onsets), samples, device=onsets.device)
    p, s, noise = labels.unbind(0)
    for phase, bell in ((0, p), (1, s)):
        mine = torch.where((onsets >= 0) & (phases == phase), onsets.float(), torch.inf)
        torch.sub(time, mine[:, :1], out=bell).abs_()
        for arrival in range(1, onsets.shape[1]):  # a handful: a trace has few arrivals
            torch.minimum(bell, (time - mine[:, arrival, None]).abs_(), out=bell)
        bell.square_().mul_(-0.5 / sigma**2).clamp_(min=_FAR).exp_().mul_(mine.isfinite().any(1, keepdim=True))
    total = torch.add(p, s, out=noise).clamp_(min=1.0)
    p.div_(total)
    s.div_(total)
    torch.sub(1, p, out=noise).sub_(s).clamp_(min=0.0)
    return labels.permute(1, 2, 0)
