"""The loss of EQTransformer against one written out in loops, and what unlabelled phases do to it."""

import math

import pytest
import torch

from dataloaders.labels import gaussian_labels
from tasks.contracts import LOSSES
from tasks.losses.eqtransformer import earthquake
from utils.errors import ConfigError

L = 300
# P and S; P alone; noise; P after the S of an earlier earthquake; S alone
ONSETS = torch.tensor([[50, 130], [50, -1], [-1, -1], [200, 60], [-1, 90]])
PHASES = torch.tensor([[0, 1]]).expand(5, 2)


def bce(logit, target):
    p = 1 / (1 + math.exp(-logit))
    return -(target * math.log(p) + (1 - target) * math.log(1 - p))


def loss(**weights):
    return LOSSES.build({"_name_": "eqtransformer", **weights})


def drawn():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, L, 3, generator=generator)
    valid = torch.rand(5, L, generator=generator) > 0.2
    return logits, gaussian_labels(ONSETS, PHASES, L, 20.0), valid


@pytest.mark.parametrize("known", [[[1, 1]] * 5, [[1, 0], [0, 1], [1, 1], [0, 0], [1, 1]]])
def test_it_is_the_weighted_sum_of_three_binary_cross_entropies(known):
    logits, labels, valid = drawn()
    total, count = 0.0, 0
    for b in range(5):
        p, s = ONSETS[b].tolist()
        both = known[b] == [1, 1]
        lasting = range(p, int(p + 1.4 * (s - p)) + 1) if p >= 0 and s > p else ()
        certain = both and ((p >= 0 and s > p) or (p < 0 and s < 0))
        for t in range(L):
            if not valid[b, t] or not any(known[b]):
                continue
            count += 1
            first, second, third = logits[b, t].tolist()
            total += 0.05 * certain * bce(third, float(t in lasting))
            total += 0.4 * known[b][0] * bce(first - third, labels[b, t, 0].item())
            total += 0.55 * known[b][1] * bce(second - third, labels[b, t, 1].item())
    value, number = loss()(logits, labels, valid, torch.tensor(known).bool())
    assert number == count
    torch.testing.assert_close(value, torch.tensor(total / count))


def test_an_unlabelled_phase_teaches_nothing():
    logits, labels, valid = drawn()
    heads = logits.clone().requires_grad_()  # detection, P, S
    scores = torch.stack([heads[..., 1] + heads[..., 0], heads[..., 2] + heads[..., 0], heads[..., 0]], -1)
    known = torch.tensor([[True, False]]).expand(5, 2)
    value, _ = loss()(scores, labels, valid, known)
    (gradient,) = torch.autograd.grad(value, heads)
    torch.testing.assert_close(gradient[..., [0, 2]], torch.zeros(5, L, 2), rtol=0, atol=1e-9)
    assert gradient[..., 1].any()


def test_nothing_to_score_gives_zero():
    logits, labels, valid = drawn()
    value, count = loss()(logits, labels, torch.zeros_like(valid), torch.ones(5, 2, dtype=torch.bool))
    assert value == count == 0


def test_how_long_an_earthquake_lasts():
    lasts, certain = earthquake(gaussian_labels(ONSETS, PHASES, L, 20.0), torch.ones(5, 2, dtype=torch.bool))
    assert certain.tolist() == [True, False, True, False, False]
    assert lasts.sum(1).tolist() == [113, 0, 0, 0, 0]
    assert lasts[0].nonzero()[[0, -1], 0].tolist() == [50, 162]


def test_weights_are_settings():
    logits, labels, valid = drawn()
    known = torch.ones(5, 2, dtype=torch.bool)
    parts = [
        loss(**{**{"detection": 0.0, "p": 0.0, "s": 0.0}, name: 1.0})(logits, labels, valid, known)[0]
        for name in ("detection", "p", "s")
    ]
    torch.testing.assert_close(loss()(logits, labels, valid, known)[0], 0.05 * parts[0] + 0.4 * parts[1] + 0.55 * parts[2])
    with pytest.raises(ConfigError, match="s = -1"):
        loss(s=-1.0)
