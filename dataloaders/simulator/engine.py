"""The simulator: traces from their numbers, a batch at a time, mostly in the frequency domain."""

from dataclasses import dataclass

import numpy as np
from scipy import fft

from dataloaders.simulator import path, source
from dataloaders.simulator.draw import Quakes, Scene, draw_scene
from dataloaders.simulator.faults import add_faults
from dataloaders.simulator.noise import Noise
from dataloaders.simulator.settings import RATE, SimulatorConfig
from dataloaders.simulator.station import draw_stations, recorder, soil
from dataloaders.simulator.travel_times import travel_times
from dataloaders.simulator.wavefield import arrive, impulses, scattering_noise

_PAD = 256
"""Samples behind the trace, for the pulses of its last impulses: the discrete Fourier transform is a circle."""
_CHUNK = 16
"""Traces rendered at once: what fits a processor's cache."""


@dataclass(frozen=True)
class Traces:
    """``B`` traces.

    Attributes:
        wave: ``B 3 N`` float32, counts, ZNE; 0 in gaps and dead components.
        valid: ``B N`` bool, False in gaps.
        live: ``B 3`` bool, False for dead components.
        onsets: ``B 4`` int64, first sample at or after the arrival of P, S, and P, S of a second event; −1 where there is none
            in the trace, or in a gap.
        scene: what they show.
    """

    wave: np.ndarray
    valid: np.ndarray
    live: np.ndarray
    onsets: np.ndarray
    scene: Scene


PHASES = np.array([0, 1, 0, 1], dtype=np.int64)
"""Beside ``Traces.onsets``: 0 for P, 1 for S."""


class Simulator:
    """Seismograms by number: trace ``i`` is a function of (``cfg``, ``seed``, ``i``).

    Args:
        cfg: what may be chosen.
        seed: of the virtual dataset.
    """

    def __init__(self, cfg: SimulatorConfig, seed: int) -> None:
        self.cfg, self.seed = cfg, seed
        self.length = int(fft.next_fast_len(cfg.trace_samples + _PAD, real=True) or 0)
        frequency = np.fft.rfftfreq(self.length, 1 / RATE)
        self.frequency = frequency
        self.stations = draw_stations(seed, cfg.stations)
        self._times = travel_times(cfg.earth_model)
        self._noise = Noise(seed, self.length)
        self._attenuation = path.Attenuation(frequency)
        self._soil, self._recorder = soil(frequency, self.stations), recorder(frequency, self.stations)
        self._rate = (2j * np.pi * frequency * RATE).astype(np.complex64)

    def __call__(self, index: np.ndarray) -> Traces:
        """The traces with these numbers (``B`` int64)."""
        return self.render(self.draw(index))

    def draw(self, index: np.ndarray) -> Scene:
        """What these traces show, to look at or to change before :meth:`render`."""
        return draw_scene(self.cfg, self.seed, np.asarray(index, np.int64), self.stations)

    def render(self, scene: Scene) -> Traces:
        """The traces of a scene."""
        count = len(scene.index)
        wave = np.empty((count, 3, self.cfg.trace_samples), np.float32)
        for low in range(0, count, _CHUNK):
            high = min(low + _CHUNK, count)
            wave[low:high] = self.counts(scene.rows(low, high))
        valid, live = add_faults(self.cfg, self.seed, scene.index, wave)
        return Traces(wave, valid, live, self.onsets(scene, valid), scene)

    def counts(self, scene: Scene) -> np.ndarray:
        """What sound instruments record, ``B 3 N`` float32, counts (not yet integers)."""
        spectrum = self._noise.spectrum(scene.index, scene.levels)
        if len(scene.quakes.row):
            ground = self.ground(scene.quakes, scene.index, scene.station)
            for which in (~scene.quakes.second, scene.quakes.second):
                spectrum[scene.quakes.row[which]] += ground[which]
        spectrum *= self._recorder[scene.station][:, None]
        wave = np.asarray(fft.irfft(spectrum, self.length, overwrite_x=True))
        return wave[..., : self.cfg.trace_samples]

    def ground(self, quakes: Quakes, index: np.ndarray, station: np.ndarray) -> np.ndarray:
        """Fourier transform of the ground's velocity in earthquakes, ``E 3 F`` complex64, m/s.

        Args:
            quakes: ``E`` of them.
            index: ``B``, number of each trace of the batch.
            station: ``B``, its station.
        """
        station = station[quakes.row]
        delay = self.stations.delay[station]
        noise = scattering_noise(self.seed, quakes, index[quakes.row], self.cfg.trace_samples)
        total = np.zeros((len(station), 3, len(self.frequency)), np.complex64)
        for kind in ("p", "s"):
            wave = arrive(kind, quakes, self.stations, station, self._times)
            scatterers = noise.copy() if kind == "p" else np.roll(noise, 1, axis=1)
            train = np.asarray(fft.rfft(impulses(wave, quakes, delay, scatterers), self.length))
            shape = source.brune(self.frequency, wave.corner) * self._attenuation(wave.t_star)
            train *= shape[:, None]
            total += train
        total *= (self._soil[station] * self._rate)[:, None]
        return total

    def onsets(self, scene: Scene, valid: np.ndarray) -> np.ndarray:
        """Arrivals as :class:`Traces` has them, ``B 4``."""
        out = np.full((len(scene.index), 4), -1, np.int64)
        quakes = scene.quakes
        for kind, column in (("p", 0), ("s", 1)):
            time = quakes.origin + self._times.rays(kind, quakes.distance, quakes.depth).time
            sample = np.ceil(time * RATE).astype(np.int64)
            inside = (sample >= 0) & (sample < self.cfg.trace_samples)
            seen = inside & valid[quakes.row, np.where(inside, sample, 0)]
            out[quakes.row, column + 2 * quakes.second] = np.where(seen, sample, -1)
        return out
