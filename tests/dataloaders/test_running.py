"""Preparation of a live record: the recursion written down, pieces, gain and offset, gaps, dead components."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dataloaders.batch import raw_batch
from dataloaders.normalise import Missing, Normalise, PrepareConfig, prepare
from dataloaders.running import RunningPreparation
from utils.errors import DataError


def record(samples, seed=0, gaps=0.0):
    rng = np.random.default_rng(seed)
    wave = rng.normal(size=(samples, 3)) * [1.0, 30.0, 500.0] + [0.0, 1e3, -1e6]
    wave[rng.random((samples, 3)) < gaps] = np.nan
    return wave


def by_hand(wave, how, memory):
    """One component without gaps, sample by sample."""
    fade, weight, total, squares, peak, out = math.exp(-1 / memory), 0.0, 0.0, 0.0, 0.0, []
    for x in wave - wave[0]:
        weight, total, squares = fade * weight + 1, fade * total + x, fade * squares + x * x
        mean = total / weight
        peak = max(fade * peak, abs(x - mean))
        std = math.sqrt(max(squares / weight - mean**2, 0))
        spread = {Normalise.std: std, Normalise.running: std, Normalise.peak: peak, Normalise.none: 1.0}[how]
        out.append((x - mean) / spread if spread else 0.0)
    return np.array(out)


@pytest.mark.parametrize("how", list(Normalise))
def test_it_is_the_recursion(how):
    wave = record(300)
    got = RunningPreparation(PrepareConfig(normalise=how), 50)(wave)
    assert got.dtype == np.float32
    for component in range(3):
        np.testing.assert_allclose(got[:, component], by_hand(wave[:, component], how, 50), rtol=1e-5, atol=1e-5)


@given(st.lists(st.integers(0, 200), max_size=8), st.sampled_from(list(Normalise)), st.sampled_from([0.0, 0.1, 0.9]))
@settings(deadline=None, max_examples=30)
def test_pieces_are_the_whole(cuts, how, gaps):
    wave, cfg = record(200, gaps=gaps), PrepareConfig(normalise=how)
    prepare = RunningPreparation(cfg, 20)
    got = np.concatenate([prepare(piece) for piece in np.array_split(wave, sorted(cuts))])
    np.testing.assert_allclose(got, RunningPreparation(cfg, 20)(wave), rtol=1e-6, atol=1e-7)


def test_gain_and_offset_of_the_instrument_do_not_matter():
    wave = record(500)
    plain, other = (RunningPreparation(PrepareConfig(), 100)(x) for x in (wave, 1e5 * wave + 3e9))
    np.testing.assert_allclose(other[5:], plain[5:], atol=1e-3)


def test_steady_noise_comes_out_as_a_window_of_it_would():
    got = RunningPreparation(PrepareConfig(), 2000)(record(20_000))
    assert np.abs(got[10_000:].mean(0)).max() < 0.05
    np.testing.assert_allclose(got[10_000:].std(0), 1, atol=0.05)


def test_a_gap_is_zero_in_all_components_and_forgotten_in_none():
    wave = record(400)
    wave[200:230, 1] = np.nan
    got = RunningPreparation(PrepareConfig(), 100)(wave)
    assert np.isfinite(got).all()
    assert not got[200:230].any()
    assert (np.abs(got[230:240]).max(0) > 0.1).all()


@pytest.mark.parametrize("dead", [np.nan, 7.0])
@pytest.mark.parametrize("missing", list(Missing))
def test_a_dead_component_becomes_what_windows_of_it_become(missing, dead):
    wave = record(300)
    wave[:, 0] = dead
    got = RunningPreparation(PrepareConfig(missing=missing), 50)(wave)
    np.testing.assert_array_equal(got[:, 0], got[:, 1] if missing is Missing.copy else 0)
    assert got[5:, 1:].any(0).all()


def test_a_component_that_stays_away_stops_silencing_the_others():
    wave = record(300)
    wave[100:, 2] = np.nan
    got = RunningPreparation(PrepareConfig(missing=Missing.zeros), 50)(wave)
    assert not got[101:149].any()
    assert got[150:, :2].all()


def test_a_record_without_a_sample_is_zero():
    assert not RunningPreparation(PrepareConfig(), 50)(np.full((100, 3), np.nan)).any()


def test_levels_of_a_windows_peak_are_refused():
    with pytest.raises(DataError, match=r"bits = 8: mu-law levels are relative to a window's peak"):
        RunningPreparation(PrepareConfig(bits=8), 50)


@given(st.integers(0, 1000), st.integers(2, 300), st.booleans())
@settings(deadline=None, max_examples=20)
def test_windows_normalised_as_running_are_what_a_stream_from_their_start_is(seed, samples, gap):
    wave = record(samples, seed)
    if gap and samples > 20:
        wave[10:15] = np.nan
    cfg = PrepareConfig(normalise=Normalise.running)
    window, _ = prepare(raw_batch(torch.from_numpy(wave[None]).float()), cfg)
    expected = RunningPreparation(cfg, samples)(wave.astype(np.float32))
    np.testing.assert_allclose(window.wave[0].numpy(), expected, atol=2e-3)  # offsets have eaten digits of float32 windows


def test_what_comes_later_changes_nothing_in_a_running_window():
    wave = torch.from_numpy(record(200)[None]).float()
    onset = 49 * (wave - wave.mean(1, keepdim=True))
    other = torch.cat([wave[:, :120], (wave + onset)[:, 120:]], 1)
    a, b = (prepare(raw_batch(x), PrepareConfig(normalise=Normalise.running))[0].wave[:, :120] for x in (wave, other))
    torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)
