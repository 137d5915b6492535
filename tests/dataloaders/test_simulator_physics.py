"""The simulator's physics against TauP, tensor algebra, spectral estimates and known averages."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from obspy.signal.spectral_estimation import get_nhnm, get_nlnm
from obspy.taup import TauPyModel
from scipy import signal

from dataloaders.simulator import RATE, path, source
from dataloaders.simulator.noise import Noise, peterson
from dataloaders.simulator.travel_times import KM_PER_DEGREE, EarthModel, TravelTimes

ANGLE = st.floats(0, 2 * np.pi)


@pytest.mark.parametrize("model", list(EarthModel))
def test_travel_times_are_those_of_taup(model):
    """At random sources: a millisecond or two nearly everywhere, a sample everywhere."""
    rng = np.random.default_rng(0)
    distance, depth = rng.uniform(0.5, 345, 12), rng.uniform(0.5, 40, 12)
    taup, table = TauPyModel(model.value), TravelTimes(model)
    worst = []
    for wave, phases in (("p", ["p", "P", "Pn", "Pg"]), ("s", ["s", "S", "Sn", "Sg"])):
        rays = table.rays(wave, distance, depth)
        for row in range(len(distance)):
            first = taup.get_travel_times(depth[row], distance[row] / KM_PER_DEGREE, phases)[0]
            worst.append(abs(rays.time[row] - first.time))
            assert rays.crustal[row] >= rays.time[row] - 0.05
            same_branch = abs(rays.ray[row] - first.ray_param / 6371) < 1e-3
            if same_branch and np.abs(depth[row] - np.array([20, 35])).min() > 1:  # the angle jumps where the speed does
                assert np.rad2deg(rays.takeoff[row]) == pytest.approx(first.takeoff_angle, abs=6)
    assert np.quantile(worst, 0.9) < 0.002
    assert max(worst) < 0.01


def _vectors(takeoff, azimuth):
    """Unit vectors of ray, SV and SH in (north, east, down), Aki & Richards 2002, eq. 4.88."""
    cos_i, sin_i, cos_a, sin_a = np.cos(takeoff), np.sin(takeoff), np.cos(azimuth), np.sin(azimuth)
    return (
        np.array([sin_i * cos_a, sin_i * sin_a, cos_i]),
        np.array([cos_i * cos_a, cos_i * sin_a, -sin_i]),
        np.array([-sin_a, cos_a, 0]),
    )


@settings(deadline=None, max_examples=40)
@given(ANGLE, st.floats(0, np.pi / 2), ANGLE, st.floats(0, np.pi), ANGLE)
def test_radiation_is_the_moment_tensor_seen_along_the_ray(strike, dip, rake, takeoff, azimuth):
    cos_s, sin_s, cos_d, sin_d = np.cos(strike), np.sin(strike), np.cos(dip), np.sin(dip)
    slip = np.cos(rake) * np.array([cos_s, sin_s, 0]) + np.sin(rake) * np.array([cos_d * sin_s, -cos_d * cos_s, -sin_d])
    normal = np.array([-sin_d * sin_s, sin_d * cos_s, -cos_d])
    tensor = np.outer(slip, normal) + np.outer(normal, slip)
    ray, sv, sh = _vectors(takeoff, azimuth)
    angles = (np.array([value]) for value in (strike, dip, rake, takeoff, azimuth))
    found = np.concatenate(source.radiation(*angles))
    np.testing.assert_allclose(found, [ray @ tensor @ ray, sv @ tensor @ ray, sh @ tensor @ ray], atol=1e-12)


def test_radiation_over_the_focal_sphere():
    rng = np.random.default_rng(1)
    count = 40_000
    takeoff, azimuth = np.arccos(rng.uniform(-1, 1, count)), rng.uniform(0, 2 * np.pi, count)
    p, sv, sh = source.radiation(np.full(count, 0.3), np.full(count, 0.9), np.full(count, -1.2), takeoff, azimuth)
    assert np.sqrt((p**2).mean()) == pytest.approx(source.MEAN_P, rel=0.01)
    assert np.sqrt((sv**2 + sh**2).mean()) == pytest.approx(source.MEAN_S, rel=0.01)


def test_brune_plateau_corner_and_slope():
    corner = np.array([5.0])
    spectrum = source.brune(np.array([1e-3, 5.0, 500.0, 1000.0]), corner)[0]
    assert abs(spectrum[0]) == pytest.approx(1, abs=1e-3)
    assert abs(spectrum[1]) == pytest.approx(0.5, abs=1e-6)
    assert abs(spectrum[2] / spectrum[3]) == pytest.approx(4, rel=1e-3)


def test_corner_scales_with_moment_and_stress_drop():
    """fc ∝ (stress drop / moment)^(1/3), and its value for M 3, 3 MPa from the formula by hand."""
    assert source.corner(np.array([3.0]), np.array([3e6]))[0] == pytest.approx(2.34 * 3460 / (2 * np.pi) / 179.65, rel=0.02)
    low, high = source.corner(np.array([2.0, 4.0]), np.array([3e6, 3e6]))
    assert low / high == pytest.approx(10.0)
    weak, strong = source.corner(np.array([3.0, 3.0]), np.array([1e6, 8e6]))
    assert strong / weak == pytest.approx(2.0)


def test_nothing_arrives_before_the_arrival():
    """The pulse of source and path, causal by its phase: no energy in the second half of the circle."""
    length = 8192
    frequency = np.fft.rfftfreq(length, 1 / 800.0)
    spectrum = source.brune(frequency, np.array([4.0])) * path.Attenuation(frequency)(np.array([0.1]))
    pulse = np.fft.irfft(spectrum[0], length)
    assert np.abs(pulse[length // 2 :]).max() < 2e-3 * np.abs(pulse).max()
    assert np.argmax(pulse) < 0.3 * 800


def test_attenuation_is_that_of_a_power_law():
    frequency = np.array([1.0, 4.0, 16.0])
    found = np.abs(path.Attenuation(frequency)(np.array([0.08]))[0])
    np.testing.assert_allclose(found, np.exp(-np.pi * frequency * 0.08 * frequency**-path.EXPONENT), rtol=1e-5)


def test_scattered_energy():
    """Forward-scattered energy is all there; single scattering falls with the square of time far behind the direct wave."""
    time = np.arange(-100, 4000, dtype=np.float32)[None] / 100
    broad = path.broadened(time, np.array([0.7]))
    assert broad.sum() / 100 == pytest.approx(1, abs=1e-3)
    assert not broad[time <= 0].any()
    coda = path.single_scattered(time, np.array([1.0]), np.array([0.05]), np.array([0.0]))
    assert not coda[time < 0].any()
    at_10, at_20 = (float(coda[0, np.searchsorted(time[0], t - 1)]) for t in (10.0, 20.0))
    assert at_10 / at_20 == pytest.approx(4, rel=0.03)


@pytest.mark.parametrize("level", [0.08, 0.5, 0.88])
def test_noise_lies_between_the_models_of_peterson(level):
    """Welch's estimate from the time series, as acceleration, on 10 traces of 5 minutes, 0.1 to 10 Hz."""
    length = 30_000
    noise = Noise(3, length)
    velocity = np.fft.irfft(noise.spectrum(np.arange(10), np.full((10, 6), level)), length)
    frequency, power = signal.welch(velocity, RATE, nperseg=4096, axis=2)
    band = (frequency >= 0.1) & (frequency <= 10)
    acceleration = 10 * np.log10(power.mean(0)[:, band] * (2 * np.pi * frequency[band]) ** 2)
    low, high = (np.interp(-np.log(frequency[band]), np.log(p[::-1]), d[::-1]) for p, d in (get_nlnm(), get_nhnm()))
    assert (acceleration > low).all()
    assert (acceleration < high).all()
    assert np.abs((acceleration - low) / (high - low) - level).mean() < 0.05


def test_noise_models_are_those_of_obspy():
    frequency = np.geomspace(0.003, 10, 400)
    for ours, (periods, decibel) in zip(peterson(frequency), (get_nlnm(), get_nhnm()), strict=True):
        theirs = np.interp(np.log(1 / frequency), np.log(periods[::-1]), decibel[::-1]) - 20 * np.log10(2 * np.pi * frequency)
        np.testing.assert_allclose(ours, theirs, atol=0.3)


def test_components_of_noise_share_the_microseism_and_nothing_else():
    length = 8192
    noise = Noise(4, length)
    velocity = np.fft.irfft(noise.spectrum(np.arange(40), np.full((40, 6), 0.4)), length)
    frequency, coherence = signal.coherence(velocity[:, 0], velocity[:, 1], RATE, nperseg=1024, axis=1)
    slow, fast = (frequency > 0.1) & (frequency < 0.8), frequency > 2
    assert coherence[:, slow].mean() > coherence[:, fast].mean() + 0.05
