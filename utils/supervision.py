"""Ranks that another one started end when that one is gone, however it went; else they would wait for it, some for hours."""

import os
import threading
import time

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
