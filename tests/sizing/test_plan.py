"""A plan: what it says of a run's length, that it needs no data, and that it leaves nothing."""

from pathlib import Path

import pytest
from composing import composed

import train
from dataloaders.sets.published import TRACES
from sizing.plan import devices_of, length, plan, precision_of
from sizing.table import size
from utils.errors import ConfigError
from utils.planning import run_length

SMALL = ["experiment=contrastive/small", "dataset=seisbench_auto_reg", "dataset.samples=512", "loader.batch_size=4", "plan=true"]


def planned(*overrides):
    return train.train(composed(*SMALL, *overrides), [*SMALL, *overrides])


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEISBENCH_CACHE_ROOT", str(tmp_path / "no sets"))
    return tmp_path


def test_a_plan_touches_no_data_and_writes_nothing(elsewhere, capsys):
    assert planned("plan.rate=100", "trainer.devices=4", "plan.traces=10000", "trainer.max_epochs=5") is None
    said = capsys.readouterr().out
    assert list(Path(elsewhere).iterdir()) == []
    for text in (
        "725.",
        "encoder",
        "FLOP a window",
        "10,000 traces to train on (plan.traces)",
        "(this run)",
        "as given",
        "free",
    ):
        assert text in said, text
    # 625 steps of 16 windows in each of 5 epochs, on four devices that take 100 a second
    assert "3,125" in said
    assert "2:05 min (this run)" in said


def test_without_a_rate_hours_are_a_function_of_it(elsewhere, capsys):
    planned("plan.traces=3600000", "trainer.max_epochs=1", "plan.devices=[]")
    said = capsys.readouterr().out
    assert "no rate was measured for this run" in said
    assert "1,000 h ÷ rate (this run)" in said


def test_a_folder_of_unknown_size_is_said_to_be_one(elsewhere, capsys):
    planned("dataset.dataset_name=[ETHZ,my/set]")
    said = capsys.readouterr().out
    assert "not known of my/set: give plan.traces" in said
    assert "give plan.traces" in said


def test_mistakes_are_told_as_in_any_run(elsewhere):
    with pytest.raises(ConfigError) as told:
        planned("plan.rat=3", "plan.traces=0", "model.d_modle=3")
    for text in ("plan has no setting 'rat'. Did you mean 'rate'?", "traces = 0: must be at least 1", "d_modle"):
        assert text in str(told.value)
    with pytest.raises(ConfigError, match="plan: enabled = 'yess'"):
        train.train(composed("plan=yess"), [])


def test_published_sets_are_counted_by_name(elsewhere):
    config = composed("experiment=contrastive/small", "dataset=seisbench_auto_reg", "dataset.samples=512", "plan=true")
    config["dataset"] |= {"dataset_name": ["ETHZ", "Iquique"], "training_fraction": 0.5}
    assert plan(config).traces == round(0.5 * 0.6 * (36_743 + 13_400))
    assert set(composed("dataset=seisbench_auto_reg")["dataset"]["dataset_name"]) == set(TRACES)


def test_lengths_with_epochs_and_with_steps():
    config = composed("experiment=contrastive/small", "loader.batch_size=10", "trainer.max_epochs=3")
    one, four = (length(config, 1005, 5.0, count) for count in (1, 4))
    assert (one.steps, one.windows, one.hours) == (300, 3000, pytest.approx(3000 / 5 / 3600))
    assert (four.steps, four.windows, four.hours) == (75, 3000, pytest.approx(3000 / 20 / 3600))
    config["trainer"] |= {"max_epochs": -1, "max_steps": 50, "accumulate_grad_batches": 2}
    assert length(config, None, None, 4).windows == 50 * 2 * 40
    config["trainer"] |= {"max_epochs": 1}
    assert length(config, None, None, 4).steps is None


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"max_epochs": 2}, (20, 10)),
        ({"max_epochs": 2, "max_steps": 15}, (15, 10)),
        ({"max_epochs": -1, "max_steps": 33}, (33, 10)),
        ({"max_epochs": 2, "accumulate_grad_batches": 3}, (8, 4)),
        ({"max_epochs": 2, "limit_train_batches": 4}, (8, 4)),
        ({"max_epochs": 2, "limit_train_batches": 0.5}, (10, 5)),
    ],
)
def test_steps_of_a_run(settings, found):
    plain = {"max_steps": -1, "accumulate_grad_batches": 1, "limit_train_batches": 1.0}
    assert run_length(plain | settings, 105, 10) == found


def test_what_is_planned_for():
    assert devices_of({"devices": [0, 2], "num_nodes": 3}) == 6
    assert devices_of({"devices": "auto", "num_nodes": 2}) == 2
    assert precision_of({"precision": "auto", "accelerator": "auto"}) == "bf16-mixed"
    assert precision_of({"precision": "auto", "accelerator": "cpu"}) == "32-true"
    assert precision_of({"precision": "16-mixed", "accelerator": "cpu"}) == "16-mixed"


def test_sizes_in_words():
    assert [size(number) for number in (900, 2.5e6, 246e6, 1.234e9, 5e12)] == ["1 kB", "2.5 MB", "246 MB", "1.23 GB", "5 TB"]


def test_weights_lengthen_an_epoch(elsewhere):
    config = composed("experiment=contrastive/small", "dataset=seisbench_auto_reg", "dataset.samples=512", "plan=true")
    config["dataset"] |= {"dataset_name": ["ETHZ", "Iquique"], "weights": {"Iquique": 2.5}}
    assert plan(config).traces == round(0.6 * (36_743 + 2.5 * 13_400))
