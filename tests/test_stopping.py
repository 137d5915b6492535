"""Real processes, real signals: two ranks stop together, or end together where one of them fails."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from utils.metrics_file import read

ROOT = Path(__file__).resolve().parent.parent
FOLDER = Path("runs/group/tiny/one")
PATIENCE_S = 240  # to start and to finish, where other programs share the cores

pytestmark = [pytest.mark.ddp, pytest.mark.timeout(900)]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are written into the test's own folder, as outside of any scheduler."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)


def begin(*words: str) -> Any:
    command = [sys.executable, str(ROOT / "tests" / "two_ranks.py"), *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def alive(group: int) -> bool:
    """Whether a process of this group lives on, be it an orphan."""
    states = subprocess.run(["ps", "-eo", "pgid=,stat="], capture_output=True, text=True, check=True).stdout.split("\n")
    return any(line.split()[0] == str(group) and "Z" not in line.split()[1] for line in states if line.strip())


def ended(process: Any, within: float = PATIENCE_S) -> tuple[int, str, str]:
    """Exit code, stdout, stderr, once no rank is left."""
    try:
        out, err = process.communicate(timeout=within)
        until = time.monotonic() + 30
        while alive(process.pid) and time.monotonic() < until:
            time.sleep(0.2)
        assert not alive(process.pid), f"a rank outlived the run by 30 s\n{err}"
    finally:
        if alive(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, out, err


def until_step(process: Any, step: int) -> None:
    """Wait until the curves have come that far."""
    until = time.monotonic() + PATIENCE_S
    while process.poll() is None and time.monotonic() < until:
        if max(read(FOLDER / "metrics.csv").get("train/loss", ([0], []))[0], default=0) >= step:
            return
        time.sleep(0.02)


def last() -> dict[str, Any]:
    return torch.load(FOLDER / "checkpoints" / "last.ckpt", weights_only=True)


def stop_and_resume(number: signal.Signals, *, everyone: bool) -> dict[str, Any]:
    """Interrupt a run after its sixth step, let it go on; its last checkpoint."""
    process = begin()
    until_step(process, 6)
    (os.killpg if everyone else os.kill)(process.pid, number)
    code, out, err = ended(process)
    assert (code, "Stopped early" in out) == (128 + number, True), err
    assert 6 <= last()["global_step"] < 60
    code, out, err = ended(begin("resume"))
    assert (code, "steps 60" in out) == (0, True), err
    return last()


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(torch.equal(value, other["state_dict"][name]) for name, value in one["state_dict"].items())


def test_two_ranks_stop_at_one_step_and_go_on_as_if_nothing_had_been() -> None:
    code, _, err = ended(begin())
    assert code == 0, err
    whole, curves = last(), read(FOLDER / "metrics.csv")
    (FOLDER / "metrics.csv").unlink()
    assert same(whole, stop_and_resume(signal.SIGUSR1, everyone=False))
    assert read(FOLDER / "metrics.csv")["val/loss"] == curves["val/loss"]
    assert read(FOLDER / "metrics.csv")["train/loss"] == curves["train/loss"]


@pytest.mark.slow
@pytest.mark.parametrize("trial", range(20))
def test_no_hang_in_twenty(trial: int) -> None:
    (FOLDER / "metrics.csv").unlink(missing_ok=True)
    stop_and_resume((signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT)[trial % 4], everyone=trial % 3 > 0)


def test_what_one_rank_is_told_is_saved_within_two_steps() -> None:
    code, _, err = ended(begin("fault=signal"))
    assert code == 128 + signal.SIGUSR1, err
    assert 9 <= last()["global_step"] <= 11


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("raise", "rank 1 has a fault"),
        ("kill", "terminated with code -9|Connection (closed|reset) by peer"),  # whoever notices first
        ("kill-first", "the first rank is gone|Connection (closed|reset) by peer"),
        ("nan", "the loss was NaN or infinite in step 9"),
        (
            "drift",
            r"in step 10 the ranks no longer have the same weights: network\.decoder\.linear\.bias differs.*In step 5 all agreed",
        ),
    ],
)
def test_where_one_rank_fails_all_end(fault: str, said: str) -> None:
    code, _, err = ended(begin(f"fault={fault}"))
    assert code != 0
    if fault in ("raise", "kill", "kill-first"):
        assert time.time() - Path("fault").stat().st_mtime < 90
    assert re.search(said, err)
