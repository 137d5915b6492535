"""What a picker is asked: windows of the three tasks of pick-benchmark (Münchmeyer et al. 2022, doi:10.1029/2021JB023499).

Files are exchangeable both ways: ``task1.csv`` (is there an earthquake in these 30 s?) and ``task23.csv`` (which phase is in
these 10 s, and when does it begin?), dev and test rows, at 100 Hz. One column is ours: ``trace_chunk``, since trace names
repeat across chunks; several sets in one file add ``trace_set``. Windows are a function of seed, chunk and trace name alone.
"""

from collections import Counter
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
import pandas as pd

from dataloaders.sets.splits import SPLITS
from evaluation.records import Records
from utils.rng import uniform

COMMON = ("trace_name", "trace_idx", "trace_split", "sampling_rate", "start_sample", "end_sample")
TASK1 = (*COMMON, "trace_type")
TASK23 = (*COMMON, "phase_label", "full_phase_label", "phase_onset")
"""Columns of the two files, as pick-benchmark has them."""
FILES = {"1": TASK1, "23": TASK23}

DETECTION = 3000
"""Samples of a window of task 1."""
ONSET = 1000
"""Samples of a window of tasks 2 and 3."""
DETECTION_MARGIN, ONSET_MARGIN = 100, 50
"""Samples between the onset and the edges of its window."""
NEIGHBOUR = 50
"""Samples that a window keeps from the onsets before and after its own."""
SHORTEST = 100
"""A window of so many samples or fewer is dropped."""


class Windows(NamedTuple):
    """Windows as parallel arrays: number of the trace, first sample, end (exclusive)."""

    row: np.ndarray
    start: np.ndarray
    end: np.ndarray


def between(low: np.ndarray, high: np.ndarray, chance: np.ndarray) -> np.ndarray:
    """A whole number from ``low`` to ``high``, both included, by a chance in 0 … 1."""
    count = (high - low + 1).astype(np.int64)
    return low.astype(np.int64) + np.minimum((chance.astype(np.float64) * count).astype(np.int64), count - 1)


def detection_windows(first: np.ndarray, length: np.ndarray, chance: np.ndarray) -> Windows:
    """30 s around the first arrival; anywhere in a trace that has none. A shorter trace is used whole.

    Where the trace ends near the arrival, the window keeps its margin only as far as the trace reaches.

    Args:
        first: ``N`` float, the first arrival in samples, NaN: none.
        length: ``N``, samples of each trace.
        chance: ``N`` in 0 … 1, where in the admissible range.
    """
    last = np.maximum(np.asarray(length, np.int64) - DETECTION, 0)
    arrives = np.isfinite(first)
    onset = np.where(arrives, first, 0.0)
    low = np.where(arrives, np.clip(np.ceil(onset) - DETECTION + DETECTION_MARGIN, 0, last), 0)
    high = np.where(arrives, np.clip(np.floor(onset) - DETECTION_MARGIN, 0, last), last)
    return _long_enough(np.arange(len(last)), between(low, high, chance), DETECTION, length)


def noise_windows_before(first: np.ndarray, length: np.ndarray, chance: np.ndarray) -> Windows:
    """30 s of noise that end before the first arrival, of traces where it comes after sample 3000."""
    late = np.flatnonzero(first > DETECTION)
    high = np.floor(first[late]).astype(np.int64) - DETECTION
    return _long_enough(late, between(np.zeros_like(high), high, chance[late]), DETECTION, length)


def _long_enough(row: np.ndarray, start: np.ndarray, samples: int, length: np.ndarray) -> Windows:
    end = np.minimum(start + samples, np.asarray(length, np.int64)[row])
    keep = end - start > SHORTEST
    return Windows(row[keep], start[keep], end[keep])


def onset_windows(onset: np.ndarray, length: np.ndarray, chance: np.ndarray) -> tuple[Windows, np.ndarray, Counter[str]]:
    """10 s around every arrival that has so much room between its neighbours.

    Args:
        onset: ``N P`` float, in samples, sorted in time, NaN: none.
        length: ``N``, samples of each trace.
        chance: ``N P`` in 0 … 1.

    Returns:
        (windows; which of the trace's arrivals each is about; arrivals left out, counted by reason).
    """
    none = np.full((len(onset), 1), np.nan)
    before, after = (np.concatenate(pair, 1) for pair in ((none, onset[:, :-1]), (onset[:, 1:], none)))
    low = np.where(np.isfinite(before), np.ceil(before + NEIGHBOUR), 0)
    high = np.where(np.isfinite(after), np.floor(after - NEIGHBOUR), np.asarray(length)[:, None])
    given = np.isfinite(onset)
    roomy = given & (high - low >= ONSET)
    inside = roomy & (onset - low >= ONSET_MARGIN) & (high - onset >= ONSET_MARGIN)
    counts = {
        "arrivals with less than 10 s between their neighbours, or the ends of the trace": int((given & ~roomy).sum()),
        "arrivals within 0.5 s of the end of their room": int((roomy & ~inside).sum()),
    }
    row, column = np.nonzero(inside)
    own, low, high = onset[inside], low[inside], high[inside] - ONSET
    first = np.maximum(np.ceil(own) - ONSET + ONSET_MARGIN, low)
    last = np.minimum(np.floor(own) - ONSET_MARGIN, high)
    start = between(first, last, chance[inside])
    return Windows(row, start, start + ONSET), column, Counter({what: count for what, count in counts.items() if count})


def identities(records: Records, rows: np.ndarray) -> np.ndarray:
    """A 64-bit number for each trace, of its chunk and name alone: what its random numbers hang on."""
    words = (f"{records.chunk[row]}/{records.name[row]}".encode() for row in rows.tolist())
    return np.array([int.from_bytes(blake2b(word, digest_size=8).digest(), "little", signed=True) for word in words], np.int64)


def make_task1(records: Records, seed: int = 0) -> tuple[pd.DataFrame, Counter[str]]:
    """``task1.csv`` of sets.

    Args:
        records: the traces.
        seed: of the windows' positions.

    Returns:
        (the table, columns :data:`TASK1` and ``trace_chunk``; what was left out and how often).
    """
    rows = np.flatnonzero(records.usable)
    first, length = (
        records.onset[rows].min(1, initial=np.inf, where=np.isfinite(records.onset[rows])),
        records.catalogue.length[rows],
    )
    first = np.where(np.isfinite(first), first, np.nan)
    scored = np.isfinite(first) | records.noise[rows]
    skipped = Counter({"earthquakes without a usable P or S pick": int((~scored).sum())}) if (~scored).any() else Counter()
    rows, first, length = rows[scored], first[scored], length[scored]
    chance = uniform(seed, np.zeros_like(rows), identities(records, rows), "targets/detection", 2)
    own = detection_windows(first, length, chance[:, 0])
    certain = np.where(records.known[rows, 0], first, np.nan)  # before an S there may be a P that nobody picked
    before = noise_windows_before(certain, length, chance[:, 1])
    if ((first > DETECTION) & np.isnan(certain)).any():
        skipped["noise windows before an S whose P is unlabelled"] = int(((first > DETECTION) & np.isnan(certain)).sum())
    if len(own.row) < len(rows):
        skipped["traces of 1 s or less"] = len(rows) - len(own.row)
    kind = [np.where(np.isfinite(first[own.row]), "earthquake", "noise"), np.full(len(before.row), "noise")]
    windows = Windows(*(np.concatenate(pair) for pair in zip(own, before, strict=True)))
    table = _table(records, rows, windows).assign(trace_type=np.concatenate(kind).astype(object))
    order = np.lexsort((table["start_sample"], table["trace_idx"]))
    return _ordered(table.iloc[order].reset_index(drop=True), TASK1, records), skipped


def make_task23(records: Records, seed: int = 0) -> tuple[pd.DataFrame, Counter[str]]:
    """``task23.csv`` of sets: as :func:`make_task1`, with columns :data:`TASK23`."""
    rows = np.flatnonzero(records.usable)
    onset = records.onset[rows]
    chance = uniform(seed, np.zeros_like(rows), identities(records, rows), "targets/onset", onset.shape[1])
    windows, column, skipped = onset_windows(onset, records.catalogue.length[rows], chance)
    at = rows[windows.row], column
    table = _table(records, rows, windows).assign(
        phase_label=np.array(["P", "S"], dtype=object)[records.phase[at]],
        full_phase_label=records.full[at],
        phase_onset=records.onset[at],
    )
    return _ordered(table, TASK23, records), skipped


def make_targets(records: Records, seed: int = 0) -> tuple[dict[str, pd.DataFrame], Counter[str]]:
    """Both files by the number of their task, and what was left out."""
    (one, without), (two, crowded) = make_task1(records, seed), make_task23(records, seed)
    return {"1": one, "23": two}, without + crowded


def _table(records: Records, rows: np.ndarray, windows: Windows) -> pd.DataFrame:
    traces = rows[windows.row]
    return pd.DataFrame(
        {
            "trace_name": records.name[traces],
            "trace_idx": traces,
            "trace_split": np.array(SPLITS, dtype=object)[records.catalogue.split[traces]],
            "sampling_rate": records.rate,
            "start_sample": windows.start,
            "end_sample": windows.end,
            "trace_chunk": records.chunk[traces],
        }
    )


def _ordered(table: pd.DataFrame, columns: tuple[str, ...], records: Records) -> pd.DataFrame:
    """Columns in the benchmark's order, ours last; noise of INSTANCE has the benchmark's prefix."""
    table = table.reindex(columns=[*columns, "trace_chunk"])
    which = records.catalogue.which[table["trace_idx"].to_numpy()]
    names = np.array(records.sets, dtype=object)
    if len(names) > 1:
        table["trace_set"] = names[which]
    noise = np.array([is_noise_set(name) for name in names], bool)[which]
    table["trace_name"] = np.where(noise, NOISE_PREFIX + table["trace_name"], table["trace_name"])
    return table


NOISE_PREFIX = "noise_"
"""The benchmark's mark of INSTANCE's noise traces, whose names repeat those of its earthquakes."""


def is_noise_set(name: str) -> bool:
    """Whether a set's traces carry :data:`NOISE_PREFIX` in target files."""
    return name.lower() == "instancenoise"
