"""The simulated sequence: what changes through it, that it can be learnt in part, and that it says what it is."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dataloaders.contracts import Split
from dataloaders.simulator import Simulator
from dataloaders.sources.foreshock_synthetic import (
    FIRST_NUMBER,
    ForeshockSynthetic,
    ForeshockSyntheticConfig,
    _simulator_config,
    placed,
)

BANDS = ((1, 2), (2, 4), (4, 6), (6, 9), (9, 13), (13, 18), (18, 25), (25, 35))


def opened(seed=0, **changes):
    return ForeshockSynthetic(ForeshockSyntheticConfig(**{"events": 40, "samples": 1536, **changes}), seed=seed)


def spectra(source, split):
    """Logarithmic power in eight bands of two windows, and the classes."""
    part = source.part(split)
    batch = part.__getitems__([(0, n) for n in range(len(part))])
    frequency, found = np.fft.rfftfreq(768, 0.01), []
    for start in (250, 700):
        power = (np.abs(np.fft.rfft(batch.wave[:, start : start + 768].numpy(), axis=1)) ** 2).mean(2)
        found += [np.log(power[:, (frequency >= low) & (frequency < high)].mean(1) + 1e-9) for low, high in BANDS]
    return np.stack(found, 1), batch.label.numpy()


@pytest.mark.parametrize(("change", "low", "high"), [(1.0, 0.45, 0.95), (0.0, 0.0, 0.42)])
def test_four_classes_can_be_told_apart_in_part_and_only_where_something_changes(change, low, high):
    source = opened(events=300, classes=4, change=change)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000)).fit(*spectra(source, Split.train))
    assert low < model.score(*spectra(source, Split.test)) < high


def test_attenuation_and_stress_drop_change_through_the_mainshock():
    source = opened(events=400)
    cfg, days = source.cfg, source.timeline.days
    number = np.arange(800)
    scene = Simulator(_simulator_config(cfg), cfg.simulation_seed).draw(number + FIRST_NUMBER)
    quakes = placed(scene, cfg, source.timeline, number).quakes
    stretches = [(-90, -60), (-5, 0), (0, 3), (60, 90)]
    quality, stress = (
        [np.median(value[(days[:800] > low) & (days[:800] < high)]) for low, high in stretches]
        for value in (quakes.quality, quakes.stress_drop)
    )
    assert quality[0] > quality[1] > quality[3] > quality[2]
    assert stress[1] > 2 * stress[0]
    assert stress[3] > stress[2]
    assert stress[1] > 4 * stress[2]


@pytest.mark.parametrize(("change", "kilometres"), [(1.0, 6.0), (0.0, 0.0)])
def test_visso_lies_apart_only_where_something_changes(change, kilometres):
    source = opened(events=400, change=change)
    cfg, number = source.cfg, np.arange(900)
    scene = Simulator(_simulator_config(cfg), cfg.simulation_seed).draw(number + FIRST_NUMBER)
    quakes = placed(scene, cfg, source.timeline, number).quakes
    visso = source.timeline.sequence == "visso"
    assert abs(quakes.distance[visso].mean() - quakes.distance[~visso].mean() - kilometres) < 0.5
    if change == 0:
        assert abs(np.log(quakes.quality[visso]).mean() - np.log(quakes.quality[~visso]).mean()) < 0.05


def test_a_trace_depends_on_its_number_alone():
    one, other = opened(seed=1).part(Split.test), opened(seed=2, training_fraction=0.2).part(Split.test)
    batch = one.__getitems__([(0, 3), (0, 5)])
    assert torch.equal(batch.wave, pickle.loads(pickle.dumps(other)).__getitems__([(7, 5), (1, 3)]).wave.flip(0))
    assert batch.label.tolist() == one.label[[3, 5]].tolist()
    assert (batch.index >= FIRST_NUMBER).all()
    assert batch.wave.shape == (2, 1536, 3)


def test_splits_share_no_event_and_hold_every_class():
    source = opened()
    parts = [source.part(split) for split in Split]
    events = [set(part.event.tolist()) for part in parts]
    assert not (events[0] & events[1] or events[0] & events[2] or events[1] & events[2])
    assert all(set(part.label.tolist()) == set(range(9)) for part in parts)


def test_it_is_always_named_synthetic():
    assert "simulated, no real earthquakes" in opened().describe()


@pytest.mark.parametrize(("setting", "value"), [("events", 3), ("change", -1.0), ("distance_km", 900.0), ("samples", 100)])
def test_settings_out_of_range(setting, value):
    with pytest.raises(ValueError, match=f"{setting} = {value}"):
        ForeshockSyntheticConfig(**{setting: value})
