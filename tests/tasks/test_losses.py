"""Losses against plain loops, and what they do where there is nothing to score."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tasks.contracts import LOSSES
from utils.errors import ConfigError
from utils.registry import import_parts
from utils.rng import Draw

import_parts("tasks.losses")


def draw(traces, seed=0):
    return Draw(seed, torch.zeros(traces, dtype=torch.int64), torch.arange(traces))


def positions(traces=3, most=12, width=6, codes=9, seed=0):
    generator = torch.Generator().manual_seed(seed)
    context, target = torch.randn(2, traces, most, width, generator=generator)
    scored = torch.arange(most) < torch.tensor([most, most // 2, 1])[:traces, None]
    return context, target, torch.randint(codes, (traces, most), generator=generator), scored


def naive(context, target, codes, scored, random, *, count, temperature, whole_batch):
    """The loss as one would write it on paper, position by position."""
    losses, hits = [], []
    traces, most = scored.shape
    everyone = [(b, m) for b in range(traces) for m in range(most) if scored[b, m] and scored[b].sum() >= 2]
    own_trace = {b: [m for m in range(most) if scored[b, m]] for b in range(traces)}
    drawn = random.integers("negatives", most, most, count)
    pool = random.integers("negatives/pool", torch.tensor(len(everyone)), most)
    inside = random.integers("negatives", (scored.sum(1) - 1).clamp_min(0)[:, None, None], most, count)
    for b, m in everyone:
        if whole_batch:
            others = [everyone[pool[b, k]] for k in drawn[b, m]]
        else:
            rest = [j for j in own_trace[b] if j != m]
            others = [(b, rest[k]) for k in inside[b, m]]
        logits, hit = [F.cosine_similarity(context[b, m], target[b, m], dim=0) / temperature], True
        for c, j in others:
            similarity = F.cosine_similarity(context[b, m], target[c, j], dim=0) / temperature
            if (c, j) == (b, m) or (codes is not None and codes[c, j] == codes[b, m]):
                hit = False
                continue
            logits.append(similarity)
            hit = hit and bool(similarity < logits[0])
        losses.append(torch.logsumexp(torch.stack(logits), 0) - logits[0])
        hits.append(float(hit))
    return torch.stack(losses).mean(), np.mean(hits), len(losses)


@pytest.mark.parametrize("whole_batch", [False, True], ids=["trace", "batch"])
@pytest.mark.parametrize("coded", [True, False])
def test_info_nce_is_the_naive_loop(whole_batch, coded):
    context, target, codes, scored = positions()
    codes = codes if coded else None
    context, target = context.requires_grad_(), target.requires_grad_()
    loss = LOSSES.build({"_name_": "info_nce", "count": 7, "negatives": "batch" if whole_batch else "trace"})
    got = loss(context, target, codes, scored, draw(3))
    value, accuracy, count = naive(context, target, codes, scored, draw(3), count=7, temperature=0.1, whole_batch=whole_batch)
    torch.testing.assert_close(got.loss, value)
    assert got.accuracy.item() == pytest.approx(accuracy)
    assert got.count == count
    wanted = torch.autograd.grad(value, [context, target])
    torch.testing.assert_close(torch.autograd.grad(got.loss, [context, target]), wanted, rtol=1e-4, atol=1e-6)


def test_scored_positions_may_lie_anywhere():
    context, target, codes, _ = positions()
    scored = torch.rand(3, 12, generator=torch.Generator().manual_seed(3)) < 0.5
    got = LOSSES.build({"_name_": "info_nce", "count": 5})(context, target, codes, scored, draw(3))
    value, accuracy, _ = naive(context, target, codes, scored, draw(3), count=5, temperature=0.1, whole_batch=False)
    torch.testing.assert_close(got.loss, value)
    assert got.accuracy.item() == pytest.approx(accuracy)


def test_guessing_costs_log_101_and_the_truth_nothing():
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(4, 300, 128, generator=generator)
    codes = torch.arange(300).expand(4, 300)
    scored = torch.ones(4, 300, dtype=torch.bool)
    loss = LOSSES.build({"_name_": "info_nce", "temperature": 10.0})
    guess = loss(torch.randn(4, 300, 128, generator=generator), target, codes, scored, draw(4))
    assert guess.loss.item() == pytest.approx(math.log(101), abs=1e-3)
    assert guess.accuracy.item() == pytest.approx(1 / 101, abs=0.01)
    known = LOSSES.build({"_name_": "info_nce"})(target, target, codes, scored, draw(4))
    assert known.accuracy == 1
    assert known.loss < 0.1


def test_a_collapsed_codebook_has_no_accuracy():
    target = torch.ones(2, 20, 8)
    got = LOSSES.build({"_name_": "info_nce"})(target, target, torch.zeros(2, 20, dtype=torch.int64), target[..., 0] > 0, draw(2))
    assert got.loss.item() == pytest.approx(0.0, abs=1e-6)
    assert got.accuracy == 0
    unquantized = LOSSES.build({"_name_": "info_nce"})(torch.randn(2, 20, 8), target, None, target[..., 0] > 0, draw(2))
    assert unquantized.accuracy <= 0.2  # equal targets are told apart by rounding alone


@pytest.mark.parametrize("negatives", ["trace", "batch"])
@pytest.mark.parametrize("alone", [0, 1])
def test_nothing_to_tell_apart_is_zero_not_nan(negatives, alone):
    context, target, codes, _ = positions()
    context.requires_grad_()
    scored = (torch.arange(12) < alone).expand(3, 12)
    got = LOSSES.build({"_name_": "info_nce", "negatives": negatives})(context, target, codes, scored, draw(3))
    got.loss.backward()
    assert got.loss == got.accuracy == got.count == 0
    assert (context.grad == 0).all()


def test_padding_has_no_say():
    context, target, codes, scored = positions()
    loss = LOSSES.build({"_name_": "info_nce"})
    first = loss(context, target, codes, scored, draw(3))
    loud = torch.where(scored[..., None], target, 1e30)
    second = loss(torch.where(scored[..., None], context, -1e30), loud, codes.masked_fill(~scored, 3), scored, draw(3))
    assert first.loss == second.loss


@pytest.mark.parametrize("name", ["info_nce", "masked_mse", "mae", "log_mse"])
def test_losses_are_float32_under_autocast(name):
    loss = LOSSES.build({"_name_": name})
    context, target, codes, scored = positions()
    with torch.autocast("cpu", torch.bfloat16):
        low, high = context.bfloat16(), target.bfloat16()
        if name == "info_nce":
            got = loss(low, high, codes, scored, draw(3)).loss
            wanted = loss(low.float(), high.float(), codes, scored, draw(3)).loss
        else:
            where = spread(scored, high)
            got, wanted = loss(low, high, where)[0], loss(low.float(), high.float(), where)[0]
    assert got.dtype == torch.float32
    assert got == wanted


def spread(scored, wave):
    """Scored values ``B M C`` of which each channel has its own."""
    return scored[..., None] & (torch.rand(wave.shape, generator=torch.Generator().manual_seed(4)) < 0.7)


ERRORS = {
    "masked_mse": lambda e: np.mean(e**2),
    "mse": lambda e: np.mean(e**2),
    "mae": lambda e: np.mean(np.abs(e)),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_are_means_over_scored_values(name):
    guess, wave, _, scored = positions()
    scored = spread(scored, wave)
    value, count = LOSSES.build({"_name_": name})(guess, wave, scored)
    assert value.item() == pytest.approx(ERRORS[name]((guess - wave)[scored].numpy()), rel=1e-5)
    assert count == scored.sum()


def test_log_mse_weighs_traces_by_their_scored_values():
    guess, wave, _, scored = positions()
    scored = spread(scored, wave)
    logs = [np.log(np.mean((guess - wave)[b][scored[b]].numpy() ** 2)) for b in range(3)]
    value, _ = LOSSES.build({"_name_": "log_mse"})(guess, wave, scored)
    assert value.item() == pytest.approx(np.average(logs, weights=scored.sum((1, 2)).numpy()), rel=1e-4)


@pytest.mark.parametrize("name", ["masked_mse", "mse", "mae", "log_mse"])
def test_parts_of_a_batch_average_to_the_whole(name):
    guess, wave, _, scored = positions()
    scored = spread(scored, wave)
    loss = LOSSES.build({"_name_": name})
    whole, total = loss(guess, wave, scored)
    parts = [loss(guess[b : b + 1], wave[b : b + 1], scored[b : b + 1]) for b in range(3)]
    torch.testing.assert_close(sum(value * count for value, count in parts) / total, whole)
    empty = loss(guess, wave, torch.zeros_like(scored))
    assert empty[0] == empty[1] == 0


@pytest.mark.parametrize(("setting", "value"), [("count", 0), ("temperature", 0.0), ("negatives", "nowhere")])
def test_settings_out_of_range(setting, value):
    with pytest.raises(ConfigError, match=setting):
        LOSSES.build({"_name_": "info_nce", setting: value})
