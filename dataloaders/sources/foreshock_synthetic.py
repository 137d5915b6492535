"""A simulated sequence around a mainshock, always named synthetic: the stand-in where the published data are not at hand.

What changes through the sequence is what laboratory and field studies report of faults before and after failure: attenuation
grows slowly while cracks open, jumps with the mainshock's damage and heals; stress drops rise before and are low after. Events
scatter around both, so that a single seismogram tells its place in time only in part. Nothing here claims to be a real sequence.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np
import torch

from dataloaders.batch import Batch, DataSpec, Target
from dataloaders.contracts import SOURCES, Outlook, Source, Split
from dataloaders.foreshock.classes import POST, PRE, VISSO, class_names
from dataloaders.foreshock.sequence import ClassesConfig, EventPart, sort_traces
from dataloaders.simulator import RATE, Simulator, SimulatorConfig
from dataloaders.simulator.dice import Dice
from dataloaders.simulator.draw import Quakes, Scene
from dataloaders.simulator.travel_times import travel_times
from utils.errors import demand

FIRST_NUMBER = 3 << 40
"""Number of the first trace: far from those of ``dataset=synthetic``, so that no earthquake is in both."""
DAYS = 90.0
"""Length of the sequence before and after the mainshock."""
_KNOTS_DAYS = np.array([-90.0, -20.0, -0.01, 0.01, 15.0, 90.0])
_QUALITY = np.array([260.0, 200.0, 130.0, 60.0, 85.0, 150.0])
"""Q of S at 1 Hz along the knots: falls, jumps down, heals."""
_STRESS_MPA = np.array([1.5, 3.0, 8.0, 0.8, 1.2, 2.5])
"""Median stress drop along the knots: rises, is released, recovers."""
_VISSO_DAYS, _VISSO_SHIFT_KM, _VISSO_QUALITY = (-3.9, -1.0), 6.0, 1.35


@dataclass(kw_only=True)
class ForeshockSyntheticConfig(ClassesConfig):
    """Settings of a simulated sequence; event ``i`` depends on ``simulation_seed`` and ``i`` alone."""

    events: int = 1600
    """Events before the mainshock, and as many after it; a quarter as many at Visso where there are 9 classes."""
    simulation_seed: int = 42
    """Which earthquakes and which station; not the run's seed. 0 or more."""
    change: float = 1.0
    """Strength of the change in attenuation and stress drop, and of what sets Visso apart: 0 leaves nothing to learn."""
    distance_km: float = 30.0
    """Epicentral distance of the source region from the station."""

    def __post_init__(self) -> None:
        super().__post_init__()
        demand(
            (12 <= self.events < 1 << 30, f"events = {self.events}: must be 12 … 2^30 − 1"),
            (0 <= self.simulation_seed < 2**32, f"simulation_seed = {self.simulation_seed}: must be 0 … {2**32 - 1}"),
            (0 <= self.change <= 3, f"change = {self.change}: must be 0 … 3"),
            (5 <= self.distance_km <= 150, f"distance_km = {self.distance_km}: must be 5 … 150"),
            (self.samples >= 512, f"samples = {self.samples}: must be at least 512, P and S are in the window"),
        )


@dataclass(frozen=True)
class Timeline:
    """``E`` events in time.

    Attributes:
        days: to the mainshock.
        sequence: ``pre``, ``visso`` or ``post``.
    """

    days: np.ndarray
    sequence: np.ndarray


def draw_times(cfg: ForeshockSyntheticConfig) -> Timeline:
    """When events happen: evenly before the mainshock, thinning out after it as Omori's law has it (p = 1, c = 1 day)."""
    number = np.arange(2 * cfg.events + cfg.events // 4)
    share = Dice(cfg.simulation_seed, number + FIRST_NUMBER, "foreshock/time", 1).uniform()
    sequence = np.repeat([PRE, POST, VISSO], [cfg.events, cfg.events, cfg.events // 4])
    omori = (1 + DAYS) ** share - 1
    low, high = _VISSO_DAYS
    days = np.select([sequence == PRE, sequence == POST], [-DAYS * (1 - share), omori], low + (high - low) * share)
    return Timeline(np.where(sequence == POST, np.maximum(days, 1e-3), np.minimum(days, -1e-3)), sequence)


@SOURCES.register("foreshock_synthetic", ForeshockSyntheticConfig)
@final
class ForeshockSynthetic(Source):
    """Simulated foreshocks and aftershocks of one region at one station.

    Args:
        cfg: settings.
        seed: of the run; without influence, windows are fixed.
    """

    def __init__(self, cfg: ForeshockSyntheticConfig, *, seed: int) -> None:
        self.cfg = cfg
        self.spec = self.outlook(cfg).spec
        self.timeline = draw_times(cfg)
        number = np.arange(len(self.timeline.days))
        name = np.array([f"synthetic_{each}" for each in number])
        self.sorted = sort_traces(cfg, name, self.timeline.days * 86400, self.timeline.sequence, number + FIRST_NUMBER)

    @classmethod
    def outlook(cls, cfg: ForeshockSyntheticConfig) -> Outlook:
        """Only the classes."""
        names = class_names(cfg.classes)
        spec = DataSpec(channels=cfg.d_data, samples=cfg.samples, rate=RATE, target=Target.event_class, classes=names)
        return Outlook(spec, None, "not known before the sequence is drawn: give plan.traces", stored=False)

    def part(self, split: Split) -> "SyntheticSequencePart":
        """The events of a split."""
        events = self.sorted.traces(split)
        return SyntheticSequencePart(self.cfg, self.timeline, events, self.sorted.label[events], self.spec)

    def describe(self) -> str:
        """That it is synthetic, how strongly it changes, and events of each class and split."""
        head = f"foreshock_synthetic: simulated, no real earthquakes; change {self.cfg.change:g}, seed {self.cfg.simulation_seed}"
        return f"{head}\n{self.sorted.table(self.spec.classes)}"


@final
class SyntheticSequencePart(EventPart):
    """One split of :class:`ForeshockSynthetic`.

    Args:
        cfg: as of the source.
        timeline: of all events.
        events: numbers of those of this split.
        label: their classes.
        spec: of its batches.
    """

    def __init__(
        self, cfg: ForeshockSyntheticConfig, timeline: Timeline, events: np.ndarray, label: np.ndarray, spec: DataSpec
    ) -> None:
        self.cfg, self.timeline, self.label, self.spec = cfg, timeline, label, spec
        self.event = events.astype(np.int64) + FIRST_NUMBER
        self._events = events
        self._simulator: Simulator | None = None

    def __len__(self) -> int:
        """Number of events; each has one trace."""
        return len(self._events)

    def __getstate__(self) -> dict[str, object]:
        """What travels to a worker process: the settings; tables are made again there."""
        return {**self.__dict__, "_simulator": None}

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> Batch:
        """The traces at ``(epoch, position)``; they do not depend on the epoch."""
        epoch, position = np.asarray(keys, np.int64).reshape(-1, 2).T
        if self._simulator is None:
            self._simulator = Simulator(_simulator_config(self.cfg), self.cfg.simulation_seed)
        numbers = self._events[position]
        scene = self._simulator.draw(numbers + FIRST_NUMBER)
        traces = self._simulator.render(placed(scene, self.cfg, self.timeline, numbers))
        return Batch(
            wave=torch.from_numpy(np.ascontiguousarray(traces.wave)).transpose(1, 2),
            valid=torch.from_numpy(traces.valid),
            live=torch.from_numpy(traces.live),
            index=torch.from_numpy(numbers + FIRST_NUMBER),
            epoch=torch.from_numpy(np.ascontiguousarray(epoch)),
            label=torch.from_numpy(self.label[position]),
        )


def _simulator_config(cfg: ForeshockSyntheticConfig) -> SimulatorConfig:
    """One station, one region, magnitudes of a local catalogue; no noise traces, no second events, few faults."""
    return SimulatorConfig(
        trace_samples=cfg.samples,
        magnitude_min=1.0,
        magnitude_max=3.5,
        noise_fraction=0.0,
        second_event_fraction=0.0,
        glitch_fraction=0.02,
        gap_fraction=0.0,
        dead_component_fraction=0.0,
        stations=1,
    )


def placed(scene: Scene, cfg: ForeshockSyntheticConfig, timeline: Timeline, numbers: np.ndarray) -> Scene:
    """A scene moved to the source region, with the attenuation and the stress drops of its time.

    Args:
        scene: ``B`` traces, an earthquake each.
        cfg: of the sequence.
        timeline: of all its events.
        numbers: ``B``, which of them these are.
    """
    quakes = scene.quakes
    dice = Dice(cfg.simulation_seed, numbers + FIRST_NUMBER, "foreshock/quake", 24)
    days, visso = timeline.days[numbers], timeline.sequence[numbers] == VISSO
    distance = cfg.distance_km + dice.normal(0, 1.5) + np.where(visso, _VISSO_SHIFT_KM * cfg.change, 0.0)
    depth = np.clip(8 + dice.normal(0, 1.5), 3.0, 15.0)
    quality = along(days, _QUALITY, cfg.change) * np.where(visso, _VISSO_QUALITY**cfg.change, 1.0) * np.exp(dice.normal(0, 0.12))
    stress = 1e6 * along(days, _STRESS_MPA, cfg.change) * np.exp(dice.normal(0, 0.6))
    p_time = travel_times(_simulator_config(cfg).earth_model).rays("p", distance, depth).time
    here: dict[str, np.ndarray] = {
        "origin": dice.uniform(2.5, 3.5) - p_time,
        "distance": distance,
        "depth": depth,
        "azimuth": 2.1 + dice.normal(0, 0.06),
        "strike": 2.7 + dice.normal(0, 0.25),
        "dip": np.clip(0.8 + dice.normal(0, 0.1), 0.2, 1.5),
        "rake": -np.pi / 2 + dice.normal(0, 0.3),
        "quality": quality,
        "scatter": np.full(len(days), 0.015),
        "coda_quality": 1.2 * quality,
        "stress_drop": stress,
    }
    moved: Quakes = replace(quakes, **here)
    return replace(scene, quakes=moved)


def along(days: np.ndarray, values: np.ndarray, change: float) -> np.ndarray:
    """A property at these times: logarithm linear between the knots, its deviation from the mean scaled by ``change``."""
    logs = np.log(values)
    return np.exp(logs.mean() + change * (np.interp(days, _KNOTS_DAYS, logs) - logs.mean()))
