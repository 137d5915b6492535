"""PhaseNet and EQTransformer in the whole job: a run, its checkpoint as a picker and as SeisBench's own model."""

import argparse

import numpy as np
import obspy
import pytest
import torch
from composing import composed
from seisbench_sets import seisbench_quiet

from benchmarks import pick_continuous
from dataloaders.batch import PICK_CLASSES, DataSpec, Target, raw_batch
from dataloaders.contracts import SOURCES, Split
from dataloaders.normalise import prepare
from evaluation.picker import Picker
from tasks import build
from train import train

BASELINES = ["baseline/phasenet", "baseline/eqtransformer"]
SMALL = [
    "loader.batch_size=4",
    "loader.num_workers=0",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=1",
    "trainer.limit_train_batches=2",
    "trainer.limit_val_batches=1",
    "pictures.enabled=false",
    "logger.tensorboard=false",
]
SYNTHETIC = ["dataset=synthetic", "dataset.samples=512", "dataset.traces=16", "dataset.traces_dev=4"]


def hour_of(seconds):
    """A short stream of noise, in place of the benchmark's hour."""
    generator = np.random.default_rng(0)
    header = {"network": "XX", "station": "SIM", "sampling_rate": 100.0}
    samples = generator.standard_normal((3, 100 * seconds)).astype(np.float32)
    return obspy.Stream([obspy.Trace(row, {**header, "channel": f"HH{name}"}) for name, row in zip("ZNE", samples, strict=True)])


@pytest.mark.parametrize("experiment", BASELINES)
def test_a_run_ends_in_a_picker_with_seisbenchs_own_numbers(experiment, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    overrides = [f"experiment={experiment}", *SYNTHETIC, *SMALL]
    train(composed(*overrides, "run_id=run"), overrides)
    picker = Picker.load(f"runs/{experiment}/run")
    batch = raw_batch(100 * torch.randn(2, 512, 3))
    chance = picker(batch)
    assert chance.shape == (2, 512, 3)
    wave = prepare(batch, picker.module.prepare_cfg)[0].wave.transpose(1, 2)
    with seisbench_quiet():
        import seisbench.models as theirs

        net = theirs.PhaseNet(phases="PSN") if "phasenet" in experiment else theirs.EQTransformer(in_samples=512)
    net.load_state_dict(picker.module.network.backbone.net.state_dict())
    with torch.inference_mode():
        output = net.eval()(wave)
        if "phasenet" in experiment:
            expected = output.transpose(1, 2)
        else:
            _, p, s = output
            expected = torch.stack([p * (1 - s), s * (1 - p), (1 - p) * (1 - s)], -1) / (1 - p * s)[..., None]
    torch.testing.assert_close(chance, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("experiment", BASELINES)
def test_it_learns_a_batch(experiment):
    config = composed(f"experiment={experiment}", *SYNTHETIC)
    torch.manual_seed(0)
    module = build.build_module(config, DataSpec(samples=512, target=Target.picks, classes=PICK_CLASSES)).train()
    part = SOURCES.build(config["dataset"], seed=0).part(Split.train)
    raw = part.__getitems__([(0, position) for position in range(8)])
    batch, _ = prepare(raw, module.prepare_cfg)
    optimizer = torch.optim.Adam(module.parameters(), lr=3e-3)
    losses = []
    for _ in range(40):
        output = module.task.step(module.network, batch, module.draw(raw, evaluating=False))
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        losses.append(output.loss.item())
    assert losses[-1] < 0.6 * losses[0]


def test_the_benchmark_lets_all_sides_take_turns():
    args = argparse.Namespace(
        ours=["quickstart_finetune"], override=["model.d_model=8"], checkpoint=[], batch=2, overlap=0.5, rounds=1
    )
    with seisbench_quiet():
        lines = pick_continuous.compare("cpu", hour_of(100), args)
    assert [line.split()[1] for line in lines] == [
        "quickstart_finetune",
        "PhaseNet",
        "EQTransformer",
        "PhaseNet",
        "EQTransformer",
    ]


def test_the_benchmark_refuses_a_side_that_leaves_something_out():
    class Lazy:
        """Annotates the first half."""

        def annotate(self, stream, **given):
            half = np.ones(len(stream[0]) // 2)
            return obspy.Stream([obspy.Trace(half, {"channel": f"Lazy_{phase}"}) for phase in "PS"])

    args = argparse.Namespace(batch=2, overlap=0.5)
    with pytest.raises(AssertionError, match="Lazy annotated 500 of 1000 samples with P"):
        pick_continuous.demand_whole(pick_continuous.Side(Lazy(), {}, []), "Lazy", hour_of(10), args)
