"""Which earthquake, on which path, at which station: the parameters of trace ``i``, drawn from realistic ranges."""

from dataclasses import dataclass, fields, replace

import numpy as np

from dataloaders.simulator.dice import Dice
from dataloaders.simulator.noise import draw_levels
from dataloaders.simulator.settings import RATE, SimulatorConfig
from dataloaders.simulator.station import Stations
from dataloaders.simulator.travel_times import hypocentral, travel_times


@dataclass(frozen=True)
class Quakes:
    """``E`` earthquakes as one station each records them.

    Attributes:
        row: of the trace in its batch; a trace has none, one or two.
        second: whether it is the later one of two.
        origin: time of origin, s after the start of the trace; may be negative.
        magnitude: moment magnitude.
        stress_drop: Pa.
        distance: epicentral, km.
        depth: km.
        azimuth: of the station as the source sees it, radians clockwise from north.
        strike: radians.
        dip: radians.
        rake: radians.
        quality: Q of S at 1 Hz.
        scatter: coefficient of scattering, 1/km.
        coda_quality: Q of coda at 1 Hz.
    """

    row: np.ndarray
    second: np.ndarray
    origin: np.ndarray
    magnitude: np.ndarray
    stress_drop: np.ndarray
    distance: np.ndarray
    depth: np.ndarray
    azimuth: np.ndarray
    strike: np.ndarray
    dip: np.ndarray
    rake: np.ndarray
    quality: np.ndarray
    scatter: np.ndarray
    coda_quality: np.ndarray

    def where(self, keep: np.ndarray) -> "Quakes":
        """Those for which ``keep`` (``E`` bool) holds."""
        return Quakes(**{field.name: getattr(self, field.name)[keep] for field in fields(self)})


@dataclass(frozen=True)
class Scene:
    """What ``B`` traces show.

    Attributes:
        index: ``B``, numbers of the traces.
        station: ``B``, numbers of their stations.
        levels: ``B 6``, of the noise.
        quakes: all earthquakes, the first of each trace before all second ones.
    """

    index: np.ndarray
    station: np.ndarray
    levels: np.ndarray
    quakes: Quakes

    def rows(self, low: int, high: int) -> "Scene":
        """The traces ``low … high − 1`` of the batch."""
        quakes = self.quakes.where((self.quakes.row >= low) & (self.quakes.row < high))
        quakes = replace(quakes, row=quakes.row - low)
        return Scene(self.index[low:high], self.station[low:high], self.levels[low:high], quakes)


def smallest_seen(distance: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Magnitude that is just visible on a quiet day at these distances in km: catalogues hold nothing below."""
    return -1.85 + 1.7 * np.log10(hypocentral(distance, depth))


def draw_scene(cfg: SimulatorConfig, seed: int, index: np.ndarray, stations: Stations) -> Scene:
    """Everything about the traces ``index``.

    Args:
        cfg: the ranges.
        seed: of the virtual dataset.
        index: ``B`` integers.
        stations: as :func:`station.draw_stations` gives them for the same seed.
    """
    dice = Dice(seed, index, "trace", 32)
    station = dice.integers(cfg.stations)
    quiet, second = dice.chance(cfg.noise_fraction), dice.chance(cfg.second_event_fraction)
    levels = draw_levels(dice, stations.noisy[station])
    first = _first(cfg, seed, index)
    later = _later(cfg, seed, index, first)
    both = {field.name: np.concatenate([getattr(first, field.name), getattr(later, field.name)]) for field in fields(Quakes)}
    quakes = Quakes(**both).where(np.concatenate([~quiet, ~quiet & second]))
    return Scene(index, station, levels, quakes)


def _first(cfg: SimulatorConfig, seed: int, index: np.ndarray) -> Quakes:
    """One earthquake a trace."""
    dice = Dice(seed, index, "quake", 32)
    low, high = cfg.distance_min_km, cfg.distance_max_km
    distance = low * (high / low) ** dice.uniform() ** 0.8
    depth = np.clip(3 + 8 * dice.uniform() + np.exp(dice.normal(0.3, 1.0)), 1.0, cfg.depth_max_km)
    p_time = travel_times(cfg.earth_model).rays("p", distance, depth).time
    onset = dice.uniform(0.05, 0.5) * cfg.trace_samples / RATE
    return Quakes(
        row=np.arange(len(index)),
        second=np.zeros(len(index), bool),
        origin=onset - p_time,
        magnitude=_magnitude(cfg, dice, smallest_seen(distance, depth)),
        stress_drop=np.exp(dice.normal(np.log(3e6), 1.0)).clip(1e5, 1e8),
        distance=distance,
        depth=depth,
        azimuth=dice.uniform(0, 2 * np.pi),
        strike=dice.uniform(0, 2 * np.pi),
        dip=np.arccos(dice.uniform()),
        rake=dice.uniform(-np.pi, np.pi),
        quality=dice.log_uniform(60, 350),
        scatter=dice.log_uniform(0.005, 0.05),
        coda_quality=dice.log_uniform(90, 400),
    )


def _later(cfg: SimulatorConfig, seed: int, index: np.ndarray, first: Quakes) -> Quakes:
    """An aftershock a trace: the same place to within some km, 3 … 30 s later, of its own size and orientation."""
    dice = Dice(seed, index, "aftershock", 16)
    distance = np.clip(first.distance + dice.normal(0, 2), cfg.distance_min_km, cfg.distance_max_km)
    depth = np.clip(first.depth + dice.normal(0, 1), 1.0, cfg.depth_max_km)
    return replace(
        first,
        second=np.ones(len(index), bool),
        origin=first.origin + dice.uniform(3, 30),
        magnitude=_magnitude(cfg, dice, np.maximum(smallest_seen(distance, depth), first.magnitude - 1)),
        distance=distance,
        depth=depth,
        azimuth=first.azimuth + dice.normal(0, 0.03),
        strike=first.strike + dice.normal(0, 0.3),
        rake=first.rake + dice.normal(0, 0.3),
    )


def _magnitude(cfg: SimulatorConfig, dice: Dice, smallest: np.ndarray) -> np.ndarray:
    """Gutenberg–Richter between what can be seen and the largest."""
    low = np.clip(smallest, cfg.magnitude_min, cfg.magnitude_max - 0.2)
    share = 1 - 10 ** (-cfg.b_value * (cfg.magnitude_max - low))
    return low - np.log10(1 - dice.uniform() * share) / cfg.b_value
