"""A training killed at random points and resumed ends with the bits of one that was not (long: ``WAVEXLSTM_KILLS=200``)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

KILLS = int(os.environ.get("WAVEXLSTM_KILLS", "10"))


@pytest.mark.timeout(120 + 15 * KILLS)
def test_kills_at_random_points_leave_no_trace_in_the_result(tmp_path: Path) -> None:
    command = [sys.executable, str(Path(__file__).with_name("killed_runs.py")), str(KILLS), "1"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    done = subprocess.run(command, cwd=tmp_path, env=environment | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert found["kills"] >= KILLS
    assert found["wrong"] == []
    assert found["due"] == []
    assert found["two"] == []
    assert found["rows_lost"] <= found["kills"]
