"""Arrivals in a set's metadata: every ``trace_<phase>_arrival_sample`` column whose phase is a P or an S."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path

import numpy as np
import pandas as pd

from dataloaders.packed.files import ARRIVALS, is_packed, read_manifest
from dataloaders.packed.index import arrivals_dtype, has_arrivals, load_table
from dataloaders.sets.metadata import EVENT_COLUMNS
from dataloaders.sets.names import chunks_of, folder_of
from utils.errors import DataError

_P, _S = ("p", "pP", "P", "P1", "Pg", "Pn", "PmP", "pwP", "pwPm"), ("s", "S", "S1", "Sg", "SmS", "Sn")
PHASES = dict.fromkeys(_P, 0) | dict.fromkeys(_S, 1)
"""Which onsets count as P (0) and S (1), as in the benchmark of Münchmeyer et al. (2022)."""
_COLUMN = re.compile(r"trace_(.+)_arrival_sample")
_CATEGORY = "trace_category"


@dataclass(frozen=True)
class Arrivals:
    """The arrivals of a list of sets, row by row as in the :class:`~dataloaders.sets.catalogue.Catalogue` of the same list.

    Attributes:
        names: full names of the phases, by number (``"Pn"``).
        sample: ``N P`` float64, onset in stored samples from the beginning of the trace, NaN: none; sorted in time.
        name: ``N P`` int16, number in ``names``, −1: none.
        phase: ``N P`` int8, 0 for P, 1 for S, −1: none.
        noise: ``N`` bool, traces that show no earthquake, so that nothing is to be picked.
        other: columns of phases that are neither P nor S, with the number of their arrivals.
    """

    names: tuple[str, ...]
    sample: np.ndarray
    name: np.ndarray
    phase: np.ndarray
    noise: np.ndarray
    other: Counter[str]

    def picked(self) -> np.ndarray:
        """``N 2`` bool: whether P (S) of the trace was picked at all."""
        return np.stack([(self.phase == phase).any(1) for phase in (0, 1)], 1)


def read_arrivals(names: Sequence[str]) -> Arrivals:
    """Arrivals of sets by name or folder, in the order given.

    Raises:
        DataError: a set has no column of P or S arrivals, or one holds something else than numbers; lists what the file has.
    """
    parts = []
    for name in names:
        folder = folder_of(name)
        packed = load_arrivals(folder) if is_packed(folder) else None
        parts += [packed] if packed else [_read(metadata) for _, metadata, _ in chunks_of(folder)]
    if len(parts) == 1:
        return parts[0]
    phases = tuple(dict.fromkeys(phase for part in parts for phase in part.names))
    width = max(part.sample.shape[1] for part in parts)
    blocks = [_widened(part, phases, width) for part in parts]
    sample, name, phase = (np.concatenate([block[at] for block in blocks]) for at in range(3))
    other: Counter[str] = Counter()
    for part in parts:
        other.update(part.other)
    return Arrivals(phases, sample, name, phase, np.concatenate([part.noise for part in parts]), other)


def load_arrivals(folder: Path) -> Arrivals | None:
    """Arrivals of a packed set, their samples mapped from its file; None where it has no P or S.

    Raises:
        DataError: the set is damaged.
    """
    manifest = read_manifest(folder)
    if not has_arrivals(manifest):
        return None
    table = load_table(folder / ARRIVALS)
    width = table.dtype["name"].shape[0] if table.dtype.names and "name" in table.dtype.names and table.ndim == 1 else 0
    if table.dtype != arrivals_dtype(width) or len(table) != manifest.traces:
        raise DataError(f"{folder / ARRIVALS}: must be {manifest.traces} rows of arrivals. Copy it again, or pack the set again")
    name, number = table["name"], len(manifest.phases)
    if ((name < -1) | (name >= number)).any() or not set(manifest.phases) <= set(PHASES):
        raise DataError(f"{folder / ARRIVALS}: holds phases that it has no name for. Copy it again, or pack the set again")
    phases = tuple(manifest.phases)
    return Arrivals(phases, table["sample"], name, _kinds(phases)[name], np.array(table["noise"]), Counter(manifest.other))


def _kinds(phases: tuple[str, ...]) -> np.ndarray:
    """0 for P, 1 for S by number of the phase; the last, which −1 finds, is −1."""
    return np.array([PHASES[phase] for phase in phases] + [-1], np.int8)


def _read(path: Path) -> Arrivals:
    """Arrivals of one chunk."""
    header = [str(name) for name in pd.read_csv(path, nrows=0).columns]
    found = {name: match[1] for name in header if (match := _COLUMN.fullmatch(name))}
    wanted = {name: phase for name, phase in found.items() if phase in PHASES}
    misspelt = [name for name in header if name not in found and _nearly_arrivals(name)]
    if not wanted or misspelt:
        what = f"columns {', '.join(misspelt)} look misspelt" if misspelt else "there is no column of P or S arrivals"
        raise DataError(
            f"{path}: {what}. Arrivals are called trace_<phase>_arrival_sample, with a phase among {', '.join(PHASES)}. "
            f"The file has: {', '.join(header)}"
        )
    extra = [name for name in (_CATEGORY, "trace_name", *EVENT_COLUMNS) if name in header]
    frame = pd.read_csv(path, usecols=[*found, *extra], dtype=str, keep_default_na=False)
    columns = {phase: _numbers(frame.loc[:, name], path) for name, phase in found.items()}
    other = Counter({name: int(np.isfinite(columns[phase]).sum()) for name, phase in found.items() if phase not in PHASES})
    samples = {phase: column for phase, column in columns.items() if phase in PHASES}
    phases = tuple(samples)
    sample, name = _sorted(samples)
    other = Counter({name: count for name, count in other.items() if count})
    return Arrivals(phases, sample, name, _kinds(phases)[name], _noise(frame, samples), other)


def _nearly_arrivals(name: str) -> bool:
    """Whether a column's name differs from that of arrivals by a letter or two, so that they would be lost in silence."""
    return SequenceMatcher(None, re.sub(r"^trace_[^_]+_", "", name), "arrival_sample").ratio() > 0.85


def _numbers(column: pd.Series, path: Path) -> np.ndarray:
    """A column of samples as float64, NaN where it is empty."""
    text = column.str.strip()
    values = np.asarray(pd.to_numeric(text, errors="coerce"), dtype=np.float64)
    empty = text.str.lower().isin(["", "nan", "none", "na", "<na>"])
    wrong = ~np.isfinite(values) & ~np.asarray(empty, dtype=bool)
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(
            f"{path}, column '{column.name}', row {row + 1}: '{column.iloc[row]}' is no sample number. "
            "Arrivals are counted in samples from the beginning of the trace; leave the field empty where there is none"
        )
    return values


def _noise(frame: pd.DataFrame, samples: dict[str, np.ndarray]) -> np.ndarray:
    """Traces without any arrival that are noise: by category or name where these say so, else those without an event."""
    none = ~np.stack([np.isfinite(column) for column in samples.values()]).any(0)
    if _CATEGORY in frame:
        category = frame[_CATEGORY].str.lower()
        return none & np.asarray(category.str.contains("noise"), dtype=bool)
    named = np.asarray(frame["trace_name"].str.lower().str.startswith("noise"), dtype=bool)
    events = [frame[column].str.strip() for column in EVENT_COLUMNS if column in frame]
    without = np.ones(len(frame), bool)
    for column in events:
        without &= np.asarray(column == "", dtype=bool)
    return none & (named | without)


def _sorted(samples: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(samples ``N P`` in time order, numbers of their phases ``N P``) with P the most that a trace has, at least one.

    NaN and −1 stand where a trace has fewer.
    """
    sample = np.stack(list(samples.values()), 1)
    width = max(1, int(np.isfinite(sample).sum(1).max(initial=0)))
    name = np.argsort(sample, axis=1, kind="stable")[:, :width]  # NaN last
    sample = np.take_along_axis(sample, name, 1)
    return sample, np.where(np.isnan(sample), -1, name).astype(np.int16)


def _widened(part: Arrivals, phases: tuple[str, ...], width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``sample``, ``name`` and ``phase`` of a part, ``N width``, the names numbered as in ``phases``."""
    number = np.array([phases.index(phase) for phase in part.names] + [-1], np.int16)
    pad = ((0, 0), (0, width - part.sample.shape[1]))
    filled = ((part.sample, np.nan), (number[part.name], -1), (part.phase, -1))
    sample, name, phase = (np.pad(values, pad, constant_values=empty) for values, empty in filled)
    return sample, name, phase
