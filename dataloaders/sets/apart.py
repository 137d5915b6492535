"""Work that a damaged file can turn into a crash or an endless loop within a C library, done in a process of its own."""

import faulthandler
import multiprocessing
import signal
import sys
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeVar

from utils.errors import DataError

T = TypeVar("T")
Work = Callable[[Callable[[], None]], T]

PATIENCE_S = 30
"""Seconds of processor time without a sign of life after which work counts as endless. Waiting for a disk takes none."""
QUIET_S = 60
"""Seconds without an answer after which a slow disk is told of, once."""


def apart(path: Path, work: Work[T]) -> T:
    """Do work on a file in a forked process; its result, or its error.

    A fork takes some milliseconds, whatever is imported. Where processes do not fork well (macOS), or may not (a loader's worker,
    which its run watches), the work is done here.

    Args:
        path: of the file, for messages.
        work: is called with a function that it must call now and then as a sign of life.

    Raises:
        DataError: the work's own, or the process crashed or computed for ever.
    """
    if sys.platform != "linux" or multiprocessing.current_process().daemon:
        return work(lambda: None)
    fork = multiprocessing.get_context("fork")
    receive, send = fork.Pipe(duplex=False)
    child = fork.Process(target=_tell, args=(send, work), daemon=True)
    child.start()
    send.close()
    try:
        told = _heard(path, receive)
    except EOFError:
        raise _death(path, child) from None
    finally:
        receive.close()
        child.kill()
        child.join()
    if isinstance(told, DataError):
        raise told
    return told


def _tell(send: Connection, work: Work[T]) -> None:
    """The child. A timer of processor time ends it also where C code never returns to Python, and when its parent is gone."""
    faulthandler.disable()  # its crash is not the run's, and is told in one sentence
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    _rewind()
    try:
        told = work(_rewind)
    except DataError as error:
        told = DataError(str(error))  # no more than its text travels
    signal.setitimer(signal.ITIMER_PROF, 0)
    send.send(told)


def _rewind() -> None:
    signal.setitimer(signal.ITIMER_PROF, PATIENCE_S)


def _heard(path: Path, receive: Connection) -> Any:
    if not receive.poll(QUIET_S):
        warnings.warn(
            f"{path}: not open yet after {QUIET_S} s. Still waiting: a slow disk, or one that does not answer?", stacklevel=5
        )
    return receive.recv()


def _death(path: Path, child: BaseProcess) -> DataError:
    """Why no answer came."""
    child.join()
    code = child.exitcode or 0
    if code == -signal.SIGPROF:
        how = f"HDF5 came to no end with it in {PATIENCE_S} s of computing (waiting for a disk does not count)"
    elif code < 0:
        how = f"HDF5 died of it ({signal.Signals(-code).name})"
    else:
        return DataError(f"{path}: cannot be opened: the process for that ended with code {code}; its own words are above")
    return DataError(
        f"{path}: cannot be opened: {how}. The file is damaged: compare its checksum (sha256sum) with that of its source, and "
        "download, copy or write it again"
    )
