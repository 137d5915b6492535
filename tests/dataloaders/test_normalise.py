"""Repair and normalisation: against NumPy in float64, and under the faults that real records have."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dataloaders.batch import Batch
from dataloaders.normalise import Missing, Normalise, PrepareConfig, mu_law, prepare
from utils.registry import mistakes_in

FAULTS = ["nan", "inf", "flat", "short", "one", "huge", "tiny", "offset", "empty", "nan_component", "none"]


def make(wave: np.ndarray, valid: np.ndarray | None = None, live: np.ndarray | None = None) -> Batch:
    size, samples, channels = wave.shape
    return Batch(
        wave=torch.tensor(wave, dtype=torch.float32),
        valid=torch.ones(size, samples, dtype=torch.bool) if valid is None else torch.tensor(valid),
        live=torch.ones(size, channels, dtype=torch.bool) if live is None else torch.tensor(live),
        index=torch.arange(size),
        epoch=torch.zeros(size, dtype=torch.int64),
    )


def faulty(fault: str, rng: np.random.Generator, samples: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One trace ``L C`` with a fault, its ``valid`` and its ``live``."""
    wave = rng.normal(size=(samples, 3)) * 10.0 ** rng.integers(-3, 5)
    valid, live = np.ones(samples, bool), np.ones(3, bool)
    spots = rng.integers(0, samples, 4)
    if fault == "nan":
        wave[spots, rng.integers(0, 3, 4)] = np.nan
    elif fault == "inf":
        wave[spots, rng.integers(0, 3, 4)] = np.array([np.inf, -np.inf, np.inf, -np.inf])
    elif fault == "flat":
        wave[:] = wave[0]
    elif fault in ("short", "empty"):
        valid[0 if fault == "empty" else samples // 3 :] = False
        wave[~valid] = np.nan
    elif fault == "one":
        live[:] = np.arange(3) == rng.integers(3)
        wave[:, ~live] = np.nan
    elif fault == "nan_component":
        wave[:, 1] = np.nan
    else:
        scale = np.abs(wave).max()
        wave = {"huge": wave / scale * 3e38, "tiny": wave * 1e-30, "offset": wave / scale * 1e5 + 1e9, "none": wave}[fault]
    return wave.astype(np.float32), valid, live


@settings(deadline=None, max_examples=40)
@given(
    faults=st.lists(st.sampled_from(FAULTS), min_size=1, max_size=6),
    seed=st.integers(0, 2**31),
    how=st.sampled_from(Normalise),
    missing=st.sampled_from(Missing),
    bits=st.sampled_from([0, 8]),
)
def test_no_fault_reaches_the_network(faults, seed, how, missing, bits):
    rng = np.random.default_rng(seed)
    wave, valid, live = (np.stack(part) for part in zip(*(faulty(fault, rng, 64) for fault in faults), strict=True))
    before = make(wave, valid, live)
    after, counts = prepare(before, PrepareConfig(normalise=how, missing=missing, bits=bits))
    assert after.wave.isfinite().all()
    assert (after.wave[~after.valid] == 0).all(), "padding is zero"
    assert not (after.valid & ~before.valid).any(), "nothing becomes valid"
    assert not (after.live & ~before.live).any()
    keeps = torch.tensor([fault not in ("nan", "inf") for fault in faults])
    assert torch.equal(after.valid[keeps], before.valid[keeps]), "valid is touched only by non-finite samples"
    assert counts["nonfinite_samples"] == (before.valid & ~after.valid).sum()
    spoilt = torch.tensor([fault in ("nan", "inf") for fault in faults])
    lost = ~np.isfinite(wave).all(2) & valid
    assert torch.equal(after.valid[spoilt], (before.valid & ~torch.tensor(lost))[spoilt])
    flat = [name in ("flat", "empty") for name in faults]
    assert counts["flat_traces"] == sum(flat)
    if how is not Normalise.none:
        moving = after.live.any(1)[:, None] & after.live
        peak = after.wave.abs().amax(1)
        assert (peak[moving] > 0.5).all()


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 2**31), how=st.sampled_from([Normalise.std, Normalise.peak, Normalise.none]), length=st.integers(2, 100)
)
def test_equals_float64(seed, how, length):
    rng = np.random.default_rng(seed)
    wave = ((rng.normal(size=(2, 100, 3)) + 100 * rng.normal()) * 10.0 ** rng.integers(-6, 6)).astype(np.float32)
    valid = np.tile(np.arange(100) < length, (2, 1))
    after, _ = prepare(make(wave, valid), PrepareConfig(normalise=how))
    part = wave[:, :length].astype(np.float64)
    part = part - part.mean(1, keepdims=True)
    divisor = {"std": part.std(1, keepdims=True), "peak": np.abs(part).max(1, keepdims=True), "none": 1.0}[how.value]
    scale = np.abs(part / divisor).max()
    # the offset has eaten digits of the input before we see it
    lost = 4 * np.spacing(np.abs(wave).max()) / np.abs(part).max() + 1e-5
    np.testing.assert_allclose(after.wave[:, :length].numpy(), part / divisor, atol=scale * lost)


def test_an_offset_of_a_billion_counts_leaves_the_signal():
    signal = 64.0 * np.round(100 * np.sin(np.arange(4096) / 7))
    wave = np.stack([signal + 1e9, signal - 2e9, signal], -1)[None]
    after, _ = prepare(make(wave), PrepareConfig())
    expect = (signal - signal.mean()) / signal.std()
    np.testing.assert_allclose(after.wave[0, :, 0], expect, atol=1e-4)
    np.testing.assert_allclose(after.wave[0, :, 1], expect, atol=2e-2)  # float32 holds 2e9 in steps of 128


def test_dead_components_are_filled_as_asked():
    rng = np.random.default_rng(0)
    wave = rng.normal(size=(4, 50, 3))
    wave[0, :, 0] = 7.0  # constant: the vertical is dead
    wave[1, :, 2] = np.nan
    live = np.ones((4, 3), bool)
    live[2] = [False, False, True]
    live[3] = False
    copied, counts = prepare(make(wave, live=live), PrepareConfig())
    assert torch.equal(copied.wave[0, :, 0], copied.wave[0, :, 1])
    assert torch.equal(copied.wave[1, :, 2], copied.wave[1, :, 0])
    assert torch.equal(copied.wave[2, :, 0], copied.wave[2, :, 2])
    assert (copied.wave[3] == 0).all() and not copied.valid[3].any()
    assert copied.live.tolist() == [[False, True, True], [True, True, False], [False, False, True], [False] * 3]
    assert copied.valid[:3].all(), "a component that is gone altogether takes no sample of the others with it"
    assert {name: int(value) for name, value in counts.items()} == {
        "nonfinite_samples": 50, "dead_components": 7, "flat_traces": 1, "sparse_traces": 1
    }  # fmt: skip
    zeros, _ = prepare(make(wave, live=live), PrepareConfig(missing=Missing.zeros))
    assert (zeros.wave[0, :, 0] == 0).all() and (zeros.wave[2, :, :2] == 0).all()
    assert torch.equal(zeros.wave[0, :, 1], copied.wave[0, :, 1])


@pytest.mark.parametrize("components", [1, 3])
def test_components_lie_one_after_the_other_as_convolutions_want(components):
    prepared, _ = prepare(make(np.random.default_rng(0).normal(size=(4, 100, 3))), PrepareConfig(d_data=components))
    assert prepared.wave.transpose(1, 2).is_contiguous()


def test_one_component_is_the_vertical():
    wave = np.random.default_rng(1).normal(size=(2, 50, 3))
    alone, _ = prepare(make(wave), PrepareConfig(d_data=1))
    three, _ = prepare(make(wave), PrepareConfig())
    assert torch.allclose(alone.wave, three.wave[..., :1], atol=1e-5) and alone.live.shape == (2, 1)


@settings(deadline=None, max_examples=20)
@given(bits=st.integers(2, 12), seed=st.integers(0, 1000))
def test_mu_law(bits, seed):
    wave = torch.tensor(np.random.default_rng(seed).normal(size=(2, 3, 300)), dtype=torch.float32)
    coarse = mu_law(wave, bits)
    for trace in coarse.reshape(6, 300):
        assert len(trace.unique()) <= 2**bits - 1
    assert torch.allclose(mu_law(-wave, bits), -coarse) and torch.allclose(mu_law(coarse, bits), coarse, atol=1e-5)
    order = wave[0, 0].argsort()
    assert (coarse[0, 0, order].diff() >= 0).all(), "monotone"
    assert torch.equal(mu_law(torch.zeros(1, 3, 5), bits), torch.zeros(1, 3, 5))
    # a level's width in companded amplitude is 1 / steps: half of it is the largest error there
    peak = wave.abs().amax(2, keepdim=True)
    companded = [torch.log1p((2**bits - 1) * (x / peak).abs()) / np.log1p(2**bits - 1) for x in (wave, coarse)]
    assert (companded[0] - companded[1]).abs().max() <= 0.5 / (2 ** (bits - 1) - 1) + 1e-5


@pytest.mark.parametrize(
    ("settings_", "text"),
    [
        ({"bits": 1}, "bits = 1: must be 0 (off) or 2 … 16"),
        ({"d_data": 2}, "d_data = 2: must be 3"),
        ({"normalise": "max"}, "normalise"),
    ],
)
def test_settings_out_of_range(settings_, text):
    assert text in "\n".join(mistakes_in(PrepareConfig, settings_, where="dataset 'x'"))
