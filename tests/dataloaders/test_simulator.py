"""Traces as a whole: labels, sizes, what is damaged, and that they depend on nothing but seed and number."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataloaders.simulator import RATE, Simulator, SimulatorConfig
from dataloaders.simulator.faults import FULL_SCALE
from dataloaders.simulator.travel_times import TravelTimes

SOUND = {"glitch_fraction": 0.0, "gap_fraction": 0.0, "dead_component_fraction": 0.0, "stations": 20}
SHORT = {"trace_samples": 2000, "stations": 20}


@pytest.fixture(scope="module")
def simulator():
    return Simulator(SimulatorConfig(noise_fraction=0.0, second_event_fraction=0.0, **SOUND), seed=1)


@pytest.fixture(scope="module")
def traces(simulator):
    return simulator(np.arange(48))


def _ground(simulator, scene):
    """Ground velocity of the earthquakes alone, below the anti-alias filter: one a trace, ``B 3 N``."""
    spectrum = simulator.ground(scene.quakes, scene.index, scene.station)
    spectrum *= np.cos(np.pi / 2 * np.clip((simulator.frequency - 30) / 20, 0, 1)) ** 2
    return np.fft.irfft(spectrum, simulator.length)[..., : simulator.cfg.trace_samples]


def test_onsets_are_origin_plus_travel_time(simulator, traces):
    quakes = traces.scene.quakes
    table = TravelTimes(simulator.cfg.earth_model)
    for kind, column in (("p", 0), ("s", 1)):
        exact = (quakes.origin + table.rays(kind, quakes.distance, quakes.depth).time) * RATE
        found = traces.onsets[quakes.row, column]
        there = found >= 0
        assert there.mean() > 0.8
        assert ((found - exact)[there] >= 0).all()
        assert ((found - exact)[there] < 1).all()
        assert (there == (exact <= simulator.cfg.trace_samples - 1)).all()


def test_ground_is_still_before_p_and_moves_after(simulator, traces):
    motion = _ground(simulator, traces.scene)
    for row, onset in zip(traces.scene.quakes.row, traces.onsets[:, 0], strict=True):
        size = np.abs(motion[row]).max(0)
        assert size[: onset - 3].max() < 0.03 * size.max()
        assert size[onset : onset + 400].max() > 3 * size[: onset - 3].max()


def test_s_is_later_than_p_and_larger_on_horizontals(simulator, traces):
    motion = _ground(simulator, traces.scene)
    p, s = traces.onsets[:, 0], traces.onsets[:, 1]
    both = (p >= 0) & (s >= 0) & (s < simulator.cfg.trace_samples - 600)
    assert (s > p)[both].all()
    larger = []
    for row in np.flatnonzero(both & (s - p > 150)):
        horizontal = np.hypot(motion[row, 1], motion[row, 2])
        larger.append(horizontal[s[row] : s[row] + 600].max() > horizontal[p[row] : s[row] - 100].max())
    assert np.mean(larger) > 0.8


def test_amplitude_falls_with_distance_and_rises_with_magnitude(simulator):
    scene = simulator.draw(np.arange(24))

    def size(**changes):
        quakes = replace(scene.quakes, **{name: np.full(24, value) for name, value in changes.items()})
        return np.sqrt((_ground(simulator, replace(scene, quakes=quakes)) ** 2).sum((1, 2)))

    near, far = (
        size(distance=20.0, magnitude=2.0, depth=8.0, origin=5.0),
        size(distance=80.0, magnitude=2.0, depth=8.0, origin=5.0),
    )
    assert np.median(near / far) > 4
    assert (size(magnitude=4.0) > 10 * size(magnitude=2.0)).all()


def test_range_of_visibility(simulator):
    """From hardly seen to huge: the earthquake's largest acceleration over the noise's root mean square."""
    scene = simulator.draw(np.arange(48))
    silent = replace(scene, quakes=scene.quakes.where(np.zeros(48, bool)))
    noise, total = simulator.counts(silent), simulator.counts(scene)
    ratio = np.abs(np.diff(total - noise)).max((1, 2)) / np.diff(noise).std((1, 2))
    assert np.quantile(ratio, 0.1) < 20
    assert np.quantile(ratio, 0.9) > 100


@settings(deadline=None, max_examples=5)
@given(st.lists(st.integers(0, 2**41), min_size=1, max_size=20, unique=True), st.randoms(use_true_random=False))
def test_a_trace_is_a_function_of_seed_and_number(numbers, random):
    """Whatever else is in the batch, in whatever order, and how often it is asked."""
    simulator = Simulator(SimulatorConfig(**SHORT), seed=5)
    whole = simulator(np.array(numbers))
    order = list(range(len(numbers)))
    random.shuffle(order)
    again = Simulator(SimulatorConfig(**SHORT), seed=5)(np.array(numbers)[order])
    for name in ("wave", "valid", "live", "onsets"):
        np.testing.assert_array_equal(getattr(whole, name)[order], getattr(again, name))
    alone = simulator(np.array(numbers[-1:]))
    np.testing.assert_array_equal(alone.wave[0], whole.wave[-1])


def test_other_seed_other_number_other_trace():
    first = Simulator(SimulatorConfig(**SHORT), seed=5)(np.arange(2))
    other = Simulator(SimulatorConfig(**SHORT), seed=6)(np.arange(2))
    assert not np.array_equal(first.wave[0], other.wave[0])
    assert not np.array_equal(first.wave[0], first.wave[1])


def test_second_events_are_labelled_and_change_nothing_before_them():
    one = Simulator(SimulatorConfig(noise_fraction=0.0, second_event_fraction=0.0, **SOUND), seed=2)(np.arange(12))
    two = Simulator(SimulatorConfig(noise_fraction=0.0, second_event_fraction=1.0, **SOUND), seed=2)(np.arange(12))
    np.testing.assert_array_equal(one.onsets[:, :2], two.onsets[:, :2])
    assert (one.onsets[:, 2:] == -1).all()
    rows = np.flatnonzero(two.onsets[:, 2] > 100)
    assert len(rows) > 4
    for row in rows:
        start = two.onsets[row, 2]
        scale = np.abs(two.wave[row] - one.wave[row]).max()
        assert np.abs(two.wave[row, :, : start - 5] - one.wave[row, :, : start - 5]).max() <= max(1, 0.01 * scale)
        assert scale > 1


def test_noise_has_no_onsets():
    traces = Simulator(SimulatorConfig(noise_fraction=1.0, **SHORT), seed=0)(np.arange(8))
    assert (traces.onsets == -1).all()
    assert len(traces.scene.quakes.row) == 0


def test_damage_is_marked():
    """Gaps are False in ``valid``, dead components in ``live``, both are zero; never all three are dead; gaps have no labels."""
    cfg = SimulatorConfig(gap_fraction=1.0, dead_component_fraction=1.0, glitch_fraction=1.0, noise_fraction=0.0, stations=20)
    traces = Simulator(cfg, seed=3)(np.arange(40))
    assert np.isfinite(traces.wave).all()
    assert (~traces.valid).any(1).all()
    assert (traces.wave.transpose(0, 2, 1)[~traces.valid] == 0).all()
    dead = (~traces.live).sum(1)
    assert set(dead.tolist()) == {1, 2}
    assert (traces.wave[~traces.live] == 0).all()
    assert (traces.wave[traces.live].std(1) > 0).all()
    for row, column in np.argwhere(traces.onsets >= 0):
        assert traces.valid[row, traces.onsets[row, column]]


def test_sound_traces_are_whole_counts_of_24_bits():
    cfg = SimulatorConfig(magnitude_min=5.0, distance_max_km=20.0, noise_fraction=0.0, **SOUND)
    traces = Simulator(cfg, seed=4)(np.arange(16))
    assert traces.valid.all()
    assert traces.live.all()
    assert (traces.wave == np.rint(traces.wave)).all()
    assert np.abs(traces.wave).max() == FULL_SCALE


def test_glitches_touch_only_their_traces():
    calm = Simulator(SimulatorConfig(**SHORT | {"glitch_fraction": 0.0}), seed=7)(np.arange(30))
    rough = Simulator(SimulatorConfig(**SHORT | {"glitch_fraction": 0.3}), seed=7)(np.arange(30))
    changed = (calm.wave != rough.wave).any((1, 2))
    assert 0.1 < changed.mean() < 0.6


@pytest.mark.parametrize(
    ("setting", "value", "rule"),
    [
        ("noise_fraction", 1.5, "noise_fraction = 1.5: must be 0 … 1"),
        ("distance_max_km", 400.0, "must rise within 0.5 … 350"),
        ("magnitude_min", 6.0, "must be below magnitude_max = 5.5"),
        ("trace_samples", 10, "must be 512 … 60000"),
    ],
)
def test_ranges_are_stated(setting, value, rule):
    with pytest.raises(ValueError, match=rule):
        SimulatorConfig(**{setting: value})
