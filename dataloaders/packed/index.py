"""A packed set as a piece of a catalogue: its rows are mapped from ``traces.npy``, nothing is parsed."""

from pathlib import Path

import numpy as np

from dataloaders.packed.files import ARRIVALS, MANIFEST, TRACE, TRACES, Manifest, checked_manifest, shard_name
from dataloaders.sets.index import Piece
from dataloaders.sets.layout import Layout
from dataloaders.sets.resample import RATE
from utils.errors import DataError

_AGAIN = "Find what is damaged with python -m dataloaders.pack verify={}, then copy or pack the set again"


def layouts() -> list[Layout]:
    """How a trace with the components of each ``live`` code 0 … 7 lies in its shard: those it has, in the order Z, N, E."""
    found = []
    for live in range(8):
        has = [component for component in range(3) if live >> component & 1]
        take = [has.index(component) if component in has else -1 for component in range(3)]
        found.append(Layout(-1, 0, (take[0], take[1], take[2])))
    return found


def live_codes(live: np.ndarray) -> np.ndarray:
    """``N 3`` bool to ``N`` uint8, bit 0, 1, 2 for Z, N, E."""
    return (live @ np.array([1, 2, 4])).astype(np.uint8)


def load_table(path: Path) -> np.ndarray:
    """A table of a packed set, mapped: processes on one machine share its memory.

    Raises:
        DataError: it is no such table.
    """
    try:
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))  # memmap's own indexing is slow
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}). {_AGAIN.format(path.parent)}") from error


def index_packed(which: int, folder: Path, manifest: Manifest | None = None) -> Piece:
    """The traces of a packed set.

    A block is a shard, a row the trace's number in the set, and the first sample is counted from the beginning of the shard.

    Args:
        which: number of the set, kept in the result.
        folder: of the set.
        manifest: of a set that is still being made; None: the one that is there.

    Raises:
        DataError: files are missing, truncated, or contradict each other.
    """
    manifest = manifest or checked_manifest(folder)
    table = load_table(folder / TRACES)
    if table.dtype != TRACE or table.shape != (manifest.traces,):
        raise DataError(f"{folder / TRACES}: must be {manifest.traces} rows of a packed set. {_AGAIN.format(folder)}")
    columns = {name: table[name] for name in ("first", "split", "event", "named")}
    columns["block"], columns["stored"] = table["shard"], table["samples"]
    columns["layout"] = table["live"].astype(np.int16)
    shards = manifest.shards()
    wrong = (table["shard"] < 0) | (table["shard"] >= max(shards, 1)) | (table["first"] < 0) | (table["samples"] < 0)
    wrong |= table["live"] > 7
    if wrong.any():
        raise DataError(f"{folder / TRACES}: row {int(wrong.argmax())} lies in no shard. {_AGAIN.format(folder)}")
    columns["row"] = np.arange(manifest.traces, dtype=np.int32)
    columns["rate"] = np.full(manifest.traces, RATE, np.float32)
    blocks = np.array([shard_name(number).encode() for number in range(shards)])
    files = folder / TRACES, folder / MANIFEST
    return Piece(which, *files, blocks, layouts(), columns, manifest.has_split, manifest.has_events)


def arrivals_dtype(width: int) -> np.dtype:
    """A row of ``arrivals.npy``: onsets in time order in samples at 100 Hz, numbers of their phases, and whether it is noise."""
    return np.dtype([("sample", "<f8", (width,)), ("name", "<i2", (width,)), ("noise", "?")])


def has_arrivals(manifest: Manifest) -> bool:
    """Whether the set has arrivals of P or S."""
    return ARRIVALS in manifest.files
