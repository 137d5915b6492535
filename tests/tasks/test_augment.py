"""Augmentation: what it must not touch, what it must do, and that it depends on nothing but the sample's key."""

import math

import pytest
import torch

from dataloaders.normalise import Missing, PrepareConfig, prepare
from tasks.augment import AugmentConfig, augment
from utils.rng import Draw

ALL = AugmentConfig(rotate=True, flip=True, vertical=0.3, noise=0.5)


@pytest.fixture
def batch(make_batch):
    return make_batch(traces=40)


def test_idle_settings_change_nothing(batch, draw_for):
    assert augment(batch, AugmentConfig(), draw_for(batch)) is batch


def test_only_the_wave_changes_and_invalid_samples_stay_zero(batch, draw_for):
    out = augment(batch, ALL, draw_for(batch))
    assert (out.wave[~out.valid] == 0).all() and out.wave.isfinite().all()
    assert all(one is other for one, other in zip(out[1:], batch[1:], strict=True))
    assert (out.wave != batch.wave).any((1, 2))[batch.valid.any(1)].all()


def test_a_window_is_changed_alike_in_any_batch_and_anew_in_every_epoch(batch, draw_for):
    whole = augment(batch, ALL, draw_for(batch)).wave
    few = type(batch)(*(None if part is None else part[5:8] for part in batch))
    torch.testing.assert_close(augment(few, ALL, draw_for(few)).wave, whole[5:8])
    later = augment(batch, ALL, Draw(1, batch.epoch + 1, batch.index)).wave
    assert (later != whole).any((1, 2))[batch.valid.any(1)].all()


def test_rotation_keeps_z_and_the_energy_of_the_horizontals_and_any_angle_is_as_likely(make_batch):
    batch = make_batch(traces=2000, samples=64)
    n, e = torch.ones(64), torch.zeros(64)
    n[32:] = -1  # motion along N alone: after rotation N and E show the angle
    batch = batch._replace(wave=torch.stack([n, n, e], -1).expand(2000, 64, 3).contiguous(), valid=torch.ones(2000, 64) > 0)
    turned = augment(batch, AugmentConfig(rotate=True), Draw(0, batch.epoch, batch.index)).wave
    torch.testing.assert_close(turned[..., 0], batch.wave[..., 0])
    assert abs((turned[:, 0, 1] > 0).float().mean() - 0.5) < 0.05


def test_vertical_shows_copies_of_z_in_the_stated_share(make_batch, draw_for):
    batch = make_batch(traces=1000, samples=128)
    out = augment(batch, AugmentConfig(vertical=0.3), draw_for(batch)).wave
    alone = (out == out[..., :1]).all(2).all(1) & batch.valid.any(1)
    assert abs(alone.float().mean() - 0.3) < 0.05
    torch.testing.assert_close(out[..., 0], batch.wave[..., 0])


def test_flip_is_a_sign(batch, draw_for):
    out = augment(batch, AugmentConfig(flip=True), draw_for(batch)).wave
    sign = (out * batch.wave).sum((1, 2)).sign()
    torch.testing.assert_close(out, batch.wave * sign[:, None, None])
    assert 5 < (sign < 0).sum() < 35


def test_noise_has_the_stated_strength_and_keeps_the_variance(make_batch, draw_for):
    batch = make_batch(traces=400, samples=512)
    white = torch.randn(400, 512, 3, generator=torch.Generator().manual_seed(1))
    batch = batch._replace(wave=white, valid=torch.ones(400, 512) > 0)
    out = augment(batch, AugmentConfig(noise=1.0), draw_for(batch)).wave
    assert abs(out.var().item() - 1) < 0.05
    kept = (out * batch.wave).mean((1, 2))  # 1 / √(1 + level²)
    level = (1 / kept.clamp(max=1) ** 2 - 1).clamp_min(0).sqrt()
    assert level.quantile(0.9) < 1.1 and abs(level.mean() - 0.5) < 0.1
    assert math.isclose(float(kept.max()), 1, abs_tol=0.15)


@pytest.mark.parametrize("missing", ["copy", "zeros"])
@pytest.mark.parametrize("change", [{"rotate": True}, {"noise": 0.5}, {"rotate": True, "noise": 0.5, "flip": True}])
def test_what_stands_in_for_a_missing_component_still_does(make_batch, draw_for, missing, change):
    batch = make_batch(traces=6)
    dead = torch.tensor([[0, 1, 1], [0, 1, 0], [0, 0, 1], [1, 0, 0], [0, 0, 0], [1, 1, 1]]) > 0
    batch, _ = prepare(batch._replace(live=~dead), PrepareConfig(missing=Missing(missing)))
    out = augment(batch, AugmentConfig(**change), draw_for(batch)).wave
    for trace, of_trace in enumerate(dead):
        standing = out[trace, :, int((~of_trace).int().argmax())] * (missing == "copy")
        assert all(torch.equal(out[trace, :, at], standing) for at in of_trace.nonzero()[:, 0]), trace
    assert not torch.equal(out[4, :, 1], batch.wave[4, :, 1])  # with all components it changes


def test_noise_leaves_copies_of_z_copies(make_batch, draw_for):
    batch = make_batch(traces=20)
    out = augment(batch, AugmentConfig(vertical=1.0, noise=0.5), draw_for(batch)).wave
    assert (out == out[..., :1]).all()


@pytest.mark.parametrize("setting", [{"vertical": 1.5}, {"noise": -1.0}])
def test_settings_out_of_range(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        AugmentConfig(**setting)
