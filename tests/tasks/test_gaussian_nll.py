"""Reconstruction that says how sure it is: the likelihood, what it rewards, and how it is wired."""

import numpy as np
import pytest
import torch
from composing import composed, spec_for
from gpu_steps import batch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from dataloaders.normalise import prepare
from tasks import build
from tasks.contracts import LOSSES
from utils.errors import ConfigError


def loss(**setting):
    return LOSSES.build({"_name_": "gaussian_nll", **setting})


def test_it_is_the_mean_negative_log_likelihood_of_what_is_scored():
    generator = torch.Generator().manual_seed(0)
    guess, wave = torch.randn(2, 20, 6, generator=generator) * 3, torch.randn(2, 20, 3, generator=generator)
    where = torch.rand(2, 20, 3, generator=generator) < 0.6
    value, count = loss(floor=0.1)(guess, wave, where)
    deviation = np.sqrt(np.log1p(np.exp(guess[..., 3:].double().numpy())) ** 2 + 0.01)
    expected = -norm.logpdf(wave.numpy(), guess[..., :3].numpy(), deviation)[where.numpy()].mean()
    assert value.item() == pytest.approx(expected, rel=1e-5)
    assert count == where.sum()


@settings(deadline=None, max_examples=20)
@given(loudness=st.floats(0.02, 20.0))
def test_whoever_cannot_know_the_phase_does_best_to_know_the_loudness(loudness):
    wave = torch.randn(1, 4000, 1, generator=torch.Generator().manual_seed(1)) * loudness
    where = torch.ones(1, 4000, 1, dtype=torch.bool)
    sigma = torch.logspace(-2.5, 2, 200)
    raw = torch.where(sigma > 20, sigma, sigma.expm1().log())  # softplus of it is sigma
    values = [loss()(torch.cat([torch.zeros_like(wave), r.expand_as(wave)], -1), wave, where)[0].item() for r in raw]
    assert sigma[int(np.argmin(values))].item() == pytest.approx(loudness, rel=0.06)


def test_silence_and_nothing_scored_are_finite():
    wave = torch.zeros(1, 10, 1)
    guess = torch.full((1, 10, 2), -200.0, requires_grad=True)
    for where in (torch.ones(1, 10, 1, dtype=torch.bool), torch.zeros(1, 10, 1, dtype=torch.bool)):
        value, _ = loss()(guess * torch.tensor([0.0, 1.0]), wave, where)
        value.backward()
        assert torch.isfinite(value)
        assert torch.isfinite(guess.grad).all()


@pytest.mark.parametrize("name", ["masked_mse", "mse", "mae", "log_mse"])
def test_other_losses_read_the_guess_and_nothing_behind_it(name):
    guess, wave, where = torch.randn(2, 9, 6), torch.randn(2, 9, 3), torch.ones(2, 9, 3, dtype=torch.bool)
    other = LOSSES.build({"_name_": name})
    assert other(guess, wave, where)[0] == other(guess[..., :3], wave, where)[0]


@pytest.mark.parametrize("where", ["samples", "tokens"])
def test_the_decoder_predicts_twice_and_what_people_see_is_the_mean(where):
    config = composed("experiment=reconstruction/small", "loss=gaussian_nll", f"task.where={where}", "task.mask.span=10")
    module = build.build_module(config, spec_for(config, samples=512))
    assert module.network.decoder.d_out == 6
    raw = batch(4, 512, "cpu")
    prepared, _ = prepare(raw, module.prepare_cfg)
    draw = module.draw(raw, evaluating=True)
    output = module.task.step(module.network, prepared, draw)
    output.loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.network.parameters())
    guess, hidden = module.task.reconstruct(module.network, prepared, draw)
    assert guess.shape == prepared.wave.shape
    error = (guess - prepared.wave).abs()[hidden].mean()
    assert output.logs["mae"].item() == pytest.approx(error.item(), rel=1e-5)


def test_a_metric_that_reads_what_the_loss_does_not_train_is_refused():
    with pytest.raises(
        ConfigError, match=r"metric 'gaussian_nll' reads predictions that loss 'masked_mse' does not train. Set loss="
    ):
        build.check(composed("experiment=reconstruction/small", "task.loss_val=gaussian_nll"))


def test_the_floor_is_above_nothing():
    with pytest.raises(ConfigError, match=r"floor = 0.0: must be above 0"):
        loss(floor=0.0)
