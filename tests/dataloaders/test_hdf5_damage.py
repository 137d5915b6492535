"""Bytes that nobody wrote: damaged and crafted files give a whole set, counted traces, or an error that names the file."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import hdf5_inputs
from seisbench_sets import Quirk, damage, write_set

INPUTS = int(os.environ.get("WAVEXLSTM_FUZZ", "50"))
"""Damaged files to try; crafted ones come on top."""
HANGS = ("SIGXCPU", "SIGALRM")
"""Libhdf5 may read for ever: a run's workers are watched for that, this process is not, but for the time limit."""
FOREIGN = ("link to another file", "view of another file", "bytes of another file", "bytes of a pipe", "link to itself")


def test_no_file_kills_a_run_or_passes_in_silence(tmp_path):
    folder = write_set(tmp_path / "set", Quirk(lengths=(600,)))
    damage(folder, [])  # in compressed chunks with checksums: most of what HDF5 can do
    command = [sys.executable, hdf5_inputs.__file__, str(folder), str(INPUTS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60 + 2 * INPUTS, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(told) > INPUTS
    raised = [each for each in told if each["how"] == "raised"]
    assert not raised, raised[0]["said"]
    for each in told:
        if each["how"] in ("refused", "skipped"):
            assert str(folder) in each["said"], each
    # libhdf5 has memory errors and endless loops of its own. It opens files in a process apart
    killed = [each for each in told if each["how"] == "killed"]
    assert all(each["opened"] for each in killed), killed
    # and a run reads in workers, and tells which trace one of them died of
    for each in killed:
        if each["said"] in HANGS:
            continue
        assert each["run"]["how"] == "refused", each
        assert "worker died" in each["run"]["said"] and f"reads {folder}/waveforms.hdf5: bucket0, row" in each["run"]["said"]
    hung = [each for each in told if each["said"] in HANGS]
    assert len(hung) <= INPUTS // 50, hung
    how = Counter(each["how"] for each in told)
    assert how["refused"] > INPUTS / 4 and how["read"] > INPUTS / 20, how
    crafted = {each["name"].removeprefix("crafted: "): each["how"] for each in told if each["name"].startswith("crafted")}
    assert {crafted[name] for name in FOREIGN} == {"refused"}, "a set must not make a run read other files"
