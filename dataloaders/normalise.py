"""From raw counts to what a network sees: repair, demean, scale. On the batch, on its device, without host synchronisation."""

import math
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from dataloaders.batch import Batch
from utils.errors import demand


class Normalise(str, Enum):
    """What a component is divided by after its mean is removed."""

    std = "std"
    """Its standard deviation (population)."""
    peak = "peak"
    """Its largest absolute value."""
    none = "none"
    """Nothing: counts without their offset."""


class Missing(str, Enum):
    """What stands in for a missing or dead component."""

    copy = "copy"
    """The first live component of the same trace, in the order ZNE."""
    zeros = "zeros"


@dataclass(kw_only=True)
class PrepareConfig:
    """How raw windows become input; the settings of every source start with these."""

    normalise: Normalise = Normalise.std
    """Each component, after its mean is removed, is divided by: its std, its peak, or none."""
    missing: Missing = Missing.copy
    """A missing, constant or wholly non-finite component becomes: a copy of the first live one, or zeros."""
    bits: int = 0
    """Mu-law quantisation of amplitudes to 2^bits − 1 levels, relative to the component's peak; 0 leaves them."""
    d_data: int = 3
    """Components given to the network: 3 for ZNE, 1 for Z alone."""

    def __post_init__(self) -> None:
        demand(
            (self.bits == 0 or 2 <= self.bits <= 16, f"bits = {self.bits}: must be 0 (off) or 2 … 16"),
            (self.d_data in (1, 3), f"d_data = {self.d_data}: must be 3 (ZNE) or 1 (Z)"),
        )


def prepare(batch: Batch, cfg: PrepareConfig) -> tuple[Batch, dict[str, Tensor]]:
    """Repair and normalise a batch of raw windows.

    A component without a single finite valid sample counts as missing. In the others a non-finite sample becomes 0 and makes
    the sample invalid for the whole trace. Invalid samples take no part in any statistic and are 0 afterwards. Valid samples
    stay valid, also where a trace is flat.

    Args:
        batch: raw, ``wave`` ``B L C`` in counts with C = 3 (or already 1).
        cfg: what to do.

    Returns:
        (the batch with ``wave`` ``B L d_data``, ``valid`` and ``live`` as they really are,
        what was repaired, float32 scalars: ``nonfinite_samples``; ``dead_components`` missing, constant or non-finite ones;
        ``flat_traces`` without any live component; ``sparse_traces`` with fewer than half of their samples valid).
    """
    wave, live = batch.wave[..., : cfg.d_data].float(), batch.live[:, : cfg.d_data]
    wave, valid, live, broken = _mend(wave, batch.valid, live)
    wave, live = _centred(wave, valid, live)
    if cfg.bits:
        wave = mu_law(wave, cfg.bits)
    peak = wave.abs().amax(1, keepdim=True)
    wave = _scaled(wave, peak, valid, cfg.normalise)
    wave = _filled(wave, live, cfg.missing)
    counts = {
        "nonfinite_samples": broken,
        "dead_components": (~live).sum().float(),
        "flat_traces": (~live.any(1)).sum().float(),
        "sparse_traces": (valid.float().mean(1) < 0.5).sum().float(),
    }
    return batch._replace(wave=wave, valid=valid, live=live), counts


def _mend(wave: Tensor, valid: Tensor, live: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Non-finite samples out: (wave with zeros there, ``valid``, ``live``, number of them inside ``valid``)."""
    finite = wave.isfinite()
    counted = valid[:, :, None] & live[:, None, :]
    broken = (counted & ~finite).sum().float()
    live = live & (counted & finite).any(1)
    sound = (finite | ~live[:, None, :]).all(2) & live.any(1)[:, None]
    valid = valid & sound
    return torch.where(valid[:, :, None] & live[:, None, :], wave, 0.0), valid, live, broken


def _centred(wave: Tensor, valid: Tensor, live: Tensor) -> tuple[Tensor, Tensor]:
    """Waves without their mean over valid samples, and ``live`` without constant components.

    The middle of the range goes first, which is exact where samples are close to each other: an offset of 1e9 counts costs
    no digit more than float32 already lost, and neither the range nor the sums of samples near the limit of float32 overflow.
    """
    inside = valid[:, :, None]
    some = valid.any(1)[:, None, None]
    high = torch.where(some, torch.where(inside, wave, -torch.inf).amax(1, keepdim=True), 0.0)
    low = torch.where(some, torch.where(inside, wave, torch.inf).amin(1, keepdim=True), 0.0)
    live = live & (high != low)[:, 0]
    half = torch.where(live[:, None, :], 0.5 * high - 0.5 * low, 0.0)
    unit = torch.where(half > 0, half, 1.0)
    wave = torch.where(inside & live[:, None, :], (wave - (0.5 * high + 0.5 * low)) / unit, 0.0)
    mean = wave.sum(1, keepdim=True) / valid.sum(1).clamp(min=1)[:, None, None]
    return torch.where(inside & live[:, None, :], wave - mean, 0.0) * unit, live


def _scaled(wave: Tensor, peak: Tensor, valid: Tensor, how: Normalise) -> Tensor:
    """Waves divided as configured; a zero divisor is 1. Squares are taken relative to the peak, so that none overflows."""
    if how is Normalise.none:
        return wave
    wave = wave / torch.where(peak > 0, peak, 1.0)
    if how is Normalise.peak:
        return wave
    std = (wave.square().sum(1, keepdim=True) / valid.sum(1).clamp(min=1)[:, None, None]).sqrt()
    return wave / torch.where(std > 0, std, 1.0)


def _filled(wave: Tensor, live: Tensor, how: Missing) -> Tensor:
    """Dead components of ``wave`` (zeros) as configured; a trace without any live one stays zero."""
    if how is Missing.zeros:
        return wave
    first = live.int().argmax(1)[:, None, None].expand(-1, wave.shape[1], 1)
    return torch.where(live[:, None, :], wave, wave.gather(2, first))


def mu_law(wave: Tensor, bits: int) -> Tensor:
    """Amplitudes rounded to 2^bits − 1 levels that are equally spaced after mu-law companding (ITU-T G.711, mu = 2^bits − 1).

    Mid-tread: zero stays zero, and the sign does not matter.

    Args:
        wave: ``B L C``, finite; each component is taken relative to its largest absolute value.
        bits: 2 … 16.
    """
    mu, steps = 2**bits - 1, 2 ** (bits - 1) - 1
    log_mu = math.log1p(mu)
    peak = wave.abs().amax(1, keepdim=True)
    unit = wave / torch.where(peak > 0, peak, 1.0)
    level = (torch.log1p(mu * unit.abs()) / log_mu * steps).round() / steps
    return unit.sign() * torch.expm1(level * log_mu) / mu * peak
