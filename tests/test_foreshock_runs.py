"""Foreshock recipes as a person runs them: pretrain, convert, fine-tune, evaluate, compare seeds, report."""

import json
from pathlib import Path

import foreshock_tables as tables
import numpy as np
import pandas as pd
import pytest
import torch
from composing import composed
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix

from dataloaders import convert_foreshock
from evaluation import class_scores, classification, report
from evaluation import run as runner
from evaluation.class_scores import Answers, Named
from evaluation.scoring import COLUMNS, Bootstrap
from tasks import build
from train import train
from utils import checkpoint
from utils.errors import CheckpointError, ConfigError, DataError

SHARED = [
    "model.d_model=16",
    "dataset.samples=512",
    "loader.batch_size=8",
    "loader.num_workers=0",
    "trainer.accelerator=cpu",
    "trainer.num_sanity_val_steps=0",
    "trainer.max_epochs=1",
    "trainer.max_steps=2",
    "trainer.limit_train_batches=2",
    "trainer.log_every_n_steps=1",
    "logger.tensorboard=false",
]
PRETRAIN = {
    "fore_aftershock/finetune_xlstm_unet": [
        "experiment=contrastive/xlstm_unet_seisbench",
        "loss.count=5",
        "encoder.width=16",
        *SHARED,
        "model.n_layers=1",
        "model.pool=[2]",
    ],
    "fore_aftershock/finetune_pure_mlstm": [
        "experiment=xlstm_large/pure_mlstm_sequential_12m_foundation",
        *SHARED,
        "model.n_layers=2",
        "scheduler.warmup_steps=1",
        "scheduler.total_steps=null",
    ],
}
ON_SIMULATED = ["dataset=synthetic", "dataset.traces=16", "dataset.traces_dev=4", "pictures.enabled=false"]
SYNTHETIC = ["dataset=foreshock_synthetic", "dataset.events=48", "pictures.enabled=false"]


def run(*overrides, run_id):
    config = composed(*overrides, f"run_id={run_id}")
    config["dataset"].pop("dataset_name", None)  # of the recipe's sets, which simulated ones replace
    train(config, list(overrides))
    return Path("runs") / config["experiment_name"] / run_id


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a pretrained checkpoint of each kind and a converted set."""
    root = tmp_path_factory.mktemp("foreshock_runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for name, words in PRETRAIN.items():
            run(*words, *ON_SIMULATED, run_id=name.rpartition("_")[2])
        counts = {"pre": 24, "visso": 6, "post": 30}
        tables.write(root / "in", {part: tables.frame(part, count) for part, count in counts.items()})
        convert_foreshock.main(convert_foreshock.Arguments(input="in", path="nrca"))
        yield root


def finetune(place, name, *more, run_id):
    """A short run of a recipe in the working folder; returns its folder."""
    first = composed(PRETRAIN[name][0])["experiment_name"]
    words = [f"experiment={name}", f"model.checkpoint_path={place}/runs/{first}/{name.rpartition('_')[2]}", *SHARED[1:]]
    if name.endswith("mlstm"):  # the recipe states the published sizes
        words += ["model.d_model=16", "model.n_layers=2"]
    config = composed(*words, *more, f"run_id={run_id}")
    train(config, [*words, *more])
    return Path("runs") / name / run_id


@pytest.mark.parametrize("name", PRETRAIN)
def test_recipes_train_on_pretrained_weights_with_a_frozen_encoder(place, monkeypatch, name):
    monkeypatch.chdir(place)
    folder = finetune(place, name, "dataset.path=nrca", "dataset.before_p=0.5", run_id="one")
    saved = checkpoint.read(folder)
    before = checkpoint.read(saved.config["model"]["checkpoint_path"])
    for key, value in before.weights("network.encoder").items():
        assert torch.equal(saved.weights("network.encoder")[key], value)
    moved = [
        not torch.equal(saved.weights("network.backbone")[key], value)
        for key, value in before.weights("network.backbone").items()
    ]
    assert any(moved)
    table = pd.read_csv(folder / "metrics.csv")
    assert {"val/accuracy", "val/accuracy_Visso", "val/loss"} <= set(table.columns)
    assert (folder / "pictures" / "confusion.png").is_file()
    assert saved.data_spec["classes"][4] == "Visso"


@pytest.fixture(scope="module")
def classifier(place):
    """A run of the U-Net's recipe on the simulated sequence."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        return place / finetune(place, "fore_aftershock/finetune_xlstm_unet", *SYNTHETIC, run_id="simulated")


def test_evaluation_writes_what_reports_read_and_scikit_learn_confirms(place, classifier, monkeypatch):
    monkeypatch.chdir(place)
    folder = classifier
    out = place / "evaluated"
    rows = classification.evaluate(str(folder), None, out, "cpu", Bootstrap(50))
    table, answers = pd.read_csv(out / "metrics.csv"), pd.read_csv(out / "predictions.csv")
    assert tuple(table.columns) == COLUMNS
    assert set(table["source"]) == {"foreshock_synthetic"}
    test = answers[answers["split"] == "test"]
    got = {row.metric: row for row in rows if row.split == "test"}
    classes = build.load_trained(str(folder)).spec["classes"]
    assert got["accuracy"].value == pytest.approx(accuracy_score(test["class"], test["answer"]))
    assert got["balanced_accuracy"].value == pytest.approx(balanced_accuracy_score(test["class"], test["answer"]))
    counts = pd.read_csv(out / "confusion.csv", index_col=0)
    np.testing.assert_array_equal(counts.to_numpy(), confusion_matrix(test["class"], test["answer"], labels=list(classes)))
    assert test[[f"score_{name}" for name in classes]].sum(axis=1).to_numpy() == pytest.approx(1.0)
    assert got["accuracy_Visso"].n == (test["class"] == "Visso").sum()
    assert json.loads((out / "run.json").read_text())["experiment_name"] == "fore_aftershock/finetune_xlstm_unet"
    assert report.write(out).is_file()


def test_the_common_command_evaluates_classifiers_too(place, classifier, monkeypatch):
    monkeypatch.chdir(place)
    out = runner.evaluate(runner.Arguments(checkpoint=str(classifier), dataset="foreshock_synthetic"))
    assert out == classifier / "evaluation" / "foreshock_synthetic"
    assert (out / "confusion.csv").is_file()


def test_the_dataset_asked_for_keeps_what_the_run_knows():
    own = {"_name_": "foreshock_synthetic", "events": 48, "samples": 512, "classes": 2, "normalise": "peak"}
    assert classification.dataset_node(own, None) == own
    assert classification.dataset_node(own, {**own, "dataset_name": ["foreshock_synthetic"]}) == own
    converted = {"_name_": "foreshock_aftershock", "samples": 512, "classes": 2, "normalise": "peak", "path": "nrca"}
    assert classification.dataset_node(own, {**own, "dataset_name": ["nrca"]}) == converted


def test_several_seeds_give_mean_and_spread_on_the_same_events(place, classifier, monkeypatch):
    monkeypatch.chdir(place)
    other = finetune(place, "fore_aftershock/finetune_xlstm_unet", *SYNTHETIC, "seed=2", run_id="other")
    folders = [str(classifier), str(other)]
    rows = {
        row.metric: row
        for row in classification.evaluate(folders, None, place / "seeds", "cpu", Bootstrap(20))
        if row.split == "test"
    }
    alone = [rows[f"accuracy_checkpoint_{number}"].value for number in (1, 2)]
    assert rows["accuracy"].value == pytest.approx(np.mean(alone))
    assert rows["accuracy_spread"].value == pytest.approx(np.std(alone, ddof=1))
    assert rows["accuracy"].n == rows["accuracy_checkpoint_1"].n  # each trace is one, however many look at it
    assert rows["accuracy"].events == rows["accuracy_checkpoint_1"].events


def test_what_cannot_be_evaluated_is_told(place, classifier, monkeypatch):
    monkeypatch.chdir(place)
    pretrained = composed(PRETRAIN["fore_aftershock/finetune_xlstm_unet"][0])["experiment_name"]
    with pytest.raises(CheckpointError, match="task 'contrastive', it classifies nothing"):
        classification.evaluate(f"runs/{pretrained}/unet", None, place / "none", "cpu")
    folder, two = str(classifier), {"_name_": "foreshock_synthetic", "events": 48, "samples": 512, "classes": 2}
    with pytest.raises(DataError, match=r"tells FEQ1, .* apart, the data have FEQ, AEQ\. .*same classes"):
        classification.evaluate(folder, two, place / "none", "cpu")
    with pytest.raises(ConfigError, match="give one set"):
        classification.evaluate(folder, {"dataset_name": ["a", "b"]}, place / "none", "cpu")
    assert not (place / "none").exists()


def answers(seed, event, label, classes=3):
    chance = np.random.default_rng(seed).dirichlet(np.ones(classes), len(label))
    return Answers(np.arange(len(label)), event, label, chance, 0)


def test_intervals_come_from_events_not_traces():
    """Ten copies of every trace are no new evidence: the interval stays as wide."""
    label = np.random.default_rng(0).integers(0, 3, 60)
    once = answers(1, np.arange(60), label)
    tenfold = Answers(np.arange(600), np.repeat(once.event, 10), np.repeat(label, 10), np.repeat(once.chance, 10, axis=0), 0)
    named = Named("test", "x", Bootstrap(400))
    one, ten = (class_scores.score(each, "abc", named)[0] for each in (once, tenfold))
    assert (one.low, one.high, one.value) == pytest.approx((ten.low, ten.high, ten.value))
    assert (ten.n, ten.events) == (600, 60)


def test_checkpoints_on_different_traces_have_no_mean():
    label = np.arange(9) % 3
    other = Answers(np.arange(9) + 1, np.arange(9), label, np.eye(3)[label], 0)
    with pytest.raises(DataError, match="different traces"):
        class_scores.score_seeds([answers(0, np.arange(9), label), other], "abc", Named("test", "x", Bootstrap(5)))


def test_a_class_without_traces_is_undefined_and_says_so():
    label = np.arange(10) % 2
    rows = {
        row.metric: row for row in class_scores.score(answers(0, np.arange(10), label), "abc", Named("test", "x", Bootstrap(5)))
    }
    assert np.isnan(rows["accuracy_c"].value)
    assert rows["accuracy_c"].note == "undefined: no trace of this class"
