"""A rank ends when the process that started it is gone, also where that happened before it could look."""

import os
import subprocess
import sys

import pytest

from utils.supervision import FIRST

RANK = "from utils.supervision import end_with_parent; end_with_parent(); import time; time.sleep({})"


def rank(parent: int, seconds: int) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "LOCAL_RANK": "1", FIRST: str(parent)}
    command = [sys.executable, "-c", RANK.format(seconds)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_a_rank_without_its_first_one_ends() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    done = rank(gone.pid, 50)
    assert done.returncode == 1
    assert "rank 1: the first rank is gone" in done.stderr


def test_a_rank_with_its_first_one_lives_on() -> None:
    assert rank(os.getpid(), 2).returncode == 0


def test_a_signal_that_comes_before_the_run_listens_stops_it_once_it_does(make, place, monkeypatch):
    import signal

    from utils import runlog, supervision
    from utils.preemption import Stopped

    monkeypatch.setattr(supervision, "_early", [])
    before = signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    try:
        supervision.keep_signals()
        signal.raise_signal(signal.SIGUSR1)
        run = make()
        run.config["pictures"]["enabled"] = False
        with pytest.raises(Stopped) as stopped:
            runlog.trainer(run.config, run.module).fit(run.module, run.data)
        assert (stopped.value.number, stopped.value.before) == (signal.SIGUSR1, None)
    finally:
        signal.signal(signal.SIGUSR1, before)
        signal.signal(signal.SIGUSR2, signal.SIG_DFL)
