"""ar_pick: what ObsPy gives, whatever the units, and nothing where there is nothing."""

import numpy as np
import pytest
import torch
from obspy.signal.trigger import ar_pick

from dataloaders.contracts import SOURCES, Split
from dataloaders.sources import phase_pick  # noqa: F401  registers the source
from evaluation.classical import ar_picks
from utils.errors import DataError

RATE, P, S = 100.0, 2000, 2500


def quake(batch=1, samples=4096, seed=0):
    """Noise, a vertical onset at P and a horizontal one at S: ``B L 3``."""
    wave = np.random.default_rng(seed).standard_normal((batch, samples, 3))
    wave[:, P:, 0] *= 20.0
    wave[:, S:, 1:] *= 40.0
    return torch.from_numpy(wave)


def picked(wave):
    p, s = ar_picks(wave, RATE)
    assert p.shape == s.shape == (len(wave),)
    return p, s


def test_it_is_obspys_picker():
    wave = quake(3)
    p, s = picked(wave)
    for row, (z, n, e) in enumerate(wave.transpose(1, 2).numpy() * 100):
        expected = ar_pick(z, n, e, RATE, 1.0, 20.0, 1.0, 0.1, 4.0, 1.0, 2, 8, 0.1, 0.2)
        np.testing.assert_allclose([p[row] / RATE, s[row] / RATE], expected, atol=0.011)
    assert (np.abs(p - P) <= 10).all()
    assert (np.abs(s - S) <= 100).all()


@pytest.mark.parametrize("factor", [1e-12, 1e-3, 1e9, 1e30])
def test_units_and_offsets_do_not_matter(factor):
    wave = quake()
    np.testing.assert_allclose(picked(factor * (wave + 7.0)), picked(wave), atol=1.01)


def test_padding_shifts_nothing():
    wave = quake()
    for before, after in ((300, 0), (0, 500), (300, 500)):
        p, s = picked(torch.nn.functional.pad(wave, (0, 0, before, after)))
        np.testing.assert_allclose([p - before, s - before], picked(wave), atol=15)


def test_where_there_is_nothing_nothing_is_picked():
    flat, short, dead_z, dead_h = torch.full((1, 4096, 3), 5.0), quake(samples=2600)[:, 2200:], quake(), quake()
    dead_z[..., 0] = 3.0
    dead_h[..., 1:] = 0.0
    for wave in (flat, short, dead_z, torch.full((1, 100, 3), torch.nan), torch.zeros(1, 1, 3), torch.zeros(1, 0, 3)):
        assert np.isnan(picked(wave)).all()
    p, s = picked(dead_h)
    assert abs(p[0] - P) <= 10
    assert np.isnan(s[0])
    assert picked(torch.zeros(0, 4096, 3))[0].shape == (0,)


def test_one_dead_horizontal_is_enough_for_s():
    wave = quake()
    wave[..., 2] = 0.0
    assert abs(picked(wave)[1][0] - S) <= 100


def test_samples_that_are_no_numbers_are_no_end():
    wave = quake()
    wave[0, 100, 0], wave[0, 3000, 1] = torch.nan, torch.inf
    assert abs(picked(wave)[0][0] - P) <= 10


def test_what_it_cannot_read_is_told():
    with pytest.raises(DataError, match=r"needs more than 40 samples a second; the data have 20"):
        ar_picks(quake(), 20.0)
    with pytest.raises(DataError, match=r"components ZNE, got shape \(1, 4096, 1\)"):
        ar_picks(quake()[..., :1], RATE)


@pytest.mark.data
def test_real_records(real_set):
    node = {"_name_": "seisbench_phase_pick", "dataset_name": [str(real_set)], "around_picks": 1.0}
    part = SOURCES.build(node, seed=0).part(Split.test)
    batch = part.__getitems__([(0, position) for position in range(len(part))])
    p, _ = ar_picks(batch.wave, RATE)
    onsets = np.where((batch.onsets >= 0) & (batch.phases == 0), batch.onsets, -(10**6))
    distance = np.abs(onsets - p[:, None]).min(1)[(onsets >= 0).any(1)]
    assert (distance <= 50).mean() > 0.7
