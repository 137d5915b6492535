"""Impulses of P and S at a station: direct waves, their crustal and converted companions, and scattered energy between."""

from dataclasses import dataclass

import numpy as np

from dataloaders.simulator import path, source
from dataloaders.simulator.dice import white
from dataloaders.simulator.draw import Quakes
from dataloaders.simulator.settings import RATE
from dataloaders.simulator.station import Stations
from dataloaders.simulator.travel_times import Rays, TravelTimes, hypocentral

_SPEED_KM = {"p": source.CRUST_P / 1e3, "s": source.CRUST_S / 1e3}
_SCATTERED = {"p": np.array([0.76, 0.46, 0.46]), "s": np.array([0.42, 0.64, 0.64])}
"""Amplitudes of scattered waves on Z, N, E; their squares sum to 1."""
_HEAD_WAVE = 0.35
"""Amplitude of a first arrival that ran below the crust, over that of the crustal wave that follows it."""

_CONVERTED = 0.2
"""Amplitude of P turned S (and S turned P) at the base of the soil, over that of the direct wave."""
_STRAIGHT = 0.6
"""Share of a wave's energy that the rough ground around source and station leaves in one pulse."""


@dataclass(frozen=True)
class Wave:
    """One wave, P or S, of ``E`` earthquakes at their stations.

    Attributes:
        kind: ``p`` or ``s``.
        onset: ``E``, s after the start of the trace.
        rays: travel times and angles.
        strength: ``E``, plateau of the displacement's spectrum without radiation pattern, m s.
        direct: ``E 3``, radiation pattern on Z, N, E.
        corner: ``E``, Hz.
        t_star: ``E``, s at 1 Hz.
    """

    kind: str
    onset: np.ndarray
    rays: Rays
    strength: np.ndarray
    direct: np.ndarray
    corner: np.ndarray
    t_star: np.ndarray


def arrive(kind: str, quakes: Quakes, stations: Stations, station: np.ndarray, times: TravelTimes) -> Wave:
    """The wave ``kind`` of earthquakes.

    Args:
        kind: ``p`` or ``s``.
        quakes: ``E`` of them.
        stations: all stations.
        station: ``E``, which of them records.
        times: travel times.
    """
    rays = times.rays(kind, quakes.distance, quakes.depth)
    speed = source.CRUST_P if kind == "p" else source.CRUST_S
    far = path.spreading(hypocentral(quakes.distance, quakes.depth))
    strength = 2 * source.moment(quakes.magnitude) * far / (4 * np.pi * source.DENSITY * speed**3)
    p, sv, sh = source.radiation(quakes.strike, quakes.dip, quakes.rake, rays.takeoff, quakes.azimuth)
    below = stations.surface_p[station] if kind == "p" else stations.surface_s[station]
    sin_i = np.clip(rays.ray * below, 0, 0.95)
    cos_i = np.sqrt(1 - sin_i**2)
    zero = np.zeros_like(p)
    vertical, radial, transverse = (p * cos_i, p * sin_i, zero) if kind == "p" else (-sv * sin_i, sv * cos_i, sh)
    cos_a, sin_a = np.cos(quakes.azimuth), np.sin(quakes.azimuth)
    direct = np.stack([vertical, radial * cos_a - transverse * sin_a, radial * sin_a + transverse * cos_a], 1)
    quality = quakes.quality * (1.5 if kind == "p" else 1.0)
    corner = source.corner(quakes.magnitude, quakes.stress_drop, p_wave=kind == "p")
    return Wave(kind, quakes.origin + rays.time, rays, strength, direct, corner, rays.time / quality)


def impulses(wave: Wave, quakes: Quakes, delay: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """A wave as impulses of displacement at the surface; a spectrum of source and path makes ground motion of it.

    Energy that forward scattering takes out of the direct wave arrives just behind it; the coda follows single scattering.

    Args:
        wave: of ``E`` earthquakes.
        quakes: the same earthquakes.
        delay: ``E``, of a conversion below the station, s.
        noise: ``E 3 L`` float32, white, variance 1; overwritten.

    Returns:
        ``E 3 L`` float32, in m s (the plateau of the spectrum).
    """
    length, span = noise.shape[2], hypocentral(quakes.distance, quakes.depth)
    later = wave.rays.crustal - wave.rays.time
    split = later > 0.2
    first, main = np.where(split, _HEAD_WAVE, 1.0), wave.onset + later
    coherent = _STRAIGHT * np.exp(-quakes.scatter * span)
    width = 0.06 + quakes.scatter * span / _SPEED_KM[wave.kind]
    energy = _envelope(
        wave, quakes, np.arange(length, dtype=np.float32) / np.float32(RATE), first**2 * (1 - coherent), split, width
    )
    mean = source.MEAN_P if wave.kind == "p" else source.MEAN_S
    energy = np.sqrt(energy * np.float32(1 / RATE)) * (wave.strength * mean).astype(np.float32)[:, None]
    noise *= energy[:, None]
    noise *= _SCATTERED[wave.kind].astype(np.float32)[None, :, None]
    straight = wave.strength[:, None] * wave.direct * np.sqrt(coherent)[:, None]
    _strike(noise, wave.onset, straight * first[:, None])
    _strike(noise, main, straight * np.where(split, 1.0, 0.0)[:, None])
    turned = np.roll(straight, 1, axis=1) * _CONVERTED
    _strike(noise, main + delay if wave.kind == "p" else main - delay, turned)
    return noise


def _envelope(
    wave: Wave, quakes: Quakes, time: np.ndarray, early: np.ndarray, split: np.ndarray, width: np.ndarray
) -> np.ndarray:
    """Scattered energy over that of the direct wave, ``E L`` float32, 1/s."""
    lapse = time - wave.onset.astype(np.float32)[:, None]
    later = (wave.rays.crustal - wave.rays.time).astype(np.float32)
    frequency = np.clip(wave.corner, 1.0, 8.0)
    loss = 2 * np.pi * frequency ** (1 - path.EXPONENT) / quakes.coda_quality
    energy = path.broadened(lapse, width) * early.astype(np.float32)[:, None]
    rows = np.flatnonzero(split)
    energy[rows] += path.broadened(lapse[rows] - later[rows, None], width[rows]) * (early / _HEAD_WAVE**2)[rows, None]
    rate = quakes.scatter * _SPEED_KM[wave.kind]
    energy += path.single_scattered(lapse - later[:, None], wave.rays.crustal, rate, loss)
    return energy


def _strike(train: np.ndarray, onset: np.ndarray, size: np.ndarray) -> None:
    """Adds an impulse of ``size`` (``E 3``) at ``onset`` (``E``, s), shared by two samples; none outside the trace."""
    place = onset * RATE
    left = np.floor(place).astype(np.int64)
    share = place - left
    for offset, weight in ((0, 1 - share), (1, share)):
        at = left + offset
        rows = np.flatnonzero((at >= 0) & (at < train.shape[2]))
        train[rows, :, at[rows]] += (size * weight[:, None])[rows].astype(np.float32)


def scattering_noise(seed: int, quakes: Quakes, index: np.ndarray, length: int) -> np.ndarray:
    """White noise to scatter with, ``E 3 L``: its own for each earthquake, also for two in one trace.

    Args:
        seed: of the virtual dataset.
        quakes: ``E`` of them.
        index: ``E``, number of the trace of each.
        length: samples.
    """
    noise = np.empty((len(index), 3, length), np.float32)
    for stream, which in (("coda", ~quakes.second), ("coda/second", quakes.second)):
        if which.any():
            noise[which] = white(seed, index[which], stream, 3, length)
    return noise
