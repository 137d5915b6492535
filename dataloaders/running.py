"""The preparation of windows (:mod:`normalise`) for a record that has no end: statistics of the past alone, in constant memory.

A window is demeaned and scaled by statistics of its whole, which on a live stream are not known. Here they are those of the past,
a sample weighted by exp(−age / memory), from the first sample on. That is how ``dataset.normalise=running`` prepares windows. A
network that was trained with another sees amplitudes it does not know: an onset arrives on the scale of the noise before it,
where a window would have scaled it by its own coda.
"""

import math
from typing import final

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from dataloaders.normalise import Missing, Normalise, PrepareConfig
from dataloaders.past import ROUNDING
from utils.errors import DataError

Values = NDArray[np.float64]


@final
class RunningPreparation:
    """Raw samples to what a network sees, piece by piece; pieces of any lengths give the same numbers.

    Repair is that of windows: where a live component has no finite sample, the sample is 0 in all. A component without finite
    samples for the length of the memory, or constant so far, is dead: a copy of the first live one, or zeros.

    Args:
        cfg: how the network's windows were prepared.
        memory: samples after which a sample counts 1/e; the length of the network's windows suits.

    Raises:
        DataError: amplitudes were quantised relative to the peak of the window (``bits``), which a stream cannot know.
    """

    def __init__(self, cfg: PrepareConfig, memory: int) -> None:
        if cfg.bits:
            raise DataError(
                f"dataset.bits = {cfg.bits}: mu-law levels are relative to a window's peak, which a live stream lacks"
            )
        self.cfg, self.memory = cfg, memory
        self.fade = math.exp(-1 / memory)
        components = cfg.d_data
        self._sums = np.zeros((3, components))
        self._origin = np.full(components, np.nan)
        self._age = np.full(components, memory)
        self._peak = np.zeros(components)

    def __call__(self, samples: NDArray[np.floating]) -> NDArray[np.float32]:
        """The next samples ``N C`` in counts or any unit, NaN where there is none, to ``N d_data`` float32."""
        raw = np.asarray(samples, dtype=np.float64)[:, : self.cfg.d_data]
        if not len(raw):
            return raw.astype(np.float32)
        there = np.isfinite(raw)
        self._set_origin(raw, there)
        x = np.where(there, raw - np.nan_to_num(self._origin), 0.0)
        weight, total, squares = self._faded(there, x)
        mean = total / np.maximum(weight, np.finfo(float).tiny)
        power = squares / np.maximum(weight, np.finfo(float).tiny)
        variance = power - mean**2
        live = self._recent(there) & (variance > ROUNDING * power)
        centred = np.where(there, x - mean, 0.0)
        y = centred / self._divisor(centred, np.where(live, variance, 1.0))
        y *= live & ~(live & ~there).any(1, keepdims=True)
        return self._filled(y, live).astype(np.float32)

    def _set_origin(self, raw: Values, there: NDArray[np.bool_]) -> None:
        """The first sample of a component, taken from all: a large offset costs no digits."""
        first = np.argmax(there, 0)
        new = np.isnan(self._origin) & there.any(0)
        self._origin[new] = raw[first[new], new]

    def _faded(self, there: NDArray[np.bool_], x: Values) -> tuple[Values, Values, Values]:
        """Weights, values and squares of the past, each ``N C``, summed with exponential fading."""
        found = []
        for j, values in enumerate((there.astype(float), x, x * x)):
            y, end = lfilter([1.0], [1.0, -self.fade], values, axis=0, zi=self._sums[j][None])
            self._sums[j] = end[0]
            found.append(y)
        return found[0], found[1], found[2]

    def _recent(self, there: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Where a component has had a finite sample within the memory, ``N C``."""
        place = np.arange(1, len(there) + 1)[:, None]
        last = np.maximum.accumulate(np.concatenate([-self._age[None], np.where(there, place, -self.memory)]), 0)[1:]
        age = place - last
        self._age = np.minimum(age[-1], self.memory)
        return age < self.memory

    def _divisor(self, centred: Values, variance: Values) -> Values:
        """What samples are divided by, ``N C``."""
        if self.cfg.normalise is Normalise.none:
            return np.ones_like(centred)
        if self.cfg.normalise is not Normalise.peak:
            return np.sqrt(variance)
        rise = np.arange(1, len(centred) + 1)[:, None] / self.memory
        with np.errstate(divide="ignore"):  # log 0 is −∞, which no maximum keeps
            logs = np.concatenate([np.log(self._peak)[None], np.log(np.abs(centred)) + rise])
        peak = np.exp(np.maximum.accumulate(logs, 0)[1:] - rise)
        self._peak = peak[-1]
        return np.where(peak > 0, peak, 1.0)

    def _filled(self, y: Values, live: NDArray[np.bool_]) -> Values:
        """Dead components as configured."""
        if self.cfg.missing is Missing.zeros or y.shape[1] == 1:
            return y
        standing = np.take_along_axis(y, live.argmax(1)[:, None], 1)
        return np.where(live, y, standing)
