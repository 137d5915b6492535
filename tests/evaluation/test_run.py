"""The command, end to end, with a network that has learnt nothing: files, columns, reasons, refusals."""

import json
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from composing import composed

from dataloaders.batch import PICK_CLASSES, DataSpec, Target
from dataloaders.simulator import Simulator, SimulatorConfig
from evaluation.bootstrap import aligned, paired_difference
from evaluation.metrics import residuals
from evaluation.own_data import simulated_set
from evaluation.provenance import init_of
from evaluation.run import Arguments, Baseline, evaluate, main
from evaluation.scoring import COLUMNS, residuals_of
from tasks import build
from utils import checkpoint, cli
from utils.errors import CheckpointError, ConfigError, DataError


def saved(folder, *overrides, spec):
    torch.manual_seed(0)
    module = build.build_module(composed(*overrides), spec).eval()
    (folder / "checkpoints").mkdir(parents=True)
    content = {"state_dict": module.state_dict(), checkpoint.KEY: checkpoint.record(module.config, module.spec)}
    torch.save(content, folder / "checkpoints" / "last.ckpt")
    return folder


@pytest.fixture(scope="session")
def picker_run(tmp_path_factory):
    """A run folder with an untrained picker of the quickstart's kind."""
    spec = DataSpec(samples=2048, target=Target.picks, classes=PICK_CLASSES)
    return saved(tmp_path_factory.mktemp("runs") / "picker", "experiment=quickstart_finetune", "model.d_model=8", spec=spec)


@pytest.fixture(scope="session")
def evaluated(picker_run, simulated_set):
    """Its evaluation on a simulated set."""
    return evaluate(Arguments(checkpoint=str(picker_run), dataset=str(simulated_set), rounds=20, device="cpu"))


def predictions(folder):
    return {path.stem: pd.read_csv(path) for path in folder.glob("pred/*/*/*.csv")}


def test_everything_is_where_it_should_be(evaluated, picker_run):
    assert evaluated == picker_run / "evaluation" / "synthetic"
    assert {path.name for path in evaluated.iterdir()} >= {
        "targets", "pred", "metrics.csv", "metrics.json", "thresholds.json", "calibration.csv", "examples.npz", "run.json",
    }  # fmt: skip
    assert set(predictions(evaluated)) == {"dev_task1", "test_task1", "dev_task23", "test_task23"}
    assert list(evaluated.glob("pred/quickstart_finetune/*/dev_task1.csv"))


def test_metrics_say_why_where_they_are_undefined(evaluated):
    table = pd.read_csv(evaluated / "metrics.csv", keep_default_na=False)
    assert tuple(table.columns) == COLUMNS
    assert {"task1", "task2", "task3", "calibration", "stability", "picks"} == set(table["protocol"])
    assert (table.loc[table["value"] == "", "note"] != "").all()
    assert "nan" not in (evaluated / "metrics.csv").read_text().lower()
    content = json.loads((evaluated / "metrics.json").read_text(), parse_constant=lambda word: pytest.fail(word))
    assert len(content["metrics"]) == len(table)


def test_the_run_says_what_was_evaluated(evaluated):
    about = json.loads((evaluated / "run.json").read_text())
    assert about["experiment_name"] == "quickstart_finetune"
    assert about["training_sets"] == ["synthetic"]
    assert about["init"] == "scratch"
    assert about["seed"] == 42
    assert about["parameters"] > 1000
    assert {"date", "commit", "versions", "checkpoint", "training_fraction", "dataset", "skipped"} <= set(about)


def test_examples_are_what_the_picker_saw(evaluated):
    with np.load(evaluated / "examples.npz") as file:
        kinds, wave, chance, onsets = (file[name] for name in ("kind", "wave", "probabilities", "onsets"))
        assert set(kinds) == {"typical", "worst"}
        assert wave.shape == (len(kinds), 3, 3000) or wave.shape == (len(kinds), 3, 2048)
        assert chance.shape == (len(kinds), wave.shape[2], 3)
        assert chance.sum(-1) == pytest.approx(np.ones(chance.shape[:2]), abs=1e-5)
        assert ((onsets >= -1) & (onsets < wave.shape[2])).all()
        assert (file["phases"][onsets >= 0] >= 0).all()
        assert len(set(file["trace_name"])) == len(kinds)


def test_the_same_again_and_from_its_own_targets(evaluated, picker_run, simulated_set, tmp_path):
    common = {"checkpoint": str(picker_run), "dataset": str(simulated_set), "rounds": 0, "device": "cpu"}
    again = evaluate(Arguments(**common, targets=str(evaluated / "targets"), output=str(tmp_path / "again"), batch_size=7))
    for name, table in predictions(evaluated).items():
        pd.testing.assert_frame_equal(table, predictions(again)[name], rtol=1e-4)
    other = evaluate(Arguments(**common, target_seed=1, output=str(tmp_path / "other")))
    assert not predictions(other)["test_task23"]["start_sample"].equals(predictions(evaluated)["test_task23"]["start_sample"])
    with pytest.raises(DataError, match="predictions cannot be paired"):
        aligned(predictions(evaluated)["test_task23"], predictions(other)["test_task23"])


def test_the_classical_line_is_evaluated_on_the_same_windows_and_paired(evaluated, simulated_set, tmp_path):
    args = Arguments(baseline=Baseline.ar_pick, dataset=str(simulated_set), output=str(tmp_path), rounds=20)
    classical = evaluate(args)
    table = pd.read_csv(classical / "metrics.csv")
    auc = table[(table["metric"] == "auc")]
    assert auc["value"].isna().all()
    assert auc["note"].str.contains("without a score").all()
    assert (
        table[(table["protocol"] == "task3") & (table["metric"] == "within_0.5") & (table["phase"] == "P")]["value"].max() > 0.3
    )
    one, other = aligned(predictions(evaluated)["test_task23"], predictions(classical)["test_task23"])
    mine = (one["phase_label"] == "P").to_numpy()
    shares = [residuals(residuals_of(rows[mine], "P"))["within_0.5"] for rows in (one, other)]
    found = paired_difference(*shares, one.loc[mine, "event"].to_numpy(), rounds=50)
    assert found.low <= found.value <= found.high


def test_simulated_data_are_written_once_and_called_synthetic(picker_run, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    args = Arguments(checkpoint=str(picker_run), traces=40, rounds=0, output=str(tmp_path / "out"), device="cpu")
    out = evaluate(args)
    assert set(pd.read_csv(out / "metrics.csv", keep_default_na=False)["source"]) == {"synthetic", "all"}
    files = list(tmp_path.glob("wavexlstm/*/synthetic/waveforms.hdf5"))
    assert len(files) == 1
    written = files[0].stat().st_mtime_ns
    assert simulated_set(SimulatorConfig(), 42, 40, pytest.fail) == files[0].parent
    assert files[0].stat().st_mtime_ns == written
    assert simulated_set(SimulatorConfig(trace_samples=1000), 1, 10, lambda count: None) != files[0].parent


def test_a_set_that_an_earlier_simulator_wrote_is_not_taken_for_this_ones(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    settings = SimulatorConfig(trace_samples=1000)
    now = simulated_set(settings, 1, 10, lambda count: None)

    class Earlier(Simulator):
        def __call__(self, number):
            made = super().__call__(number)
            return replace(made, wave=made.wave * 2)

    for place in ("evaluation.own_data", "dataloaders.synthesise"):
        monkeypatch.setattr(f"{place}.Simulator", Earlier)
    assert simulated_set(settings, 1, 10, lambda count: None) != now


def test_a_pretraining_checkpoint_is_sent_elsewhere(tmp_path):
    run = saved(tmp_path / "run", "experiment=contrastive/small", "model.d_model=8", spec=DataSpec())
    with pytest.raises(ConfigError, match=r"task 'contrastive' is pretraining.*python -m evaluation\.pretraining"):
        evaluate(Arguments(checkpoint=str(run)))


def test_classes_in_another_order_are_refused(tmp_path):
    spec = DataSpec(samples=2048, target=Target.picks, classes=PICK_CLASSES)
    run = saved(tmp_path / "run", "experiment=quickstart_finetune", "model.d_model=8", spec=spec)
    path = run / "checkpoints" / "last.ckpt"
    content = torch.load(path, weights_only=True)
    content[checkpoint.KEY]["data_spec"]["classes"] = ["N", "P", "S"]
    torch.save(content, path)
    with pytest.raises((CheckpointError, ConfigError), match="P, S, N"):
        evaluate(Arguments(checkpoint=str(run)))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["dataset=x"], "checkpoint = '': must name"),
        (["checkpoint=x", "dataset=a", "dataset_name=[b]"], "give one of them"),
        (["baseline=ar_pick"], "dataset = '': must name a set"),
        (["checkpoint=x", "rounds=-1", "batch_size=0"], "rounds = -1"),
        (["checkpoint=x", "unlabelled=maybe"], "maybe"),
    ],
)
def test_mistakes_of_the_command_line(arguments, said):
    with pytest.raises(ConfigError) as caught:
        cli.parse(Arguments, arguments, where="evaluation.run")
    assert said in str(caught.value)


def test_a_set_without_labels_in_dev_is_refused(picker_run, tmp_path):
    from labelled_sets import HAND, write_hand_set

    folder = write_hand_set(tmp_path / "set", rows=[row for row in HAND if row[1] != "dev"])
    with pytest.raises(DataError, match=r"task1 has no window in split 'dev'\. Left out: "):
        evaluate(Arguments(checkpoint=str(picker_run), dataset=str(folder), device="cpu"))


def test_the_command_ends_with_a_text_where_it_cannot_evaluate(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["evaluation.run", f"checkpoint={tmp_path}"])
    with pytest.raises(SystemExit) as caught:
        cli.run(main, Arguments, where="evaluation.run")
    assert "the folder holds no *.ckpt" in str(caught.value.code)


def test_the_command_leaves_a_report(picker_run, simulated_set, tmp_path, monkeypatch, capsys):
    given = [f"checkpoint={picker_run}", f"dataset={simulated_set}", f"output={tmp_path}", "rounds=5", "device=cpu"]
    monkeypatch.setattr(sys, "argv", ["evaluation.run", *given])
    cli.run(main, Arguments, where="evaluation.run")
    assert (tmp_path / "report.html").stat().st_size > 10_000
    said = capsys.readouterr().out
    assert f"report: {tmp_path / 'report.html'}" in said
    assert "task3 P within_0.1" in said


@pytest.mark.parametrize(
    ("init", "path", "said"),
    [
        ({"weights": "auto"}, None, "scratch"),
        ({"weights": "scratch"}, "p.ckpt", "scratch"),
        ({"weights": "auto"}, "p.ckpt", "pretrained"),
        ({"weights": "pretrained", "freeze": ["encoder"], "thaw_epoch": 3}, "p.ckpt", "pretrained, encoder frozen until epoch 3"),
    ],
)
def test_how_a_run_started(init, path, said):
    assert init_of({"init": init, "model": {"checkpoint_path": path}}) == said


@pytest.mark.data
def test_real_records_are_reported_by_source(real_set, tmp_path):
    out = evaluate(Arguments(baseline=Baseline.ar_pick, dataset=str(real_set), rounds=5, output=str(tmp_path)))
    table = pd.read_csv(out / "metrics.csv", keep_default_na=False)
    test = table[(table["split"] == "test") & (table["metric"] == "mae")].set_index(["source", "phase"])
    assert test.loc[("ncedc_deepdenoiser", "S"), "note"].startswith("undefined: no S onsets")
    assert {source for source, _ in test.index} == {"all", "elep_pnsn", "ncedc_deepdenoiser", "ncedc_phasenet", "obst"}
