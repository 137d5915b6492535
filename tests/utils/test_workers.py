"""Loader workers outlive SIGTERM, but not their run; where they stall or die, the run ends with what they were reading."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest

from dataloaders.datamodule import WaveData
from dataloaders.sources.seisbench import SeisBench, SeisBenchConfig
from utils.config import LoaderConfig
from utils.errors import DataError
from utils.workers import WatchedLoader, reading

PROGRAM = """
import os, signal
from torch.utils.data import DataLoader
from utils.workers import outlive_signals
loader = DataLoader(range(8), batch_size=2, num_workers=2, persistent_workers=True, worker_init_fn=outlive_signals)
batches = iter(loader)
next(batches)
os.kill(batches._workers[0].pid, signal.SIGTERM)
print(len(list(batches)))
"""


def test_a_worker_goes_on_after_sigterm_and_ends_with_its_run():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "3"
    assert "killed by signal" not in done.stderr


HELD = """
import atexit
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter as Batches
from tests.utils.test_workers import Part, WatchedLoader
start = Batches.__init__
def start_as_with_pinned_memory(self, loader):
    start(self, loader)
    for worker in self._workers:
        atexit.register(wait, worker)
def wait(worker):
    worker.join(timeout=20)
    print("ended by", worker.exitcode)
Batches.__init__ = start_as_with_pinned_memory
loader = WatchedLoader(Part(None, at=None), name=str, num_workers=2, persistent_workers=True, batch_size=2, collate_fn=list)
batches = iter(loader)
next(batches)
held = [loader, batches]
held.append(held)
"""


def test_a_loader_that_is_still_held_at_exit_is_not_waited_for():
    done = subprocess.run([sys.executable, "-c", HELD], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.splitlines() == [f"ended by {-signal.SIGKILL}"] * 2, done.stderr


class Part:
    """Six numbers, read with a trouble at one of them."""

    def __init__(self, trouble, at=4):
        self.trouble, self.at = trouble, at

    def __len__(self):
        return 6

    def __getitems__(self, keys):
        for key in keys:
            reading(key)
            if key == self.at:
                self.trouble()
        return keys


def loader(trouble, at=4, patience_s=2.0, workers=2):
    options = {"batch_size": 2, "num_workers": workers, "collate_fn": list}
    return WatchedLoader(Part(trouble, at), name=lambda trace: f"file.hdf5, row {trace}", patience_s=patience_s, **options)


def pause():
    time.sleep(1.5)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def stumble():
    raise RuntimeError("an error of the dataset's own")


def test_one_that_takes_its_time_is_warned_of_and_loses_nothing():
    with pytest.warns(UserWarning, match="no batch for 1 s"):
        assert list(loader(pause)) == [[0, 1], [2, 3], [4, 5]]


def test_a_worker_that_dies_is_told_with_the_trace_it_read():
    with pytest.raises(DataError, match=r"(?s)a loader worker died: .*reads file.hdf5, row 3 for"):
        list(loader(die, at=3, patience_s=0))


def die_later():
    time.sleep(0.5)
    die()


def test_a_worker_that_dies_while_the_run_computes_disturbs_no_step():
    batches = iter(loader(die_later, at=3, patience_s=0, workers=1))
    assert next(batches) == [0, 1]
    while multiprocessing.active_children():
        time.sleep(0.05)  # a step: its worker dies amid it
    with pytest.raises(DataError, match=r"(?s)a loader worker died: .*reads file.hdf5, row 3 for"):
        next(batches)


def lose_the_line(*args, **options):
    raise ConnectionResetError(104, "Connection reset by peer")


def test_a_worker_that_ends_amid_handing_over_a_batch_is_told(monkeypatch):
    monkeypatch.setattr("multiprocessing.queues.Queue.get", lose_the_line)
    with pytest.raises(DataError, match="a loader worker died: DataLoader worker ended amid a batch"):
        list(loader(die, at=99, workers=1))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_connection_that_the_dataset_loses_is_no_dead_worker(workers):
    with pytest.raises(ConnectionResetError, match="reset by peer"):
        list(loader(lose_the_line, workers=workers))


@pytest.mark.parametrize("workers", [0, 1])
def test_errors_of_the_dataset_stay_what_they_are(workers):
    with pytest.raises(RuntimeError, match="an error of the dataset's own") as error:
        list(loader(stumble, workers=workers))
    assert not isinstance(error.value, DataError)


def test_a_set_on_a_disk_that_does_not_answer_is_named(small_set, monkeypatch):
    from dataloaders.sets.reader import Reader

    source = SeisBench(SeisBenchConfig(dataset_name=[str(small_set)], samples=64, min_samples=16), seed=0)
    monkeypatch.setattr(Reader, "_cut", lambda self, trace, start, count, out: time.sleep(3600))
    data = WaveData(source, LoaderConfig(batch_size=2, num_workers=1, stalled_s=2), seed=0)
    with (
        pytest.warns(UserWarning, match=r"no batch for 1 s; waiting as long again\n  worker 0: reads .* for 1 s"),
        pytest.raises(DataError, match=r"(?s)no batch for 2 s.*worker 0: reads .*small.*waveforms\.hdf5: .*, row \d+ for 2 s"),
    ):
        next(iter(data.train_dataloader()))
