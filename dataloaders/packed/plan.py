"""Which trace goes where, decided before anything is read, so that shards can be written in any order and again."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dataloaders.packed.files import MANIFEST, UNFINISHED, VERSION, atomic, checked_manifest
from dataloaders.sets.catalogue import Catalogue
from dataloaders.sets.names import chunks_of
from dataloaders.sets.resample import is_100_hz
from utils.errors import DataError

NO_RATIO = "at a rate without a small ratio to 100 Hz"


@dataclass(frozen=True)
class Plan:
    """Where the traces of a catalogue go.

    Attributes:
        shard: ``N`` int32.
        first: ``N`` int32, sample of the shard at which a trace begins.
        size: ``N`` int64, samples of all its components together.
        usable: ``N`` bool; the others have no rate that leads to 100 Hz.
    """

    shard: np.ndarray
    first: np.ndarray
    size: np.ndarray
    usable: np.ndarray

    def shards(self) -> int:
        """How many there are, at least one."""
        return int(self.shard[-1]) + 1

    def rows(self, shard: int) -> range:
        """The traces of a shard, which follow each other."""
        low, high = np.searchsorted(self.shard, [shard, shard + 1]).tolist()
        return range(low, high)

    def bytes(self) -> int:
        """Of all shards."""
        return 2 * int(self.size.sum())


def plan(catalogue: Catalogue, shard_samples: int) -> Plan:
    """Traces one after the other in their order; a shard ends with the trace that fills it.

    Args:
        catalogue: at 100 Hz.
        shard_samples: samples a shard, at least.
    """
    usable = is_100_hz(catalogue.rate) | (catalogue.ratio != 0)
    size = catalogue.live(np.arange(len(catalogue))).sum(1) * catalogue.length.astype(np.int64) * usable
    begin = np.cumsum(size) - size
    _, shard = np.unique(begin // shard_samples, return_inverse=True)
    shard = shard.reshape(-1).astype(np.int32)
    origin = begin[np.searchsorted(shard, np.arange(shard[-1] + 1))]
    return Plan(shard, (begin - origin[shard]).astype(np.int32), size, usable)


def identity(source: Path, shard_mib: int) -> dict[str, Any]:
    """What a continued run must have in common with the one that was killed."""
    files = [path for _, *paths in chunks_of(source) for path in paths]
    stats = [(path.name, (stat := path.stat()).st_size, stat.st_mtime_ns) for path in files]
    return {"version": VERSION, "shard_mib": shard_mib, "files": [list(each) for each in stats]}


def _locked(place: int) -> bool:
    """Lock an open folder; False where somebody else has. Some network disks lock no folders: as without a lock."""
    with suppress(OSError):
        try:
            fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a folder against other packings, by a lock that ends with this process and those it started, however they end.

    Raises:
        DataError: another process packs into it.
    """
    place = os.open(folder, os.O_RDONLY)
    try:
        if not _locked(place):
            raise DataError(f"{folder}: another process is packing into it. Wait for it, or give another output")
        yield
    finally:
        os.close(place)


def begin(folder: Path, stated: dict[str, Any]) -> bool:
    """Open the folder of a pack.

    Args:
        folder: of the packed set, made if it is not there.
        stated: :func:`identity` of this run.

    Returns:
        whether there is anything to do: False where the set is complete.

    Raises:
        DataError: the folder holds something else, or a pack of other files or settings.
    """
    path = folder / UNFINISHED / "plan.json"
    found = checked_manifest(folder).origin if (folder / MANIFEST).is_file() else None
    if found is None and path.is_file():
        found = json.loads(path.read_text())
    if found is not None:
        if found != stated:
            raise DataError(
                f"{folder}: holds a pack made with other settings, or its source has changed since. "
                "Delete that folder to begin anew, or give another output"
            )
        for partial in (folder / "shards").glob(".*.partial"):
            partial.unlink(missing_ok=True)
        return not (folder / MANIFEST).is_file()
    if folder.is_dir() and any(entry.name not in (UNFINISHED, "shards") for entry in folder.iterdir()):
        raise DataError(f"{folder}: must be empty or not there, but holds other files. Give another output")
    (folder / "shards").mkdir(parents=True, exist_ok=True)
    (folder / UNFINISHED).mkdir(exist_ok=True)
    with atomic(path) as file:
        file.write(json.dumps(stated).encode())
    return True
