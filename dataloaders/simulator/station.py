"""What a station adds: the soil below it, and the sensor with its digitiser."""

from dataclasses import dataclass

import numpy as np

from dataloaders.simulator.dice import Dice


@dataclass(frozen=True)
class Stations:
    """``S`` stations, all that is fixed about them.

    Attributes:
        surface_s: speed of S below the sensor, km/s; bends rays to the vertical.
        surface_p: of P, km/s.
        resonance_hz: of the soil.
        amplification: at the resonance.
        fmax_hz: above it the ground swallows what comes (Hanks 1982).
        delay: by which a P converted to S at the base of the soil is late, s.
        sensor_hz: natural frequency of the sensor; below it, it is blind.
        sensitivity: counts a m/s.
        noisy: between 0 (as quiet as Peterson's low-noise model) and 1.
    """

    surface_s: np.ndarray
    surface_p: np.ndarray
    resonance_hz: np.ndarray
    amplification: np.ndarray
    fmax_hz: np.ndarray
    delay: np.ndarray
    sensor_hz: np.ndarray
    sensitivity: np.ndarray
    noisy: np.ndarray


_SENSORS_HZ = np.array([1 / 120, 1 / 60, 1 / 30, 0.2, 1.0, 1.0, 2.0, 4.5])


def draw_stations(seed: int, count: int) -> Stations:
    """``count`` stations; station ``s`` is a function of (seed, s)."""
    dice = Dice(seed, np.arange(count), "station", 12)
    surface_s = dice.log_uniform(0.4, 2.5)
    return Stations(
        surface_s=surface_s,
        surface_p=surface_s * dice.uniform(1.75, 2.4),
        resonance_hz=dice.log_uniform(0.6, 9.0),
        amplification=dice.log_uniform(1.0, 5.0),
        fmax_hz=dice.log_uniform(9.0, 30.0),
        delay=dice.uniform(0.1, 0.9),
        sensor_hz=_SENSORS_HZ[dice.integers(len(_SENSORS_HZ))],
        sensitivity=dice.log_uniform(3e8, 2e9),
        noisy=dice.uniform(0.1, 0.75),
    )


def soil(frequency: np.ndarray, stations: Stations) -> np.ndarray:
    """Site response, ``S F`` complex64: one damped resonance over bedrock, and two poles at fmax. Causal, 1 at low frequency."""
    f0, gain = stations.resonance_hz[:, None], stations.amplification[:, None]
    s = 1j * frequency[None]
    damped = s * f0 / 2.0
    resonance = 1 + (gain - 1) * damped / (f0 * f0 + s * s + damped)
    return (resonance / (1 + s / stations.fmax_hz[:, None]) ** 2).astype(np.complex64)


def recorder(frequency: np.ndarray, stations: Stations) -> np.ndarray:
    """Counts a m/s, ``S F`` complex64.

    An inertial sensor (damping 0.707) and the digitiser's linear-phase anti-alias filter (30 … 50 Hz), which rings a little
    before a sharp onset, as real ones do.
    """
    s, natural = 1j * frequency[None], stations.sensor_hz[:, None]
    sensor = s * s / (s * s + np.sqrt(2) * s * natural + natural * natural)
    alias = np.cos(np.pi / 2 * np.clip((frequency - 30) / 20, 0, 1)) ** 2
    return (stations.sensitivity[:, None] * sensor * alias).astype(np.complex64)
