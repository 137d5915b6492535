"""From raw counts to what a network sees: repair, demean, scale. On the batch, on its device, without host synchronisation."""

import math
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from dataloaders.batch import Batch
from dataloaders.past import scaled_by_past
from utils.errors import demand


class Normalise(str, Enum):
    """What a component is divided by after its mean is removed."""

    std = "std"
    """Its standard deviation (population)."""
    peak = "peak"
    """Its largest absolute value."""
    none = "none"
    """Nothing: counts without their offset."""
    running = "running"
    """Mean and std of the samples so far, one counting exp(−age / window): all that a live stream can know."""


class Missing(str, Enum):
    """What stands in for a missing or dead component."""

    copy = "copy"
    """The first live component of the same trace, in the order ZNE."""
    zeros = "zeros"


_LARGEST = torch.finfo(torch.float32).max
_SMALLEST = torch.finfo(torch.float32).tiny


@dataclass(kw_only=True)
class PrepareConfig:
    """How raw windows become input; the settings of every source start with these."""

    normalise: Normalise = Normalise.std
    """Each component, after its mean is removed, is divided by: its std, its peak, or none; running: mean and std so far."""
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
        (the batch with ``wave`` ``B L d_data`` (stored as ``B d_data L``, which convolutions want), ``valid`` and ``live`` as
        they really are; what was repaired, float32 scalars: ``nonfinite_samples`` that became invalid; ``dead_components``
        missing, constant or wholly non-finite; ``flat_traces`` without any live component; ``sparse_traces`` with fewer than
        half of their samples valid).
    """
    raw = batch.wave[..., : cfg.d_data].transpose(1, 2).float().contiguous()
    wave = torch.empty_like(raw)
    given = batch.valid.float()
    inside, live = _sound(raw, given, batch.live[:, : cfg.d_data], spare=wave)
    count = inside.sum(1)
    torch.nan_to_num(raw, nan=0.0, posinf=0.0, neginf=0.0, out=wave)
    unit, live = _centre(wave, inside, count, live)
    if cfg.bits:
        wave = mu_law(wave, cfg.bits)
    if cfg.normalise is Normalise.running:
        wave = scaled_by_past(wave, inside, memory=wave.shape[2])
    wave.mul_(_factor(wave, unit, count, cfg.normalise) * live[:, :, None].float())
    if cfg.normalise is Normalise.none:
        wave.clamp_(-_LARGEST, _LARGEST)
    wave = _filled(wave, live, cfg.missing).transpose(1, 2)
    counts = {
        "nonfinite_samples": given.sum() - count.sum(),
        "dead_components": (~live).sum().float(),
        "flat_traces": (~live.any(1)).sum().float(),
        "sparse_traces": (count < 0.5 * inside.shape[1]).sum().float(),
    }
    return batch._replace(wave=wave, valid=inside > 0, live=live), counts


def _sound(raw: Tensor, inside: Tensor, live: Tensor, spare: Tensor) -> tuple[Tensor, Tensor]:
    """``inside`` and ``live`` without what is not finite.

    Masks are float32 here and all steps share one buffer: on a CPU that is several times faster than boolean masks that
    broadcast and temporaries of the size of the batch.

    Args:
        raw: ``B C L``.
        inside: ``B L``, 1 for valid samples, 0 for others.
        live: ``B C`` bool.
        spare: ``B C L``, overwritten.
    """
    # 1 or 0 plus 0, or NaN where the product of 0 is one
    finite = torch.addcmul(inside[:, None, :], raw, raw.new_zeros(()), out=spare).nan_to_num_(nan=0.0)
    live = live & (finite.amax(2) > 0)
    wanted = live.float().sum(1, keepdim=True)
    # how many live components are finite, less how many there are: 0 where all are
    missing = finite.mul_(live[:, :, None].float()).sum(1).sub_(wanted)
    return missing.add_(1.0).clamp_(min=0.0).mul_(inside).mul_((wanted > 0).float()), live


def _centre(wave: Tensor, inside: Tensor, count: Tensor, live: Tensor) -> tuple[Tensor, Tensor]:
    """Take, in place, the mean over valid samples away and divide by half the range; whatever does not count becomes 0.

    The middle of the range goes first, which is exact where samples are close to each other: an offset of 1e9 counts costs
    no digit more than float32 already lost, and neither the range nor the sums of samples near the limit of float32 overflow.

    Args:
        wave: ``B C L``, finite.
        inside: ``B L``, 1 for valid samples, 0 for others.
        count: ``B``, valid samples.
        live: ``B C`` bool.

    Returns:
        (half the range ``B C 1``, 1 where that is 0; ``live`` without constant components).
    """
    some = (count > 0)[:, None, None]
    # samples that do not count are −∞ while the highest is sought, then +∞ for the lowest, then 0
    high = wave.add_(inside.log()[:, None, :]).amax(2, keepdim=True)
    low = wave.nan_to_num_(neginf=torch.inf, posinf=torch.inf).amin(2, keepdim=True)
    high, low = torch.where(some, high, 0.0), torch.where(some, low, 0.0)
    half = 0.5 * high - 0.5 * low
    moves = live[:, :, None] & (half >= _SMALLEST)
    unit = torch.where(moves, half, 1.0)
    wave.sub_(0.5 * high + 0.5 * low).mul_(moves.float() / unit).nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
    wave.sub_(wave.sum(2, keepdim=True) / count.clamp(min=1)[:, None, None]).mul_(inside[:, None, :])
    return unit, moves[:, :, 0]


def _factor(wave: Tensor, unit: Tensor, count: Tensor, how: Normalise) -> Tensor:
    """What ``B C L`` waves in units of half their range are multiplied by, ``B C 1``; a zero divisor is 1."""
    if how is Normalise.none:
        return unit
    if how is Normalise.running:
        return torch.ones_like(unit)
    if how is Normalise.peak:
        divisor = torch.maximum(-wave.amin(2, keepdim=True), wave.amax(2, keepdim=True))
    else:
        divisor = torch.linalg.vector_norm(wave, dim=2, keepdim=True) / count.clamp(min=1)[:, None, None].sqrt()
    return 1 / torch.where(divisor > 0, divisor, 1.0)


def _filled(wave: Tensor, live: Tensor, how: Missing) -> Tensor:
    """Dead components of ``wave`` (``B C L``, zeros) as configured; a trace without any live one stays zero."""
    if how is Missing.zeros or wave.shape[1] == 1:
        return wave
    traces, components, samples = wave.shape
    first = live.to(torch.uint8).argmax(1) + components * torch.arange(traces, device=wave.device)
    standing = wave.reshape(-1, samples).index_select(0, first)
    return wave.addcmul_((~live[:, :, None]).float(), standing[:, None, :])


def mu_law(wave: Tensor, bits: int) -> Tensor:
    """Amplitudes rounded to 2^bits − 1 levels that are equally spaced after mu-law companding (ITU-T G.711, mu = 2^bits − 1).

    Mid-tread: zero stays zero, and the sign does not matter.

    Args:
        wave: ``B C L``, finite; each component is taken relative to its largest absolute value.
        bits: 2 … 16.
    """
    mu, steps = 2**bits - 1, 2 ** (bits - 1) - 1
    log_mu = math.log1p(mu)
    peak = wave.abs().amax(2, keepdim=True)
    unit = wave / torch.where(peak > 0, peak, 1.0)
    level = (torch.log1p(mu * unit.abs()) / log_mu * steps).round() / steps
    return unit.sign() * torch.expm1(level * log_mu) / mu * peak
