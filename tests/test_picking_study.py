"""The study of pickers: who waits for whom, what is not done twice, which learning rate is taken. Nothing is trained here."""

import re
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from benchmarks import picking_study
from benchmarks.picking_study import Arguments
from utils.errors import CheckpointError


class Trainings:
    """Stands in for the processes: writes what a training leaves behind."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.resumed: list[str] = []

    def call(self, _log: Path, *words: str) -> None:
        given = dict(word.partition("=")[::2] for word in words if "=" in word)
        if words[0] != "train.py":
            self.done.append(words[1])
            return
        folder = Path("runs") / given["experiment"] / given["run_id"]
        start = given.get("model.checkpoint_path")
        assert start is None or (Path(start) / "checkpoints" / "last.ckpt").is_file(), f"{folder} began before {start} was there"
        if "train.ckpt_path" in given:
            self.resumed.append(given["train.ckpt_path"])
        (folder / "checkpoints").mkdir(parents=True, exist_ok="train.ckpt_path" in given)
        (folder / "checkpoints" / "last.ckpt").write_text(given["trainer.max_steps"])
        (folder / "checkpoints" / "step_1.ckpt").touch()
        best = {"1e-3": 0.3, "0.001": 0.3, "0.003": 0.1, "0.01": 0.2}.get(given.get("optimizer.lr", ""), 0.5)
        pd.DataFrame({"step": [1, 2], "val/loss": [1.0, best]}).to_csv(folder / "metrics.csv")
        self.done.append(f"{given['experiment']} {given['run_id']}")


@pytest.fixture
def trainings(tmp_path, monkeypatch):
    stand_in = Trainings()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(picking_study, "call", stand_in.call)

    def read(path: Path) -> SimpleNamespace:
        if not path.is_file():
            raise CheckpointError("none")
        return SimpleNamespace(step=int(path.read_text()))

    monkeypatch.setattr(picking_study.checkpoint, "read", read)
    return stand_in


@pytest.mark.parametrize("jobs", [1, 4])
def test_pretraining_comes_first_the_best_rate_is_taken_and_nothing_runs_twice(trainings, jobs):
    args = Arguments(regional="set", seeds=[1, 2], evaluate=False, jobs=jobs)
    picking_study.main(args)
    done = trainings.done
    assert len(done) == len(set(done)) == 2 + 3 * 3 + 3 + 2 * 2 + 5 * 2
    assert {name for name in done if "simulated-contrastive" in name} == {
        "xlstm/fast simulated-contrastive-1-lr0.003",
        "xlstm/fast simulated-contrastive-2-lr0.003",
    }
    assert not any(re.search(r"simulated-\w+-2-lr0.01", name) for name in done)
    trainings.done = []
    picking_study.main(args)
    assert trainings.done == []


def test_what_was_cut_short_goes_on_from_its_last_checkpoint(trainings):
    args = Arguments(regional="set", seeds=[1], arms=["scratch"], rates=[1e-2], evaluate=False)
    last = Path("runs/xlstm/fast/simulated-scratch-1-lr0.01/checkpoints/last.ckpt")
    last.parent.mkdir(parents=True)
    last.write_text(str(args.steps - 1))
    picking_study.main(args)
    assert trainings.resumed == [str(last)]
    assert trainings.done == ["xlstm/fast simulated-scratch-1-lr0.01", "xlstm/fast real-scratch-1"]


def test_a_rate_that_is_known_is_not_tried(trainings):
    known = {"scratch": 1e-2, "phasenet": 1e-3, "eqtransformer": 3e-3}
    picking_study.main(Arguments(regional="set", seeds=[1], evaluate=False, rate=known))
    first = [name.split()[1] for name in trainings.done if "simulated" in name]
    assert sorted(first) == [
        "simulated-contrastive-1-lr0.01",
        "simulated-eqtransformer-1-lr0.003",
        "simulated-phasenet-1-lr0.001",
        "simulated-reconstruction-1-lr0.01",
        "simulated-scratch-1-lr0.01",
    ]


def test_shares_of_labels_are_for_our_arms_alone(trainings, tmp_path):
    whole = tmp_path / "runs" / "study-data" / "4000"
    whole.mkdir(parents=True)
    (whole / "waveforms.hdf5").write_text("waves")
    splits = ["train"] * 600 + ["dev"] * 10 + ["test"] * 30
    pd.DataFrame({"trace_name": range(640), "split": splits}).to_csv(whole / "metadata.csv", index=False)
    picking_study.main(Arguments(fractions=True, seeds=[1], evaluate=False, rates=[3e-3]))
    labels = [name for name in trainings.done if "labels" in name]
    assert len(labels) == 3 * 5
    assert not any("phasenet" in name for name in labels)
    few = pd.read_csv("runs/study-data/4000-480/metadata.csv")
    assert few["split"].value_counts().to_dict() == {"train": 480, "dev": 10, "test": 30}


def test_excluded_sources_stay_in_the_test_split_only(trainings, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "waveforms.hdf5").write_text("waves")
    rows = {"source_dataset": ["a", "a", "b", "b", "b"], "split": ["train", "test", "dev", "train", "test"]}
    pd.DataFrame({**rows, "trace_name": list("vwxyz")}).to_csv(tmp_path / "set" / "metadata.csv", index=False)
    picking_study.main(Arguments(regional="set", exclude=["b"], arms=["phasenet"], seeds=[1], rates=[1e-2], evaluate=False))
    left = pd.read_csv("runs/study-data/set/metadata.csv")
    assert left["trace_name"].tolist() == ["v", "w", "z"]
    assert Path("runs/study-data/set/waveforms.hdf5").read_text() == "waves"


def test_arguments_out_of_range():
    with pytest.raises(ValueError, match="must name a folder"):
        Arguments()
    with pytest.raises(ValueError, match=r"arms = .*must be among scratch"):
        Arguments(regional="set", arms=["phasnet"])
