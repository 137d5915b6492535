"""Labelled traces that picks are scored on: what metadata say of each, and how to read its samples at 100 Hz."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from dataloaders.sets.arrivals import Arrivals, read_arrivals
from dataloaders.sets.catalogue import Catalogue, open_sets
from dataloaders.sets.names import chunks_of, folder_of
from dataloaders.sets.reader import Reader
from dataloaders.sets.resample import RATE, is_100_hz
from dataloaders.sources.phase_pick import Labels, Unlabelled, impure, labels_of
from utils.errors import DataError

DEV, TEST = 1, 2
"""Numbers of the splits in a catalogue."""
MAX_DAMAGED = 0.01
"""Share of the traces that may turn out damaged before an evaluation stops."""


@dataclass(frozen=True)
class Records:
    """The traces of a list of sets, N, with their valid arrivals, at most P each.

    Attributes:
        catalogue: where they are, at 100 Hz; a row number is a trace's number here too.
        sets: name of each set, for tables and folders.
        name: ``N`` str, ``trace_name`` of the metadata.
        chunk: ``N`` str, chunk of the set it lies in.
        source: ``N`` str, ``source_dataset`` of the metadata, else the name of the set.
        onset: ``N P`` float64, samples at 100 Hz, sorted in time, NaN: none.
        phase: ``N P`` int8, 0 for P, 1 for S, −1: none.
        full: ``N P`` str, the phase as the metadata call it, empty: none.
        known: ``N 2`` bool, False where P (S) is unlabelled: it may be there, nobody looked.
        noise: ``N`` bool, traces that count as noise.
        usable: ``N`` bool, traces of dev and test that can be scored.
        skipped: what is not used and how often.
        reader: cuts windows out of them.
    """

    catalogue: Catalogue
    sets: tuple[str, ...]
    name: np.ndarray
    chunk: np.ndarray
    source: np.ndarray
    onset: np.ndarray
    phase: np.ndarray
    full: np.ndarray
    known: np.ndarray
    noise: np.ndarray
    usable: np.ndarray
    skipped: Counter[str]
    reader: Reader

    @property
    def rate(self) -> float:
        """Hz."""
        return RATE

    def of_split(self, split: int) -> np.ndarray:
        """Numbers of the usable traces of a split (:data:`DEV`, :data:`TEST`)."""
        return np.flatnonzero(self.usable & (self.catalogue.split == split))


def open_records(
    names: Sequence[str], *, split_seed: int = 0, unlabelled: Unlabelled = Unlabelled.mask, channels: int = 3
) -> Records:
    """Open sets by name or folder with everything that scoring needs.

    ``unlabelled=absent`` is the benchmark to the letter: a phase that was not picked is not there, and a trace without any
    arrival is noise, also where its metadata name an earthquake. With ``mask`` both are left out and counted.

    Args:
        names: SeisBench names, or folders in SeisBench's format.
        split_seed: of sets without a split of their own; as in training.
        unlabelled: what the absence of a phase means.
        channels: 1 where only Z is read: traces without it are left out.

    Raises:
        DataError: a set is missing, damaged, without columns of arrivals, or without usable traces in dev and test.
    """
    catalogue = open_sets(list(names), split_seed).at_100_hz()
    arrivals = read_arrivals(names)
    labels = labels_of(catalogue, arrivals, unlabelled)
    skipped = Counter(labels.skipped)
    onset, phase, full = _in_order(catalogue, arrivals, labels)
    texts = pd.concat([_texts(name) for name in names], ignore_index=True)
    usable = _usable(catalogue, channels, skipped)
    if not usable.any():
        raise DataError(
            f"{', '.join(names)}: no usable trace in dev and test, which evaluation needs. Left out: "
            + ", ".join(f"{count:,} {what}" for what, count in skipped.items())
        )
    return Records(
        catalogue=catalogue,
        sets=tuple(folder_of(name).name if Path(name).expanduser().is_dir() else name for name in names),
        name=texts["trace_name"].to_numpy(dtype=object),
        chunk=texts["trace_chunk"].to_numpy(dtype=object),
        source=texts["source"].to_numpy(dtype=object),
        onset=onset,
        phase=phase,
        full=full,
        known=labels.known,
        noise=labels.noise if unlabelled is Unlabelled.mask else np.logical_not((phase >= 0).any(1)),
        usable=usable,
        skipped=skipped,
        reader=Reader(catalogue, MAX_DAMAGED * int(usable.sum())),
    )


def _texts(name: str) -> pd.DataFrame:
    """``trace_name``, ``trace_chunk`` and ``source`` of a set's traces, in the order of the catalogue."""
    folder = folder_of(name)
    label = folder.name if Path(name).expanduser().is_dir() else name
    tables = []
    for chunk, metadata, _ in chunks_of(folder):
        wanted = {"trace_name", "source_dataset"}
        table = pd.read_csv(metadata, usecols=lambda column, wanted=wanted: column in wanted, dtype=str, keep_default_na=False)
        own = table["source_dataset"] if "source_dataset" in table else pd.Series("", index=table.index)
        tables.append(table[["trace_name"]].assign(trace_chunk=chunk, source=own.where(own != "", label)))
    return pd.concat(tables, ignore_index=True)


def _in_order(catalogue: Catalogue, arrivals: Arrivals, labels: Labels) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(onset, phase, full name), ``N P`` each, of the arrivals that are labels, not rounded, those that are none last."""
    keep = labels.phase >= 0
    onset = np.where(keep, catalogue.onsets(np.arange(len(catalogue)), arrivals.sample), np.nan)
    order = np.argsort(onset, axis=1, kind="stable")
    names = np.array([*arrivals.names, ""], dtype=object)
    found = onset, labels.phase, names[np.where(keep, arrivals.name, -1)]
    onset, phase, full = (np.take_along_axis(values, order, 1) for values in found)
    return onset, phase, full


def _usable(catalogue: Catalogue, channels: int, skipped: Counter[str]) -> np.ndarray:
    """``N`` bool: dev and test without an event in both, at a rate that can be brought to 100 Hz, with a component to look at."""
    judged = np.isin(catalogue.split, (DEV, TEST))
    reasons = {
        "traces at a rate that cannot be brought to 100 Hz": ~is_100_hz(catalogue.rate) & (catalogue.ratio == 0),
        "traces without a component to read": ~catalogue.live(np.arange(len(catalogue)))[:, :channels].any(1),
    }
    for what, wrong in reasons.items():
        _leave_out(what, wrong, judged, skipped)
    _leave_out("traces of dev whose event is also in test", impure(catalogue, judged), judged, skipped)
    return judged


def _leave_out(what: str, wrong: np.ndarray, judged: np.ndarray, skipped: Counter[str]) -> None:
    if (judged & wrong).any():
        skipped[what] = int((judged & wrong).sum())
    judged &= ~wrong
