"""Writing shards, one at a time and in several processes; a shard is there whole or not at all."""

import hashlib
import json
import multiprocessing
import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import numpy as np

from dataloaders.packed.encode import encode
from dataloaders.packed.files import UNFINISHED, atomic, shard_name
from dataloaders.packed.plan import NO_RATIO, Plan
from dataloaders.sets.catalogue import Catalogue
from dataloaders.sets.reader import Reader
from utils.errors import DataError


@dataclass(frozen=True)
class Job:
    """What every process needs to write shards.

    Attributes:
        catalogue: the source, at 100 Hz.
        plan: which trace goes where.
        folder: of the packed set.
    """

    catalogue: Catalogue
    plan: Plan
    folder: Path

    def note(self, shard: int) -> Path:
        """The file that says that a shard is finished, and what is in it."""
        return self.folder / UNFINISHED / f"{shard:05d}.npz"


@dataclass(frozen=True)
class Written:
    """One finished shard.

    Attributes:
        shard: its number.
        record: its size and SHA-256.
        scale, offset: ``n 3`` float32 of its traces.
        skipped: row in the set and reason of each trace that has no samples in it.
    """

    shard: int
    record: dict[str, Any]
    scale: np.ndarray
    offset: np.ndarray
    skipped: list[tuple[int, str]]

    def damaged(self) -> int:
        """How many traces could not be read."""
        return sum(reason != NO_RATIO for _, reason in self.skipped)


def write_shard(job: Job, shard: int) -> int:
    """Read, encode and write the traces of a shard; a damaged one is zeros, so that the others stay in their places.

    Returns:
        the number of the shard.
    """
    reader, plan = Reader(job.catalogue, 0), job.plan
    rows, digest, skipped = plan.rows(shard), hashlib.sha256(), []
    scale, offset = np.ones((len(rows), 3), np.float32), np.zeros((len(rows), 3), np.float32)
    live = job.catalogue.live(np.arange(rows.start, rows.stop))
    with atomic(job.folder / shard_name(shard)) as file:
        for at, row in enumerate(rows):
            has = live[at]
            packed = np.zeros(int(plan.size[row]), np.float16)
            try:
                if plan.usable[row]:
                    packed, scale[at, has], offset[at, has] = encode(reader.trace(row)[has])
                else:
                    skipped.append((row, NO_RATIO))
            except (OSError, KeyError) as error:
                skipped.append((row, f"damaged: {error}"))
            data = packed.tobytes()
            digest.update(data)
            file.write(data)
        record = {"bytes": file.tell(), "sha256": digest.hexdigest()}
    with atomic(job.note(shard)) as file:
        np.savez(file, scale=scale, offset=offset, note=np.array(json.dumps({"record": record, "skipped": skipped})))
    return shard


def finished(job: Job, shard: int) -> Written | None:
    """A shard that this or a killed run has finished; None where it must be written."""
    path = job.folder / shard_name(shard)
    if not job.note(shard).is_file() or not path.is_file():
        return None
    with np.load(job.note(shard), allow_pickle=False) as note:
        said = json.loads(str(note["note"]))
        written = Written(shard, said["record"], note["scale"], note["offset"], [(row, why) for row, why in said["skipped"]])
    return written if path.stat().st_size == written.record["bytes"] else None


def write_shards(job: Job, shards: list[int], workers: int) -> Iterator[int]:
    """Write shards, in this process or in several, and yield their numbers as they are finished.

    Raises:
        DataError: a process died, or the disk is full.
    """
    try:
        if workers == 1 or len(shards) < 2:
            yield from (write_shard(job, shard) for shard in shards)
        else:
            yield from _in_processes(job, shards, min(workers, len(shards)))
    except OSError as error:
        raise DataError(
            f"{job.folder}: cannot be written ({error}). Free space, then run the same command: it goes on"
        ) from error
    except BrokenProcessPool as error:
        raise DataError(
            f"{job.folder}: a process that packed was killed or crashed, as for want of memory or by a file that crashes HDF5. "
            "Run the same command again: it goes on; with workers=1 it dies at the same trace or not at all"
        ) from error


def _in_processes(job: Job, shards: list[int], workers: int) -> Iterator[int]:
    # forks share the catalogue's memory; nothing runs in a thread here, not even the progress bar
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_adopt, initargs=(job,)) as pool:
        try:
            for done in as_completed([pool.submit(_write_mine, shard) for shard in shards]):
                yield done.result()
        finally:
            pool.shutdown(cancel_futures=True)


_MINE: list[Job] = []
"""The job of this process, sent once and not with every shard."""


def _adopt(job: Job) -> None:
    _MINE[:] = [job]
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A pool's processes would wait for ever for work from a parent that was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _write_mine(shard: int) -> int:
    return write_shard(_MINE[0], shard)
