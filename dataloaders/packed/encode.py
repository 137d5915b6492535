"""Samples as float16 with a scale and an offset for each trace and component, and how far they can be off.

The offset is the median, so that a digitiser's offset of 10,000 counts takes no digit from a signal of ten. The scale is a power
of two that lifts the largest deviation from it to 2^14 … 2^15: multiplying by it is exact, and float16 keeps its full precision
of 11 bits over 2^29, 175 dB, below that. Integers of 16 bits would give the noise before a strong arrival a few steps only.
"""

import numpy as np
import torch

_TOP = 15
"""Exponent of the largest deviation, in units of the scale."""
_LARGEST = np.float64(32752)
"""Largest float16 below 2^15; samples near the limit of float32 must not be rounded up to infinity."""
_HUGE = 2.0**126
_LOWEST = -126
"""Exponent of the smallest normal float32."""


def encode(wave: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A trace as float16. What is not finite stays so, and a constant component is kept to the digit.

    Args:
        wave: ``C n`` float32.

    Returns:
        (``C n`` float16; scale and offset, ``C`` float32 each: ``offset + scale · packed`` is the trace).
    """
    packed = np.empty(wave.shape, np.float16)
    scale, offset = np.ones(len(wave), np.float32), np.zeros(len(wave), np.float32)
    for component, samples in enumerate(wave.astype(np.float64)):
        finite = np.isfinite(samples)
        sound = samples if finite.all() else samples[finite]
        if sound.size:
            offset[component] = np.median(sound) if np.abs(sound).max() < _HUGE else 0.0
            scale[component] = _scale(float(np.abs(sound - offset[component]).max()))
        units = (samples - offset[component]) / scale[component]
        packed[component] = np.where(finite, np.clip(units, -_LARGEST, _LARGEST), units)
    return packed, scale, offset


def _scale(peak: float) -> float:
    """The power of two that brings a peak to 2^14 … 2^15."""
    return 2.0 ** max(int(np.frexp(peak)[1]) - _TOP, _LOWEST) if peak else 1.0


def decode(packed: np.ndarray, scale: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Float16 as float32 in counts (PyTorch converts 15 times faster than NumPy).

    Args:
        packed: ``B C L`` float16.
        scale: ``B C`` float32.
        offset: ``B C`` float32.
    """
    factors = (torch.from_numpy(np.ascontiguousarray(part))[:, :, None] for part in (scale, offset))
    return torch.from_numpy(packed).float().mul_(next(factors)).add_(next(factors)).numpy()


def bound(wave: np.ndarray, scale: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """How far each packed sample can be off, in counts.

    Half a unit in the last place of float16, 2^-11 (0.05 %) of a sample's deviation from the trace's median; 2^-25 of the scale,
    which is less than 2^-39 of the largest deviation, for the smallest samples; and the rounding of float32.

    Args:
        wave: ``C n`` float32, the source.
        scale: ``C`` float32.
        offset: ``C`` float32.

    Returns:
        ``C n`` float64, not finite where the source is not.
    """
    wide, scale, offset = wave.astype(np.float64), scale[:, None].astype(np.float64), offset[:, None].astype(np.float64)
    return 2.0**-11 * np.abs(wide - offset) + 2.0**-25 * scale + 2.0**-23 * np.abs(wide) + 2.0**-149


def beyond(wave: np.ndarray, read: np.ndarray, scale: np.ndarray, offset: np.ndarray) -> int:
    """How many packed samples are farther off than :func:`bound` allows, or finite where the source is not.

    Args:
        wave: ``C n`` float32, the source.
        read: ``C n`` float32, what was packed.
        scale: ``C`` float32.
        offset: ``C`` float32.
    """
    finite = np.isfinite(wave)
    with np.errstate(invalid="ignore"):
        near = np.abs(read.astype(np.float64) - wave) <= bound(wave, scale, offset)
    same = (read == wave) | (np.isnan(read) & np.isnan(wave))
    return int((~np.where(finite, near, same)).sum())
