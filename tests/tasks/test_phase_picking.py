"""Phase picking: the loss against a plain loop, unlabelled phases, what validation counts, and that a picker learns."""

import dataclasses

import numpy as np
import pytest
import torch

from dataloaders.batch import PICK_CLASSES, DataSpec, Target
from dataloaders.labels import gaussian_labels
from models.contracts import DECODERS, ENCODERS
from models.network import Network
from tasks.contracts import LOSSES, TASKS, Parts
from utils.errors import ConfigError

SPEC = DataSpec(samples=256, target=Target.picks, classes=PICK_CLASSES)
LOSS = {"_name_": "phase_pick"}


def naive(logits, labels, valid, known):
    """−Σ y log p with unlabelled phases merged into noise, sample by sample in float64."""
    p = logits.double().softmax(-1).numpy()
    y = labels.double().numpy()
    found = []
    for b in range(len(p)):
        for sample in np.flatnonzero(valid[b]):
            groups = {(True, True): [[0], [1], [2]], (True, False): [[0], [1, 2]], (False, True): [[1], [0, 2]]}
            groups = groups.get(tuple(known[b].tolist()))
            if groups:
                found.append(-sum(y[b, sample, g].sum() * np.log(p[b, sample, g].sum()) for g in groups))
    return np.mean(found), len(found)


def example(seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(4, 50, 3, generator=generator)
    onsets = torch.tensor([[10, 30], [20, -1], [-1, 25], [-1, -1]])
    labels = gaussian_labels(onsets, torch.tensor([[0, 1]]).expand(4, 2), 50, 5.0)
    valid = torch.rand(4, 50, generator=generator) > 0.2
    known = torch.tensor([[True, True], [True, False], [False, True], [False, False]])
    return logits, labels, valid, known


def test_the_loss_is_the_naive_loop():
    value, count = LOSSES.build(LOSS)(*example())
    expect, number = naive(*example())
    assert count == number
    assert value.item() == pytest.approx(expect, rel=1e-5)


def test_an_unlabelled_phase_is_neither_learnt_nor_unlearnt():
    logits, labels, valid, _ = example()
    known = torch.tensor([[True, False]]).expand(4, 2)
    logits = logits.requires_grad_()
    loss = LOSSES.build(LOSS)
    loss(logits, labels, valid, known)[0].backward()
    # moving probability between S and noise, P held, changes nothing
    p = logits.detach().softmax(-1)
    moved = p.clone()
    moved[..., 1], moved[..., 2] = 0.9 * (p[..., 1] + p[..., 2]), 0.1 * (p[..., 1] + p[..., 2])
    before, after = (loss(each.log(), labels, valid, known)[0] for each in (p, moved))
    torch.testing.assert_close(before, after)
    assert logits.grad is not None and logits.grad.abs().sum() > 0


def test_nothing_to_score_is_zero_and_has_a_gradient():
    logits, labels, valid, known = example()
    logits = logits.requires_grad_()
    value, count = LOSSES.build(LOSS)(logits, labels, valid, torch.zeros_like(known))
    value.backward()
    assert value == 0 and count == 0 and (logits.grad == 0).all()


def build(make, settings=None, spec=SPEC):
    network, _ = make(
        {"_name_": "regression"}, encoder={"_name_": "linear"}, decoder={"_name_": "linear"}, loss={"_name_": "mse"}
    )
    loss = LOSSES.build(LOSS)
    task = TASKS.build({"_name_": "phase_pick", **(settings or {})}, parts=Parts(spec, network, loss, loss, {}, None))
    return network, task


def labelled(batch):
    """Bursts at known onsets, on the batches of the other objectives."""
    onsets = torch.tensor([[60, 140], [40, -1], [30, 200], [-1, -1], [-1, -1]])
    phases = torch.tensor([[0, 1]]).expand(5, 2)
    return batch._replace(onsets=onsets, phases=phases, known=torch.ones(5, 2, dtype=torch.bool))


@pytest.fixture
def oracle():
    """A network that puts P and S where it is told."""

    class Told(torch.nn.Module):
        def __init__(self, p, s):
            super().__init__()
            self.where = p, s

        def forward(self, wave, valid=None):
            scores = torch.zeros(*wave.shape[:2], 3)
            for phase, samples in enumerate(self.where):
                scores[torch.arange(len(samples)), torch.tensor(samples), phase] = 5.0
            return scores

    return Told


def test_validation_counts_arrivals_found_and_no_others(make, make_batch, draw_for, oracle):
    batch = labelled(make_batch())
    _, task = build(make)
    task.eval()
    # P: 8 samples off, exact, 90 off, no arrival, padding; S: exact, no arrival, 11 off, …
    out = task.step(oracle([68, 40, 120, 5, 5], [140, 7, 211, 5, 5]), batch, draw_for(batch))
    found = {name: (int(number), int(of)) for name, (number, of) in out.tallies.items()}
    assert found == {
        "p_within_100ms": (2, 3),
        "p_within_500ms": (2, 3),
        "s_within_100ms": (1, 2),
        "s_within_500ms": (2, 2),
    }
    assert task.train().step(oracle([0] * 5, [0] * 5), batch, draw_for(batch)).tallies == {}


def test_of_several_arrivals_of_a_phase_the_nearest_counts(make, make_batch, draw_for, oracle):
    batch = labelled(make_batch())
    batch = batch._replace(phases=torch.zeros(5, 2, dtype=torch.int64))
    _, task = build(make)
    out = task.eval().step(oracle([140, 40, 200, 5, 5], [0] * 5), batch, draw_for(batch))
    assert [int(part) for part in out.tallies["p_within_100ms"]] == [3, 3]


def test_a_picker_learns_onsets(make, make_batch, draw_for):
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(3)
    batch = labelled(make_batch())
    wave = 0.05 * torch.randn(5, 256, 3, generator=generator)
    time = torch.arange(256.0)
    for b, pair in enumerate(batch.onsets.tolist()):
        for phase, onset in enumerate(pair):
            if onset >= 0:
                wave[b, :, 2 * phase] += torch.where(time >= onset, torch.exp(-(time - onset) / 8), 0.0)
    batch = batch._replace(wave=wave)
    network, task = build(make, {"sigma": 4.0})
    optimizer = torch.optim.Adam(network.parameters(), lr=0.03)
    for _ in range(80):
        optimizer.zero_grad()
        task.train().step(network, batch, draw_for(batch)).loss.backward()
        optimizer.step()
    out = task.eval().step(network, batch, draw_for(batch))
    for name in ("p_within_100ms", "s_within_100ms"):
        number, of = out.tallies[name]
        assert number == of


def test_other_classes_are_refused(make):
    with pytest.raises(ConfigError, match="P, S, N in this order; the data have"):
        build(make, spec=dataclasses.replace(SPEC, classes=("N", "P", "S")))


@pytest.mark.parametrize("name", ["double-conv-phase-pick", "double-conv-phase-pick-concat"])
@pytest.mark.parametrize("stride", [1, 4])
def test_heads_follow_onsets_at_the_sampling_rate(name, stride):
    torch.manual_seed(0)
    encoder = ENCODERS.build({"_name_": "identity"}, d_in=3, d_out=3)
    head = DECODERS.build({"_name_": name}, d_in=6, d_out=3, stride=stride, d_wave=encoder.d_out)
    context, wave = torch.randn(2, -(-50 // stride), 6), torch.randn(2, 50, 3)
    scores = head(context, wave)
    assert scores.shape == (2, 50, 3)
    louder = wave.clone()
    louder[:, 25] += 3.0
    changed = (head(context, louder) - scores).abs().amax((0, 2)) > 1e-6
    if name.endswith("concat"):
        assert changed[25 - 6 : 25 + 7].all() and not changed[: 25 - 6].any() and not changed[25 + 7 :].any()
    else:
        assert not changed.any()


def test_tokens_are_interpolated_between_their_centres():
    from models.decoders.double_conv import at_sampling_rate

    context = torch.arange(5.0)[None, :, None]
    centres = np.arange(5) * 4 + 1.5
    expect = np.interp(np.arange(18), centres, np.arange(5.0))
    torch.testing.assert_close(at_sampling_rate(context, 4, 18)[0, 0], torch.tensor(expect).float())


def test_the_parts_fit_into_a_network(make_batch):
    encoder = ENCODERS.build({"_name_": "identity"}, d_in=3, d_out=3)
    head = DECODERS.build({"_name_": "double-conv-phase-pick-concat"}, d_in=3, d_out=3, stride=1, d_wave=3)

    class Same(torch.nn.Module):
        d_in = d_out = 3
        causal = False

        def forward(self, tokens):
            return tokens

    batch = make_batch()
    assert Network(encoder, Same(), head)(batch.wave, batch.valid).shape == (5, 256, 3)
