"""A signal stops a run between two steps, with everything saved; what becomes of it under SLURM."""

import os
import signal
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from utils import preemption, runlog, slurm
from utils.errors import ConfigError
from utils.guarding import GuardConfig
from utils.metrics_file import read
from utils.preemption import Stopped, leave

SIGNALS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT)


@pytest.fixture(autouse=True)
def _signals_are_given_back():
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def _no_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)


class Send(pl.Callback):
    """Sends a signal to this process: within a step, or within a validation."""

    def __init__(self, number: int, step: int, *, validating: bool = False) -> None:
        self.number, self.step, self.validating = number, step, validating

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any) -> None:
        if not self.validating and trainer.global_step + 1 == self.step:
            os.kill(os.getpid(), self.number)

    def on_validation_batch_end(self, trainer: pl.Trainer, *rest: Any) -> None:
        if self.validating and trainer.global_step == self.step:
            os.kill(os.getpid(), self.number)


def fit(run: Any, *callbacks: pl.Callback, resume: Path | None = None) -> pl.Trainer:
    run.config["pictures"]["enabled"] = False
    torch.manual_seed(4)
    trainer = runlog.trainer(run.config, run.module, callbacks)
    trainer.fit(run.module, run.data, ckpt_path=runlog.resumable(str(resume) if resume else None), weights_only=True)
    return trainer


def weights(run: Any) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in run.module.parameters()])


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_signal_stops_after_its_step_and_saves_it(make: Callable[..., Any], place: Path, number: signal.Signals) -> None:
    with pytest.raises(Stopped) as stopped:
        fit(make(), Send(number, 5))
    assert stopped.value.number == number
    assert torch.load(place / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 5


@pytest.mark.parametrize(("every", "step"), [(1.0, 6), (4, 4), (3, 6)])
def test_stopped_within_a_validation_the_resumed_run_makes_up_for_it(
    make: Callable[..., Any], place: Path, every: Any, step: int
) -> None:
    whole = make(val_check_interval=every)
    fit(whole)
    undisturbed = read(place / "metrics.csv")
    (place / "metrics.csv").unlink()
    with pytest.raises(Stopped):
        fit(make(val_check_interval=every), Send(signal.SIGUSR1, step, validating=True))
    resumed = make(val_check_interval=every)
    fit(resumed, resume=place / "checkpoints" / "last.ckpt")
    assert torch.equal(weights(whole), weights(resumed))
    again = read(place / "metrics.csv")
    for name in ("val/loss", "val/accuracy", "train/loss"):
        assert again[name] == undisturbed[name], name


def test_a_cancellation_outweighs_the_end_of_a_turn(make: Callable[..., Any], place: Path) -> None:
    with pytest.raises(Stopped) as stopped:
        fit(make(), Send(signal.SIGTERM, 5), Send(signal.SIGUSR1, 5))
    assert stopped.value.number == signal.SIGTERM


def test_after_an_error_signals_do_again_what_they_did(make: Callable[..., Any], place: Path) -> None:
    class Fail(pl.Callback):
        def on_train_batch_end(self, *rest: Any) -> None:
            raise ValueError("a fault")

    seen: list[int] = []
    signal.signal(signal.SIGUSR2, lambda number, frame: seen.append(number))
    with pytest.raises(ValueError, match="a fault"):
        fit(make(), Fail())
    os.kill(os.getpid(), signal.SIGUSR2)
    assert seen == [signal.SIGUSR2]
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def in_slurm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Path]:
    """Puts this process into a SLURM job with a ``scontrol`` that writes down what it is asked; returns where."""

    def prepare(*, state: str = "RUNNING", preempted: str = "None", code: int = 0, **environment: str) -> Path:
        said, tool = tmp_path / "asked", tmp_path / "scontrol"
        tool.write_text(
            f'#!/bin/sh\necho "$@" >> {said}\n'
            f'[ "$1" = show ] && echo "JobId=7 JobState={state} Reason=None PreemptTime={preempted} x"\n'
            f"[ {code} = 0 ] || echo no such job >&2\nexit {code}\n"
        )
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        for name, value in {"JOB_ID": "7", "STEP_ID": "0", "PROCID": "0", **environment}.items():
            monkeypatch.setenv(f"SLURM_{name}", value)
        return said

    return prepare


def left(stopped: Stopped, config: GuardConfig, *, leads: bool = True) -> Any:
    with pytest.raises(SystemExit) as end:
        leave(stopped, config, leads=leads)
    return end.value.code


TURNS = GuardConfig(requeue=True, restarts=2)


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
def test_the_end_of_a_turn_asks_for_another_one_once(in_slurm: Callable[..., Path], number: signal.Signals) -> None:
    asked = in_slurm()
    assert left(Stopped(number), TURNS, leads=False) == 0
    assert not asked.exists()
    assert left(Stopped(number), TURNS) == 128 + number
    assert asked.read_text() == "requeue 7\n"


def test_a_task_of_an_array_is_requeued_alone(in_slurm: Callable[..., Path]) -> None:
    asked = in_slurm(ARRAY_JOB_ID="6", ARRAY_TASK_ID="3")
    left(Stopped(signal.SIGUSR1), TURNS)
    assert asked.read_text() == "requeue 6_3\n"


def test_turns_are_counted(in_slurm: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    asked = in_slurm(RESTART_COUNT="2")
    assert left(Stopped(signal.SIGUSR1), TURNS) == 138
    assert not asked.exists()
    assert "guard.restarts = 2" in capsys.readouterr().err


def test_a_refusal_is_told(in_slurm: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    in_slurm(code=1)
    assert left(Stopped(signal.SIGUSR1), TURNS) == 138
    assert "Not requeued: no such job" in capsys.readouterr().err


def test_what_is_cancelled_or_was_not_to_be_requeued_stays_so(in_slurm: Callable[..., Path]) -> None:
    asked = in_slurm(state="CANCELLED")
    assert left(Stopped(signal.SIGTERM), TURNS) == 143
    assert "requeue" not in asked.read_text()
    asked.unlink()
    assert left(Stopped(signal.SIGUSR1), GuardConfig()) == 138
    assert left(Stopped(signal.SIGINT), TURNS) == 130
    assert not asked.exists()


def test_what_is_preempted_waits_for_slurm(in_slurm: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    asked, waited = in_slurm(preempted="2026-01-01T00:00:00"), []
    monkeypatch.setattr(preemption, "time", SimpleNamespace(sleep=waited.append))
    left(Stopped(signal.SIGTERM), TURNS, leads=False)
    assert waited == [preemption.LINGER_S]
    assert "requeue" not in asked.read_text()


def test_submitits_own_handler_is_given_the_word(in_slurm: Callable[..., Path]) -> None:
    asked, told = in_slurm(), []
    left(Stopped(signal.SIGUSR2, lambda number, frame: told.append(number)), TURNS)
    assert told == [signal.SIGUSR2]
    assert not asked.exists()


NOW = datetime(2026, 1, 2, 3, 4, 5)


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({}, "2026-01-02_03-04-05"),
        ({"SLURM_JOB_ID": "7"}, "2026-01-02_03-04-05"),
        ({"SLURM_JOB_ID": "7", "ENVIRONMENT": "BATCH"}, "7"),
        ({"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_PROCID": "3"}, "7"),
        ({"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "2", "SLURM_PROCID": "0"}, "7.2"),
        ({"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_PROCID": "0", "SLURM_JOB_NAME": "bash"}, "2026-01-02_03-04-05"),
    ],
)
def test_runs_are_named_by_the_job_that_is_theirs(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], name: str
) -> None:
    monkeypatch.delenv("ENVIRONMENT", raising=False)
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    assert slurm.run_id(NOW) == name


def test_more_tasks_than_ranks_are_refused(in_slurm: Callable[..., Path]) -> None:
    in_slurm(STEP_NUM_TASKS="4")
    slurm.demand_tasks({"devices": 2, "num_nodes": 2})
    with pytest.raises(ConfigError, match=r"srun started 4 processes\. Add cluster=slurm"):
        slurm.demand_tasks({"devices": 1, "num_nodes": 1})


def test_a_restarted_run_goes_on_from_its_own_folder_whatever_it_started_from(
    make: Callable[..., Any], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make().config
    config["train"]["ckpt_path"] = "elsewhere.ckpt"
    config["guard"] = {"requeue": True}
    assert runlog.going_on(config)["train"]["ckpt_path"] == "elsewhere.ckpt"
    (place / "checkpoints").mkdir(parents=True)
    (place / "checkpoints" / "last.ckpt").touch()
    assert Path(runlog.going_on(config)["train"]["ckpt_path"]).resolve() == place / "checkpoints"
    assert runlog.going_on(config | {"guard": {}})["train"]["ckpt_path"] == "elsewhere.ckpt"
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert Path(runlog.going_on(config | {"guard": {}})["train"]["ckpt_path"]).resolve() == place / "checkpoints"
