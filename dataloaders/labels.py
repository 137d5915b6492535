"""From onsets to what a picker learns: soft labels, made on the batch, on its device."""

import torch
from torch import Tensor


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
    both = torch.zeros(len(onsets), samples, 2, device=onsets.device)
    for arrival in range(onsets.shape[1]):  # a handful: a trace has few arrivals
        onset = onsets[:, arrival, None]
        bell = torch.exp(-0.5 * ((time - onset) / sigma) ** 2).masked_fill(onset < 0, 0.0)
        for phase in (0, 1):
            mine = bell * (phases[:, arrival, None] == phase)
            both[..., phase] = torch.maximum(both[..., phase], mine)
    total = both.sum(-1, keepdim=True)
    both = both / total.clamp_min(1.0)
    return torch.cat([both, 1 - both.sum(-1, keepdim=True)], -1).clamp_min(0.0)
