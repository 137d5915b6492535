"""A process of a run before the run listens: it ends with the rank that started it, and keeps the signals that come too early."""

import os
import signal
import threading
import time
from types import FrameType

FIRST = "WAVEXLSTM_FIRST_RANK"
"""Environment variable: process id of the rank that starts the others of its machine."""
PAUSE_S = 1.0
"""Seconds between two looks."""


def end_with_parent() -> None:
    """Watch, in a thread, over the process that started this rank; call it first thing, in every rank.

    A process that starts ranks leaves its id for them: one that died before they could look is missed too. Ranks that SLURM
    starts are ended by it; those of torchrun watch over torchrun. The other way round, Lightning ends all where one that it
    started has failed.
    """
    if int(os.environ.get("LOCAL_RANK", "0")) == 0:
        os.environ[FIRST] = str(os.getpid())
        return
    parent = int(os.environ.get(FIRST, os.getppid()))
    threading.Thread(target=_watch, args=(parent,), name="supervision", daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PAUSE_S)
    os.write(2, f"\nrank {os.environ['LOCAL_RANK']}: the first rank is gone; ending.\n".encode())
    os._exit(1)


_early: list[int] = []


def keep_signals() -> None:
    """Note SIGUSR1 and SIGUSR2 until the run listens to them; call it first thing.

    Unheard they would kill a process that is still importing, with nothing to requeue it.
    """
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, keep)


def keep(number: int, frame: FrameType | None) -> None:
    """The handler of :func:`keep_signals`."""
    _early.append(number)


def kept() -> int:
    """The largest signal that came early, 0 where none did."""
    return max(_early, default=0)
