"""From finished shards to a set: its tables, its manifest, and a comparison with the source before it counts as complete."""

import csv
import io
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dataloaders.packed.encode import beyond
from dataloaders.packed.files import ARRIVALS, SKIPPED, TRACE, TRACES, Manifest, atomic, fingerprint, shard_name
from dataloaders.packed.index import arrivals_dtype, index_packed, live_codes
from dataloaders.packed.metadata import write_metadata
from dataloaders.packed.write import Job, Written
from dataloaders.sets.arrivals import Arrivals
from dataloaders.sets.catalogue import join
from dataloaders.sets.names import chunks_of, folder_of
from dataloaders.sets.reader import Reader
from dataloaders.sets.resample import RATE
from utils.errors import DataError


@dataclass(frozen=True)
class Origin:
    """The set that is packed.

    Attributes:
        name: as it was given.
        identity: of its files.
        has_split, has_events: whether its metadata say so.
        arrivals: in stored samples; None where it has none of P or S.
    """

    name: str
    identity: dict[str, Any]
    has_split: bool
    has_events: bool
    arrivals: Arrivals | None


def write_tables(job: Job, origin: Origin, shards: list[Written]) -> Manifest:
    """Write everything but the manifest, and return that.

    Args:
        job: whose shards are finished.
        origin: the source.
        shards: all of them, in order.
    """
    folder, skipped = job.folder, [each for shard in shards for each in shard.skipped]
    files = {shard_name(shard.shard): shard.record for shard in shards}
    _write_traces(job, shards, [row for row, _ in skipped])
    _write_skipped(folder, job, skipped)
    if origin.arrivals is not None:
        _write_arrivals(job, origin.arrivals)
    rows, chunks = 0, [(chunk, path) for chunk, path, _ in chunks_of(folder_of(origin.name))]
    for chunk, path in chunks:
        rows += write_metadata(path, folder / f"metadata{chunk}.csv", job.catalogue, rows)
    names = [TRACES, *([SKIPPED] if skipped else []), *([ARRIVALS] if origin.arrivals else [])]
    names += [f"metadata{chunk}.csv" for chunk, _ in chunks]
    return Manifest(
        source=origin.name,
        origin=origin.identity,
        rate=RATE,
        traces=len(job.catalogue),
        left_out=dict(Counter(reason.partition(":")[0] for _, reason in skipped)),
        chunks=[chunk for chunk, _ in chunks],
        phases=list(origin.arrivals.names) if origin.arrivals else [],
        other=dict(origin.arrivals.other) if origin.arrivals else {},
        has_split=origin.has_split,
        has_events=origin.has_events,
        files=files | {name: fingerprint(folder / name) for name in names},
    )


def _write_traces(job: Job, shards: list[Written], left_out: list[int]) -> None:
    catalogue, table = job.catalogue, np.zeros(len(job.catalogue), TRACE)
    table["shard"], table["first"], table["samples"] = job.plan.shard, job.plan.first, catalogue.length
    table["samples"][left_out] = 0
    table["live"] = live_codes(catalogue.live(np.arange(len(catalogue))))
    table["split"], table["named"], table["event"] = catalogue.split, catalogue.named, catalogue.event
    table["scale"] = np.concatenate([shard.scale for shard in shards])
    table["offset"] = np.concatenate([shard.offset for shard in shards])
    _save(job.folder / TRACES, table)


def _write_arrivals(job: Job, arrivals: Arrivals) -> None:
    table = np.zeros(len(job.catalogue), arrivals_dtype(arrivals.sample.shape[1]))
    table["sample"] = job.catalogue.onsets(np.arange(len(job.catalogue)), arrivals.sample)
    table["name"], table["noise"] = arrivals.name, arrivals.noise
    _save(job.folder / ARRIVALS, table)


def _save(path: Path, table: np.ndarray) -> None:
    with atomic(path) as file:
        np.save(file, table, allow_pickle=False)


def _write_skipped(folder: Path, job: Job, skipped: list[tuple[int, str]]) -> None:
    """The list of traces without samples: row from 0, where it was, why."""
    if not skipped:
        return
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["row", "trace", "reason"])
    writer.writerows([row, job.catalogue.trace_name(row), reason] for row, reason in skipped)
    with atomic(folder / SKIPPED) as file:
        file.write(text.getvalue().encode())


def compare(job: Job, manifest: Manifest, count: int, advance: Callable[[int], None]) -> float:
    """Read a random sample of whole traces from both sets, the packed one in the way training does.

    Args:
        job: with the source.
        manifest: of the packed set, not on disk yet.
        count: traces to compare, at most.
        advance: called with the number of traces compared since the last call.

    Returns:
        the largest error, relative to the largest deviation of its trace from the median.

    Raises:
        DataError: a sample is farther off than float16 explains; names the trace.
    """
    packed = join([str(job.folder)], [index_packed(0, job.folder, manifest)])
    kept = np.flatnonzero((packed.stored > 0) & packed.live(np.arange(len(packed))).any(1))
    chosen = np.sort(np.random.default_rng(0).permutation(kept)[:count])
    table, source, ours, worst = np.load(job.folder / TRACES, mmap_mode="r"), Reader(job.catalogue, 0), Reader(packed, 0), 0.0
    for row in chosen.tolist():
        wave, length = source.trace(row), int(packed.length[row])
        read = ours.read(np.array([row]), np.zeros(1, np.int64), np.array([length]), length)[0][0].T
        scale, offset = table[row]["scale"], table[row]["offset"]
        far = beyond(wave, read, scale, offset)
        if far:
            raise DataError(
                f"{job.folder}: {far} samples of {job.catalogue.trace_name(row)} differ from the source by more than float16 "
                "explains. Delete that folder and pack again; if it happens again, suspect the disk or the memory"
            )
        finite = np.isfinite(wave)
        peak = np.abs(np.where(finite, wave.astype(np.float64) - offset[:, None], 0)).max()
        error = np.abs(np.where(finite, wave.astype(np.float64) - np.where(finite, read, 0), 0)).max()
        worst = max(worst, float(error / peak) if peak else 0.0)
        advance(1)
    return worst
