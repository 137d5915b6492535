"""The table of a sweep: what runs say of themselves, what SLURM says of the others; the exit code is the truth."""

from pathlib import Path

import pandas as pd
import pytest
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import RunMode
from omegaconf import OmegaConf

from utils import sweep
from utils.sweep import Best, Note


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("SLURM_PROCID", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)


def config(number: int, mode: RunMode = RunMode.MULTIRUN):
    words = ["experiment=tiny", f"++seed={number}"]
    hydra = {"mode": mode, "job": {"num": number}, "overrides": {"task": words}}
    return OmegaConf.create({"experiment_name": "tiny", "run_id": "now", "hydra": hydra})


def run(number: int, result: Best | Exception | None) -> None:
    """A run that comes to its end, or to an error."""
    note = Note()
    note.on_job_start(config(number))
    if result is not None:
        done = JobReturn()
        done.status = JobStatus.FAILED if isinstance(result, Exception) else JobStatus.COMPLETED
        done.return_value = result
        note.on_job_end(config(number), done)


def begin() -> None:
    (Path("runs/sweeps/now")).mkdir(parents=True)
    Path("runs/sweeps/now/multirun.yaml").touch()


def test_runs_that_finish_failed_or_were_stopped_have_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    begin()
    run(0, Best("val/loss", 0.25, 40))
    run(1, ValueError("seed = 1: is\n  unlucky"))
    run(2, None)
    with pytest.raises(SystemExit) as end:
        sweep.tell("now")
    assert end.value.code == 1
    table = pd.read_csv("runs/sweeps/now/results.csv")
    assert table["settings"].tolist() == ["seed=0", "seed=1", "seed=2"]
    assert table["state"].tolist() == ["finished", "failed", "running"]
    assert table["best"].tolist()[0] == 0.25
    assert table["folder"][0] == "runs/tiny/now_0"
    shown = capsys.readouterr().out
    assert "1 of 3 runs finished" in shown
    assert "val/loss 0.2500 at step 40" in shown
    assert "seed = 1: is unlucky" in shown


def test_a_sweep_of_which_all_finished_ends_well() -> None:
    begin()
    run(0, Best("val/loss", 0.25, 40))
    sweep.tell("now")


def test_single_runs_have_no_table() -> None:
    Note().on_job_start(config(0, RunMode.RUN))
    sweep.tell("now")
    assert not Path("runs").exists()


def test_the_states_of_arrays() -> None:
    slurm = pytest.importorskip("utils.sweep_slurm", reason="needs the extra slurm")
    said = (
        "JobId=14 ArrayJobId=12 ArrayTaskId=0 JobName=x JobState=COMPLETED Reason=None\n"
        "JobId=12 ArrayJobId=12 ArrayTaskId=2-3,5%16 ArrayTaskThrottle=16 JobState=PENDING Reason=Resources\n"
        "JobId=20 JobName=x JobState=RUNNING\n"
    )
    pending = {"12_2": "PENDING", "12_3": "PENDING", "12_5": "PENDING"}
    assert slurm.states(said) == {"12_0": "COMPLETED", **pending, "20": "RUNNING"}
    assert slurm.states("") == {}
