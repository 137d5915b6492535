"""Loader workers under a scheduler that signals every process of a job."""

import atexit
import multiprocessing
import signal
from types import FrameType

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
    for child in multiprocessing.active_children():
        if child.daemon:
            child.kill()


atexit.register(_end_workers)  # later than Python's own, which is asked after it
