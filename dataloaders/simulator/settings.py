"""What may be chosen about simulated seismograms."""

from dataclasses import dataclass

from dataloaders.simulator.travel_times import EarthModel
from utils.errors import demand

RATE = 100.0
"""Sampling rate of everything simulated, Hz."""


@dataclass(kw_only=True)
class SimulatorConfig:
    """Which earthquakes, recorded how. Fractions are probabilities, drawn for each trace by itself."""

    trace_samples: int = 6000
    """Length of a whole trace at 100 Hz; windows are cut from it. P arrives in its first half."""
    earth_model: EarthModel = EarthModel.iasp91
    """Earth model of the travel times: iasp91 or ak135."""
    magnitude_min: float = -0.5
    """Smallest moment magnitude. At a distance only those are drawn that a seismologist could see on a quiet day."""
    magnitude_max: float = 5.5
    """Largest moment magnitude; sources are points, so leave out what has a long rupture."""
    b_value: float = 0.7
    """Slope of the Gutenberg–Richter law above what can be seen; nature has 1, less gives more large events."""
    distance_min_km: float = 2.0
    """Smallest epicentral distance."""
    distance_max_km: float = 300.0
    """Largest epicentral distance; the travel-time table ends at 350."""
    depth_max_km: float = 35.0
    """Deepest source; most lie between 3 and 15 km. The table ends at 60."""
    noise_fraction: float = 0.1
    """Traces without an earthquake."""
    second_event_fraction: float = 0.08
    """Traces with an earthquake that have another one, nearby and some seconds later."""
    glitch_fraction: float = 0.06
    """Traces with a spike, a step, or a burst from traffic or footsteps."""
    gap_fraction: float = 0.04
    """Traces with a stretch of missing samples."""
    dead_component_fraction: float = 0.04
    """Traces with one or two dead components."""
    stations: int = 200
    """Number of different stations: soil, sensor, usual noise."""

    def __post_init__(self) -> None:
        fractions = ("noise_fraction", "second_event_fraction", "glitch_fraction", "gap_fraction", "dead_component_fraction")
        values = {name: float(getattr(self, name)) for name in fractions}
        low, high = self.distance_min_km, self.distance_max_km
        demand(
            (512 <= self.trace_samples <= 60_000, f"trace_samples = {self.trace_samples}: must be 512 … 60000"),
            (self.magnitude_min >= -2, f"magnitude_min = {self.magnitude_min}: must be at least -2"),
            (self.magnitude_max <= 7, f"magnitude_max = {self.magnitude_max}: must be at most 7 (sources are points)"),
            (
                self.magnitude_min < self.magnitude_max,
                f"magnitude_min = {self.magnitude_min}: must be below magnitude_max = {self.magnitude_max}",
            ),
            (0.1 <= self.b_value <= 3, f"b_value = {self.b_value}: must be 0.1 … 3"),
            (0.5 <= low < high <= 350, f"distance_min_km = {low}, distance_max_km = {high}: must rise within 0.5 … 350"),
            (2 <= self.depth_max_km <= 60, f"depth_max_km = {self.depth_max_km}: must be 2 … 60"),
            (1 <= self.stations <= 10_000, f"stations = {self.stations}: must be 1 … 10000"),
            *((0 <= value <= 1, f"{name} = {value}: must be 0 … 1") for name, value in values.items()),
        )
