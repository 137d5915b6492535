"""A rank ends when the process that started it is gone, also where that happened before it could look."""

import os
import subprocess
import sys

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
