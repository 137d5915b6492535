"""Ctrl-C on the real program: once it stops tidily; twice it ends at once, while what the first one asked for is written."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from test_stopping import alive
from test_train import CONTRASTIVE, ROOT

from utils import checkpoint
from utils.checkpoint_files import refusal

CHECKPOINTS = Path("runs/contrastive/small/one/checkpoints")
LAST = CHECKPOINTS / "last.ckpt"
OWN = {"dataset.traces": 400, "loader.num_workers": 1, "trainer.max_epochs": 50, "checkpoint.every_n_train_steps": 5}
WORDS = [*(word for word in CONTRASTIVE if word.split("=")[0] not in OWN), *(f"{name}={value}" for name, value in OWN.items())]
SLOW_DISK = """
import os, pathlib, time
sync = os.fsync
def slow(handle):
    if pathlib.Path("slow").exists():
        pathlib.Path("saving").touch()
        time.sleep(600)
    sync(handle)
os.fsync = slow
"""
"""Python runs a module ``sitecustomize`` first thing: this one makes writing last as long as the folder holds a file ``slow``."""
PATIENCE_S = 120  # to start, where other programs share the cores

pytestmark = pytest.mark.timeout(400)


@pytest.fixture
def begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Starts ``train.py`` as the leader of a group of processes, as a terminal does, and ends what is left of it."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "sitecustomize.py").write_text(SLOW_DISK)
    begun = []

    def begin(*more: str) -> Any:
        environment = {**os.environ, "WAVEXLSTM_RUN_ID": "one", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(tmp_path / "first")}
        command = [sys.executable, str(ROOT / "train.py"), *WORDS, *more]
        with Path("said").open("w") as said:
            process = subprocess.Popen(command, env=environment, stdout=said, stderr=said, start_new_session=True)
        begun.append(process)
        return process

    before = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a background job, as CI may be, hands on that it ignores it
    yield begin
    signal.signal(signal.SIGINT, before)
    for process in begun:
        if alive(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def until(happened: Callable[[], bool], process: Any, within: float = PATIENCE_S) -> None:
    """Wait for something to happen while a process runs."""
    end = time.monotonic() + within
    while not happened() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    assert happened(), Path("said").read_text()[-3000:]


def ended(process: Any, within: float) -> int:
    """Exit code; no process of its group is left soon after."""
    code = process.wait(within)
    end = time.monotonic() + 20  # loader workers of a second rank look every 5 s whether it is still there
    while alive(process.pid) and time.monotonic() < end:
        time.sleep(0.1)
    assert not alive(process.pid)
    return code


def whole_files() -> set[str]:
    """Names of the checkpoints, each of which is whole, with its sum; nothing else lies beside them."""
    files = sorted(CHECKPOINTS.glob("*.ckpt"))
    assert all(refusal(file) is None and checkpoint.read(file).resumable for file in files)
    assert {file.name for file in CHECKPOINTS.iterdir()} == {file.name + end for file in files for end in ("", ".sha256")}
    return {file.name for file in files}


def test_once_the_step_is_finished_and_saved(begin: Callable[..., Any]) -> None:
    process = begin()
    until(LAST.is_file, process)
    os.killpg(process.pid, signal.SIGINT)
    assert ended(process, PATIENCE_S) == 130
    said = Path("said").read_text()
    assert all(text in said for text in ("Ctrl-C again stops at once", "Stopped early", f"train.ckpt_path={LAST}"))
    assert "Traceback" not in said
    assert whole_files() >= {"last.ckpt"}
    assert checkpoint.read(LAST).step >= 5


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=[pytest.mark.ddp, pytest.mark.slow])])
def test_twice_it_ends_while_it_saves(begin: Callable[..., Any], ranks: int) -> None:
    process = begin(f"trainer.devices={ranks}")
    until(LAST.is_file, process)
    Path("slow").touch()
    os.killpg(process.pid, signal.SIGINT)
    until(Path("saving").exists, process)
    os.killpg(process.pid, signal.SIGINT)
    assert ended(process, 90) == 130  # saving would take ten minutes
    assert "Traceback" not in Path("said").read_text()
    assert whole_files() >= {"last.ckpt"}
