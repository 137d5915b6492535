"""The files of a packed set: their names, their manifest, and writing them all or not at all."""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from utils.errors import DataError

MANIFEST = "manifest.json"
TRACES = "traces.npy"
ARRIVALS = "arrivals.npy"
SKIPPED = "skipped.csv"
UNFINISHED = "unfinished"
"""Folder with what a killed run needs to go on; gone when the set is complete."""
FORMAT, VERSION = "wavexlstm packed set", 1
TRACE = np.dtype(
    [
        ("shard", "<i4"),
        ("first", "<i4"),  # sample of the shard at which the trace begins
        ("samples", "<i4"),  # of each component; 0 for a trace that was left out
        ("live", "u1"),  # bit 0, 1, 2: has a Z, N, E
        ("split", "i1"),
        ("named", "?"),
        ("event", "<i8"),
        ("scale", "<f4", (3,)),
        ("offset", "<f4", (3,)),
    ]
)
"""A row of ``traces.npy``, 47 bytes."""
_NAME = re.compile(r"shards/\d{5}\.f16|traces\.npy|arrivals\.npy|skipped\.csv|metadata[\w.-]*\.csv")
_AGAIN = "Copy it again, or pack the set again with python -m dataloaders.pack"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a packed set consists of.

    Attributes:
        format, version: of the files.
        source: the set it was made from, as it was named.
        origin: names, sizes and times of that set's files.
        rate: Hz.
        traces: number of rows, those left out included, so that a trace keeps its number.
        left_out: how many traces have no samples here, by reason.
        chunks: names of the chunks of the metadata.
        phases: names of the phases in ``arrivals.npy``, by number.
        other: phases that are neither P nor S, with the number of their arrivals.
        has_split, has_events: whether the metadata say so.
        files: by name: ``{"bytes": …, "sha256": …}``.
    """

    format: str = FORMAT
    version: int = VERSION
    source: str
    origin: dict[str, Any]
    rate: float
    traces: int
    left_out: dict[str, int]
    chunks: list[str]
    phases: list[str]
    other: dict[str, int]
    has_split: bool
    has_events: bool
    files: dict[str, dict[str, Any]]

    def shards(self) -> int:
        """How many shards there are."""
        return sum(name.startswith("shards/") for name in self.files)


def shard_name(number: int) -> str:
    """``"shards/00012.f16"``."""
    return f"shards/{number:05d}.f16"


def is_packed(folder: Path) -> bool:
    """Whether a folder holds a packed set, complete or not; says nothing about its state."""
    return (folder / MANIFEST).is_file() or (folder / UNFINISHED).is_dir()


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a packed set.

    Raises:
        DataError: the set is unfinished, of another version, or its manifest was damaged or edited.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise DataError(f"{folder}: packing was not finished. Run the same python -m dataloaders.pack again: it goes on there")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read ({error}). {_AGAIN}") from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise DataError(f"{path}: 'format' must be '{FORMAT}'. This is no packed set; {_AGAIN.lower()}")
    if values.get("version") != VERSION:
        raise DataError(f"{path}: version = {values.get('version')}: this code reads version {VERSION}. {_AGAIN}")
    stated = values.pop("checksum", None)
    if stated != _checksum(values) or set(values) != {field.name for field in fields(Manifest)}:
        raise DataError(f"{path}: does not agree with its own checksum; it was damaged or edited. {_AGAIN}")
    strange = [name for name in values["files"] if not _NAME.fullmatch(name)]
    if strange:
        raise DataError(f"{path}: names '{strange[0]}', which is no file of a packed set. {_AGAIN}")
    return Manifest(**values)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write it; from then on the set is complete."""
    values = asdict(manifest)
    text = json.dumps(values | {"checksum": _checksum(values)}, indent=1)
    with atomic(folder / MANIFEST) as file:
        file.write(text.encode())


def _checksum(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def wrong_sizes(folder: Path, manifest: Manifest) -> list[str]:
    """Files that are missing or have another size than they were written with, in words."""
    wrong = []
    for name, stated in manifest.files.items():
        path = folder / name
        size = path.stat().st_size if path.is_file() else None
        if size is None:
            wrong.append(f"{path}: is missing")
        elif size != stated["bytes"]:
            wrong.append(f"{path}: has {size:,} bytes where the manifest says {stated['bytes']:,}")
    return wrong


def checked_manifest(folder: Path) -> Manifest:
    """The manifest of a set whose files all have their sizes: what can be known without reading them.

    Raises:
        DataError: as :func:`read_manifest`, or a file is missing or truncated.
    """
    manifest = read_manifest(folder)
    wrong = wrong_sizes(folder, manifest)
    if wrong:
        raise DataError(f"{wrong[0]}{f' (and {len(wrong) - 1} files more)' if wrong[1:] else ''}. {_AGAIN}")
    return manifest


def fingerprint(path: Path, advance: Callable[[int], None] = lambda count: None) -> dict[str, Any]:
    """Size and SHA-256 of a file, as the manifest has them.

    Args:
        path: the file.
        advance: called with the bytes read since the last call.
    """
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
            size += len(block)
            advance(len(block))
    return {"bytes": size, "sha256": digest.hexdigest()}


@contextmanager
def atomic(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which gets its name, on the disk for good, when the block ends without an error."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    finally:
        partial.unlink(missing_ok=True)
