"""Classes of traces: loss, accuracy, averages, the picture, and parts that do not belong together."""

import pytest
import torch
from composing import composed
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss, recall_score

from dataloaders.batch import Batch, DataSpec, Target
from models.contracts import DECODERS, ENCODERS, Backbone
from models.network import Network
from tasks import build
from tasks.contracts import LOSSES, TASKS, Parts
from utils.errors import ConfigError
from utils.rng import Draw

CLASSES = ("FEQ", "Visso", "AEQ")


class Same(Backbone):
    d_in = d_out = 8
    causal = True

    def forward(self, tokens):
        return tokens


def made(loss=None, classes=CLASSES):
    torch.manual_seed(0)
    spec = DataSpec(samples=64, target=Target.event_class, classes=classes)
    encoder = ENCODERS.build({"_name_": "linear"}, d_in=3, d_out=8)
    node = {"_name_": "sequence-classifier", "dropout": 0.0}
    width = TASKS.part("classification").width_out(spec)
    decoder = DECODERS.build(node, d_in=8, d_out=width, stride=encoder.stride, d_wave=3)
    network, scored = Network(encoder, Same(), decoder), LOSSES.build(loss or {"_name_": "cross_entropy"})
    return network, TASKS.build({"_name_": "classification"}, parts=Parts(spec, network, scored, scored, {}, None))


def batch(traces=24, seed=0):
    generator = torch.Generator().manual_seed(seed)
    wave = torch.randn(traces, 64, 3, generator=generator)
    label = torch.randint(-1, len(CLASSES), (traces,), generator=generator)
    valid, index = torch.ones(traces, 64, dtype=torch.bool), torch.arange(traces)
    return Batch(wave, valid, torch.ones(traces, 3, dtype=torch.bool), index, torch.zeros_like(index), label=label)


def step(network, task, data):
    return task.step(network, data, Draw(1, data.epoch, data.index))


def test_loss_and_accuracies_are_those_of_scikit_learn():
    network, task = made()
    data = batch()
    with torch.no_grad():
        out = step(network, task.eval(), data)
        scores = network(data.wave, data.valid)
    known = data.label >= 0
    true, guess = data.label[known].numpy(), scores.argmax(-1)[known].numpy()
    assert out.count == known.sum()
    assert float(out.loss) == pytest.approx(
        log_loss(true, scores[known].double().softmax(-1).numpy(), labels=[0, 1, 2]), rel=1e-5
    )
    assert float(out.logs["accuracy"]) == pytest.approx(accuracy_score(true, guess))
    assert [float(hits / number) for hits, number in out.tallies.values()] == pytest.approx(
        recall_score(true, guess, labels=[0, 1, 2], average=None).tolist()
    )
    assert task.confusion.tolist() == confusion_matrix(true, guess, labels=[0, 1, 2]).tolist()


def test_smoothed_labels_are_the_definition():
    logits, label = torch.randn(5, 4), torch.tensor([0, 3, -1, 2, 2])
    loss = LOSSES.build({"_name_": "cross_entropy", "label_smoothing": 0.2})
    soft = torch.full((5, 4), 0.05)
    soft[torch.arange(5), label] += 0.8
    expected = -(soft * logits.log_softmax(-1)).sum(-1)[label >= 0].mean()
    value, count = loss(logits, label)
    torch.testing.assert_close(value, expected)
    assert count == 4


@settings(deadline=None, max_examples=20)
@given(cut=st.integers(1, 23), seed=st.integers(0, 99))
def test_parts_of_a_batch_average_to_the_whole(cut, seed):
    network, task = made()
    data = batch(seed=seed)
    parts = [Batch(*(None if v is None else v[where] for v in data)) for where in (slice(cut), slice(cut, None))]
    with torch.no_grad():
        whole, first, second = (step(network, task.eval(), each) for each in (data, *parts))
    for value in (lambda o: o.loss, lambda o: o.logs["accuracy"]):
        mean = (value(first) * first.count + value(second) * second.count) / whole.count.clamp_min(1)
        torch.testing.assert_close(mean, value(whole))


def test_no_labelled_trace_gives_zero_and_finite_gradients():
    network, task = made()
    data = batch()._replace(label=torch.full((24,), -1))
    out = step(network, task, data)
    out.loss.backward()
    assert out.loss == 0 and out.count == 0
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())


def test_the_picture_counts_since_the_last_training_step():
    network, task = made()
    data = batch()
    with torch.no_grad():
        step(network, task.eval(), data)
        step(network, task.eval(), data)
        assert task.confusion.sum() == 2 * (data.label >= 0).sum()
        assert set(task.figures(network, data, Draw(1, data.epoch, data.index))) == {"confusion"}
        step(network, task.train(), data)
    assert not task.confusion.any()
    assert task.figures(network, data, Draw(1, data.epoch, data.index)) == {}  # the end of a run must not empty the picture
    assert "confusion" not in task.state_dict()


def test_one_class_is_nothing_to_tell_apart():
    with pytest.raises(ConfigError, match="1 class"):
        made(classes=("FEQ",))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["decoder=linear"],
            "task 'classification' scores one prediction a trace, decoder 'linear' gives another. Set decoder=seq",
        ),
        (["loss=mse"], "task 'classification' takes no loss 'mse'. It takes: cross_entropy"),
        (["decoder=none"], "uses a decoder"),
    ],
)
def test_parts_that_do_not_go_together_are_refused(overrides, said):
    words = ["experiment=fore_aftershock/finetune_xlstm_unet"]
    with pytest.raises(ConfigError) as caught:
        build.check(composed(*words, *overrides))
    assert said in str(caught.value)


def test_a_head_for_traces_is_refused_where_samples_are_scored():
    with pytest.raises(ConfigError, match=r"one prediction a sample, decoder 'sequence-classifier' .* decoder=.*linear"):
        build.check(composed("experiment=reconstruction/small", "decoder=sequence-classifier"))
