"""From a trace's own sampling rate to 100 Hz: exact ratios, an anti-alias filter, and crops that equal the whole trace's.

The filter is that of ``scipy.signal.resample_poly`` (a Kaiser-windowed sinc, zero phase, 10 periods of the slower rate to each
side) with one correction: the taps that one output sample sees sum to one. SciPy's sum to one only on average, which turns an
offset of 10,000 counts into a periodic signal of some 10 counts.
"""

from fractions import Fraction
from functools import lru_cache

import numpy as np

RATE = 100.0
"""Hz, of everything the networks see."""
_SAME = 1e-4
"""Rates this close to 100 Hz, relatively, are taken for it: 0.6 samples in a minute, what the metadata's rounding leaves open."""
_LARGEST = 1000
"""Largest integer of a ratio: longer filters take longer than the samples they see are worth."""
_EXACT = 1e-5
"""How far a ratio may be off, relatively: metadata round rates (33.3333), and 1e-5 is 0.06 samples in a minute."""
_PERIODS = 10
"""Half-length of the filter in periods of the slower rate, SciPy's choice."""


def known(rate: np.ndarray) -> np.ndarray:
    """Bool: the rates (Hz) that are a positive finite number."""
    return np.isfinite(rate) & (rate > 0)


def is_100_hz(rate: np.ndarray) -> np.ndarray:
    """Bool: the rates (Hz) that are 100 Hz but for rounding; NaN is not."""
    return np.isclose(rate, RATE, rtol=_SAME)


def ratio_of(rate: float) -> Fraction | None:
    """Samples at 100 Hz for each sample at a rate, as the simplest fraction: 5/2 for 40 Hz, 1/2 for 200 Hz, 16/5 for 31.25 Hz.

    Args:
        rate: Hz.

    Returns:
        1 for 100 Hz but for rounding; None where the rate is unknown (NaN, infinite, not positive) or where no fraction of
        integers up to 1000 gives the ratio to 1e-5.
    """
    if not known(np.asarray(rate)):
        return None
    if is_100_hz(np.asarray(rate)):
        return Fraction(1)
    ratio = RATE / rate
    for down in range(1, _LARGEST + 1):
        up = round(ratio * down)
        if up > _LARGEST:
            return None
        if abs(up / down - ratio) <= _EXACT * ratio:
            return Fraction(up, down)
    return None


def reach(start: int, count: int, ratio: Fraction) -> tuple[int, int]:
    """Which stored samples a window at 100 Hz depends on: (first, end), both possibly outside the trace.

    The first is a multiple of the denominator, so that it falls on a sample at 100 Hz and the phases of the filter match those
    of the whole trace.

    Args:
        start: first sample of the window, at 100 Hz.
        count: samples of the window.
        ratio: samples at 100 Hz for each stored one.
    """
    up, down = ratio.numerator, ratio.denominator
    half = _PERIODS * max(up, down)
    first = (start * down - half) // up // down * down
    return first, ((start + count - 1) * down + half) // up + 1


@lru_cache(maxsize=256)
def taps(up: int, down: int) -> np.ndarray:
    """The low-pass filter for ``resample_poly``, ``2·10·max(up, down) + 1`` float64, symmetric; a constant stays that constant.

    Args:
        up: numerator of the ratio.
        down: its denominator.
    """
    longer = max(up, down)
    at = np.arange(-_PERIODS * longer, _PERIODS * longer + 1)
    filter_ = np.sinc(at / longer) * np.kaiser(len(at), 5.0)
    for phase in range(up):
        filter_[phase::up] /= up * filter_[phase::up].sum()
    return filter_


def resample(piece: np.ndarray, ratio: Fraction) -> np.ndarray:
    """``C n`` samples to ``C ceil(n·ratio)`` at 100 Hz, float64; the first stays where it is. Zeros lie beyond both ends."""
    from scipy.signal import resample_poly  # takes a second to import, and most sets are at 100 Hz

    up, down = ratio.numerator, ratio.denominator
    return np.asarray(resample_poly(piece.astype(np.float64), up, down, axis=1, window=taps(up, down)))
