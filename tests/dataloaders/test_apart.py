"""Opening a file where HDF5 may crash or loop for ever: the run is told, and lives; a slow disk is no damage."""

import ctypes
import os
import signal
import sys
import time
import warnings
from collections import deque
from itertools import repeat
from pathlib import Path

import hdf5_inputs
import pytest
from seisbench_sets import Quirk, damage, write_set

from dataloaders.sets import apart as module
from dataloaders.sets.apart import apart
from dataloaders.sets.catalogue import open_sets
from utils.errors import DataError

FILE = Path("waveforms.hdf5")
ENDLESS = (99, 139, 203)
"""Numbers of damaged files that libhdf5 1.14 never finishes opening."""
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="files are opened apart only where processes fork well")


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(module, "PATIENCE_S", 1)


def test_the_result_comes_back_and_the_child_is_gone():
    child, result = apart(FILE, lambda alive: (os.getpid(), "result"))
    assert result == "result"
    assert child != os.getpid()
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_an_error_of_the_work_comes_back_as_it_is():
    def refuse(alive):
        raise DataError("waveforms.hdf5: rule, value, remedy")

    with pytest.raises(DataError, match=r"^waveforms\.hdf5: rule, value, remedy$"):
        apart(FILE, refuse)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGKILL])
def test_a_crash_is_told(number):
    with pytest.raises(DataError, match=rf"waveforms\.hdf5: cannot be opened: HDF5 died of it \({number.name}\).*sha256sum"):
        apart(FILE, lambda alive: ctypes.CDLL(None).kill(os.getpid(), int(number)))


def test_a_fault_of_ours_is_not_blamed_on_the_file():
    with pytest.raises(DataError, match=r"waveforms\.hdf5: cannot be opened: .* ended with code 1; its own words are above$"):
        apart(FILE, lambda alive: 1 // 0)


@pytest.mark.parametrize("handler", [signal.SIG_IGN, lambda number, frame: None])
def test_a_loop_within_c_ends_whatever_the_run_does_with_signals(handler):
    before = signal.signal(signal.SIGPROF, handler)
    try:
        with pytest.raises(
            DataError, match=r"waveforms\.hdf5: cannot be opened: HDF5 came to no end with it in 1 s of computing"
        ):
            apart(FILE, lambda alive: deque(repeat(0), maxlen=0))
    finally:
        signal.signal(signal.SIGPROF, before)


def test_a_slow_disk_is_waited_for_and_told_of(monkeypatch):
    monkeypatch.setattr(module, "QUIET_S", 0.2)
    with pytest.warns(UserWarning, match=r"waveforms\.hdf5: not open yet after 0\.2 s\. Still waiting"):
        assert apart(FILE, lambda alive: time.sleep(1.3) or "read") == "read"


def test_many_blocks_may_take_longer_than_patience_as_long_as_they_come():
    def computes(alive):
        for _ in range(5):
            alive()
            until = time.process_time() + 0.3
            while time.process_time() < until:
                pass
        return time.process_time()

    assert apart(FILE, computes) > 1


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = write_set(tmp_path_factory.mktemp("set"), Quirk(lengths=(600,)))
    damage(folder, [])
    return folder, (folder / "waveforms.hdf5").read_bytes()


@pytest.mark.parametrize("number", ENDLESS)
def test_damaged_files_that_hdf5_never_finishes_opening_are_refused(number, whole):
    folder, data = whole
    (folder / "waveforms.hdf5").write_bytes(hdf5_inputs.mutated(data, number)[1])
    # a library that has been mended reads it, or refuses it by itself
    with pytest.raises(DataError, match=rf"{folder}/waveforms\.hdf5: (cannot be opened: HDF5 came to no end|damaged or)"):
        open_sets([str(folder)], 0)


def test_a_sound_set_opens_without_a_word(small_set):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(open_sets([str(small_set)], 0)) == 20
