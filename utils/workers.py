"""Loader workers: under a scheduler that signals every process of a job, and on disks that do not answer.

Each worker notes in memory that it shares with its run which trace it is reading. Where no batch comes for long, or a worker dies
(damaged files can kill the library that reads them), the run ends with that file's and trace's name.
"""

import atexit
import multiprocessing
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import FrameType
from typing import Any, TypeVar, final

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from utils.errors import DataError

T = TypeVar("T")

OUTLIVES_S = 300
"""Seconds a worker lives on after SIGTERM: long enough for the run to finish its step and to save."""


def outlive_signals(worker: int) -> None:
    """Let a worker live on while its run stops in order: one that dies is an error amid the step, and nothing is saved.

    Workers end when their run tells them to, or is gone; one that hangs ends :data:`OUTLIVES_S` after it was told to.

    Args:
        worker: its number; PyTorch calls this in each as it starts (``worker_init_fn``).
    """
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end_later)


def _end_later(number: int, frame: FrameType | None) -> None:
    signal.alarm(OUTLIVES_S)  # SIGALRM ends a process that does not handle it


def _end_workers() -> None:
    """Python ends its workers by SIGTERM at exit, and waits for them; ours would outlive it, and hold nothing by then."""
    children = [child for child in multiprocessing.active_children() if child.daemon]
    if children:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler would take their end for a failure, and say so
    for child in children:
        child.kill()


def _end_workers_first() -> None:
    """At exit, end workers before anyone waits for them: Python, and torch, five seconds for each worker, one after the other.

    Torch does so wherever a loader is still referred to, which compiled code does: a minute for twelve workers. What is
    registered last is asked first, and torch registers as it starts workers.
    """
    atexit.unregister(_end_workers)
    atexit.register(_end_workers)


_end_workers_first()


_waiting = False
"""Whether this process waits for a batch."""
_torchs: list[Callable[[int, FrameType | None], Any]] = []
"""Torch's handler of SIGCHLD, once ours stands in its place."""


def _tell_deaths_to_who_waits() -> None:
    """Let torch's handler, which raises where a worker has died, do so only amid :meth:`WatchedLoader._next`.

    Else it raises anywhere: in the middle of a step, or while an error is on its way, which is lost then.
    """
    handler = signal.getsignal(signal.SIGCHLD)
    if threading.current_thread() is not threading.main_thread() or not callable(handler) or handler is _look_for_deaths:
        return
    _torchs[:] = [handler]
    signal.signal(signal.SIGCHLD, _look_for_deaths)


def _look_for_deaths(number: int = signal.SIGCHLD, frame: FrameType | None = None) -> None:
    if _waiting:
        for handler in _torchs:
            handler(number, frame)


IDLE, BATCH = -1, -2
"""In place of a trace's number: a worker waits for work; it works on a batch, of which trace it does not say."""
_line: np.ndarray | None = None
"""This worker's line of the board: (number of the trace, since when, in ns)."""


def reading(trace: int) -> None:
    """Note that this process begins to read a trace; of no effect outside of loader workers.

    Args:
        trace: its number, as ``Batch.index`` has it.
    """
    if _line is not None:
        _line[:] = trace, time.monotonic_ns()


def _begin(board: Tensor, worker: int) -> None:
    global _line
    _line = board[worker].numpy()
    outlive_signals(worker)


@final
class _Noting(Dataset[T]):
    """A dataset whose workers note when they work on a batch.

    Args:
        part: builds whole batches.
    """

    def __init__(self, part: Any) -> None:
        self.part = part

    def __len__(self) -> int:
        return len(self.part)

    def __getitem__(self, key: Any) -> T:
        return self.__getitems__([key])

    def __getitems__(self, keys: Sequence[Any]) -> T:
        reading(BATCH)
        batch = self.part.__getitems__(keys)
        reading(IDLE)
        return batch


@final
class WatchedLoader(DataLoader[T]):
    """A DataLoader that says which file and trace its workers were reading where they stall or die.

    Halfway through its patience it warns, once a loader. Without workers nothing is watched: the run reads by itself.

    Args:
        part: a dataset that builds whole batches; the readers it uses call :func:`reading`.
        name: file and trace of a trace's number.
        patience_s: seconds without a batch that end the run; 0 waits for ever.
        options: of DataLoader.
    """

    def __init__(self, part: Any, *, name: Callable[[int], str], patience_s: float = 0, **options: Any) -> None:
        self.name, self.patience_s = name, patience_s
        workers = options.get("num_workers", 0)
        self.board = torch.full((max(workers, 1), 2), IDLE, dtype=torch.int64).share_memory_()
        half = patience_s / 2 if workers else 0
        super().__init__(_Noting(part), timeout=half, worker_init_fn=partial(_begin, self.board), **options)

    def __iter__(self) -> Iterator[T]:  # type: ignore[override]  # DataLoader promises a class of its own
        """Batches.

        Raises:
            DataError: no batch came in time, or a worker died; names what each worker was reading.
        """
        batches = super().__iter__()
        _end_workers_first()
        _tell_deaths_to_who_waits()
        while True:
            try:
                batch = self._patiently(batches)
            except StopIteration:
                return
            yield batch

    def _next(self, batches: Iterator[T]) -> T:
        """The next batch; where a worker has died, also some time ago, the error says so."""
        global _waiting
        _waiting = True
        try:
            _look_for_deaths()
            return next(batches)
        except (ConnectionError, EOFError) as error:
            if not self.num_workers or "in DataLoader worker process" in str(error):  # the dataset's own
                raise
            raise RuntimeError(f"DataLoader worker ended amid a batch ({error})") from error
        finally:
            _waiting = False

    def _patiently(self, batches: Iterator[T]) -> T:
        try:
            return self._next(batches)
        except RuntimeError as error:
            if not _of_loader(error):
                raise
            if "timed out" not in str(error):
                raise DataError(f"a loader worker died: {error}\n{self._told()}") from error
        warnings.warn(f"no batch for {self.patience_s / 2:g} s; waiting as long again\n{self._told()}", stacklevel=2)
        try:
            return self._next(batches)  # a timeout loses nothing: it waits for the same batch again
        except RuntimeError as error:
            if not _of_loader(error):
                raise
            raise DataError(
                f"no batch for {self.patience_s:g} s (loader.stalled_s): stopped\n{self._told()}\n"
                "Look whether these files can be read (a network disk that does not answer, a damaged file), and resume with "
                "train.ckpt_path=<run folder>; or wait longer with loader.stalled_s"
            ) from error

    def _told(self) -> str:
        """A line a worker: what it is reading, for how long."""
        lines = []
        for worker, (trace, since) in enumerate(self.board.tolist()):
            for_s = f"for {(time.monotonic_ns() - since) / 1e9:.0f} s"
            what = {IDLE: "waits for work", BATCH: f"works on a batch {for_s}"}.get(trace)
            lines.append(f"  worker {worker}: {what or f'reads {self.name(trace)} {for_s}'}")
        return "\n".join(lines)


def _of_loader(error: RuntimeError) -> bool:
    """Whether an error is DataLoader's own word on its workers, not an error within one."""
    return str(error).startswith(("DataLoader timed out", "DataLoader worker"))
