"""The README's story, command by command, on a moment's training: pretrain, fine-tune, evaluate, pick. And published pickers."""

import re
import shlex
from pathlib import Path

import pandas as pd
import pytest
from composing import composed

from dataloaders import record
from evaluation import pick
from evaluation import run as evaluation_run
from train import train
from utils import checkpoint, cli

ROOT = Path(__file__).resolve().parent.parent
SMALL = ["dataset.samples=1024", "loader.num_workers=0", "trainer.accelerator=cpu", "trainer.num_sanity_val_steps=0"]
MOMENT = [
    *SMALL,
    "dataset.traces=32",
    "dataset.traces_dev=8",
    "loader.batch_size=8",
    "trainer.max_steps=4",
    "trainer.val_check_interval=2",
    "pictures.traces=2",
]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Runs are written into the test's own folder."""
    monkeypatch.chdir(tmp_path)


def told():
    """The commands of the README's story, as words after ``python``."""
    text = (ROOT / "README.md").read_text()
    lines = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)[2].splitlines()
    return [shlex.split(line)[1:] for line in lines]


def started(*words):
    """A run of ``train.py`` in this process."""
    config = composed(*words, *MOMENT)
    train(config, [*words, *MOMENT])
    return Path("runs") / config["experiment_name"] / config["run_id"]


def arguments(tool, schema, words):
    return cli.parse(schema, words[2:], where=tool, words="input" if tool == "pick" else "")


def test_the_story_of_the_readme_from_the_first_command_to_picks():
    simulate, tune, judge, use = told()
    record.main(arguments("record", record.Arguments, [*simulate, "minutes=3", "events=3"]))
    started("experiment=quickstart")
    folder = started(*tune[1:])
    assert [name.rpartition("/")[0] for name in checkpoint.read(folder).lineage] == ["quickstart"]
    assert (folder / "pictures" / "picks.png").is_file()
    evaluation_run.main(arguments("run", evaluation_run.Arguments, [*judge, "traces=40", "rounds=20"]))
    (report,) = folder.glob("evaluation/*/report.html")
    metrics = pd.read_csv(report.with_name("metrics.csv"))
    assert {"task1", "task2", "task3"} <= set(metrics["protocol"])
    pick.main(arguments("pick", pick.Arguments, [*use, "p_threshold=0.001", "s_threshold=0.001"]))
    picks = pd.read_csv("picks.csv")
    assert {"trace_id", "station", "phase", "time", "probability"} <= set(picks.columns)
    assert set(picks["station"]) <= {"XX.S0000"}


PICKING = ["experiment=phase_picking/fine_tune_xlstm_ethz_seislm", "encoder.width=16", "model.d_model=16", "model.n_layers=1"]
ONE_BATCH = ["trainer.limit_train_batches=1", "trainer.limit_val_batches=1", "loader.batch_size=2", "pictures.enabled=false"]


@pytest.mark.parametrize("name", ["ethz", "geofon", "stead"])
def test_the_published_fine_tuning_commands_run(published_sets, name):
    pretraining = ["experiment=contrastive/xlstm_unet_seisbench", *PICKING[1:], *SMALL, *ONE_BATCH, "trainer.max_epochs=1"]
    train(composed(*pretraining, "dataset.dataset_name=[ETHZ]"), pretraining)
    tuning = [f"experiment=phase_picking/fine_tune_xlstm_{name}_seislm", "trainer.max_epochs=1", *SMALL, *ONE_BATCH]
    config = composed(*tuning, "model.checkpoint_path=runs/contrastive/xlstm_unet_seisbench")
    train(config, tuning)
    saved = checkpoint.read(Path("runs") / config["experiment_name"])
    assert saved.step == 1 and saved.config["model"]["d_model"] == 16
    assert saved.data_spec["classes"] == ["P", "S", "N"]
