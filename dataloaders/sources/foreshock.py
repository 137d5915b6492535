"""Foreshocks and aftershocks of one mainshock at one station: when in the sequence did this earthquake happen?"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import pandas as pd
import torch

from dataloaders.batch import Batch, DataSpec, Target
from dataloaders.contracts import SOURCES, Outlook, Source, Split
from dataloaders.foreshock.classes import VISSO, class_names
from dataloaders.foreshock.sequence import ClassesConfig, EventPart, sort_traces
from dataloaders.foreshock.write import EVENT_COLUMN, P_COLUMN, SEQUENCE_COLUMN, TIME_COLUMN
from dataloaders.sets.catalogue import open_sets
from dataloaders.sets.names import chunks_of, folder_of
from dataloaders.sets.reader import Reader
from dataloaders.sets.resample import RATE, is_100_hz
from dataloaders.windows import covered
from utils.errors import DataError, demand
from utils.rng import uniform


@dataclass(kw_only=True)
class ForeshockConfig(ClassesConfig):
    """Settings of :class:`Foreshock`."""

    path: str = "data/foreshock_nrca"
    """Folder of the set that ``python -m dataloaders.convert_foreshock`` wrote."""
    before_p: float = 3.0
    """Where a trace is longer than the window: seconds of it before P, half to one and a half times that in training."""
    max_damaged_fraction: float = 0.01
    """Share of a split's traces that may turn out damaged while reading before the run stops."""

    def __post_init__(self) -> None:
        super().__post_init__()
        demand(
            (0 <= self.before_p * RATE < self.samples, f"before_p = {self.before_p}: must lie within the window, in seconds"),
            (0 <= self.max_damaged_fraction <= 1, f"max_damaged_fraction = {self.max_damaged_fraction}: must be 0 … 1"),
        )


@SOURCES.register("foreshock_aftershock", ForeshockConfig)
@final
class Foreshock(Source):
    """A converted set with the class of each trace.

    Args:
        cfg: settings.
        seed: of the run, decides where training windows start.

    Raises:
        DataError: the set is missing, or lacks a column, or a class is empty in a split.
    """

    def __init__(self, cfg: ForeshockConfig, *, seed: int) -> None:
        self.cfg, self.seed = cfg, seed
        self.spec = self.outlook(cfg).spec
        if not Path(cfg.path).expanduser().is_dir():
            raise DataError(
                f"dataset.path = '{cfg.path}': no such folder. Convert the published tables first: python -m "
                f"dataloaders.convert_foreshock input=<their folder> path={cfg.path}. Or train on the embedded stand-in: "
                "dataset=foreshock_synthetic"
            )
        metadata = read_columns(cfg.path)
        self.catalogue = open_sets([cfg.path], 0)
        other = int((~is_100_hz(self.catalogue.rate)).sum())
        if other:
            raise DataError(f"{cfg.path}: {other:,} traces are not at 100 Hz. Convert the tables again")
        self.p_sample = metadata[P_COLUMN]
        columns = metadata[EVENT_COLUMN], metadata[TIME_COLUMN], metadata[SEQUENCE_COLUMN]
        self.sorted = sort_traces(cfg, *columns, self.catalogue.event)
        self.visso = metadata[SEQUENCE_COLUMN] == VISSO

    @classmethod
    def outlook(cls, cfg: ForeshockConfig) -> Outlook:
        """Only the classes."""
        names = class_names(cfg.classes)
        spec = DataSpec(channels=cfg.d_data, samples=cfg.samples, rate=RATE, target=Target.event_class, classes=names)
        return Outlook(spec, None, "not known before the set is read: give plan.traces", stored=True)

    def part(self, split: Split) -> EventPart:
        """Windows of a split."""
        traces = self.sorted.traces(split)
        reader = Reader(self.catalogue, self.cfg.max_damaged_fraction * len(traces))
        windows = EventWindows(self.p_sample[traces], self.cfg, self.seed if split is Split.train else None)
        return ForeshockPart(reader, traces, self.sorted.label[traces], windows, self.spec)

    def describe(self) -> str:
        """Traces of each class and split, and how many are unused."""
        head, unused = f"foreshock_aftershock, {self.cfg.path}: {len(self.catalogue):,} traces", self.sorted.label < 0
        reasons = {
            "traces left out, to make foreshocks and aftershocks equally many": unused & ~self.visso,
            "traces of Visso left out, a class of 9 alone": unused & self.visso,
        }
        left_out = "".join(f"; {count:,} {reason}" for reason, which in reasons.items() if (count := int(which.sum())))
        return f"{head}{left_out}\n{self.sorted.table(self.spec.classes)}"


def read_columns(path: str) -> dict[str, np.ndarray]:
    """The columns that classes need, an entry a trace in the order of the catalogue: text, and float64 with NaN where empty.

    Raises:
        DataError: a column is missing (says which there are), or a value in it.
    """
    parts = [_chunk(file) for _, file, _ in chunks_of(folder_of(path))]
    table = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    empty = [name for name in (EVENT_COLUMN, SEQUENCE_COLUMN) if (table[name] == "").any()]
    empty += [TIME_COLUMN] if np.isnan(table[TIME_COLUMN]).any() else []
    if empty:
        raise DataError(f"{path}: rows without a value in {', '.join(empty)}. Convert the tables again")
    return table


def _chunk(file: Path) -> dict[str, np.ndarray]:
    wanted = (EVENT_COLUMN, SEQUENCE_COLUMN, TIME_COLUMN)
    try:
        has = [str(name) for name in pd.read_csv(file, nrows=0).columns]
        missing = [name for name in wanted if name not in has]
        if missing:
            raise DataError(
                f"{file}: columns {', '.join(missing)} are missing. It has: {', '.join(has)}. Was it written by "
                "python -m dataloaders.convert_foreshock?"
            )
        frame = pd.read_csv(file, usecols=[name for name in (*wanted, P_COLUMN) if name in has], dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: cannot be read as a table ({error}). Convert the tables again") from error
    table = {name: np.asarray(frame[name], dtype=str) for name in (EVENT_COLUMN, SEQUENCE_COLUMN)}
    for name in (TIME_COLUMN, P_COLUMN):
        cells = frame[name] if name in has else pd.Series([""] * len(frame))
        table[name] = np.asarray(pd.to_numeric(cells, errors="coerce"), np.float64)
    return table


@final
class EventWindows:
    """Where windows start in traces that are longer than they are.

    Args:
        p_sample: ``N``, sample of P in each trace of the part, NaN where unknown (then windows start with the trace).
        cfg: length of windows, seconds before P.
        seed: of the run for training; None: always the same window.
    """

    def __init__(self, p_sample: np.ndarray, cfg: ForeshockConfig, seed: int | None) -> None:
        self.p_sample = np.nan_to_num(p_sample, nan=0.0)
        self.cfg, self.seed = cfg, seed

    def starts(self, position: np.ndarray, epoch: np.ndarray, index: np.ndarray, length: np.ndarray) -> np.ndarray:
        """``B`` int64, first sample of each window."""
        before = np.full(len(position), self.cfg.before_p * RATE)
        if self.seed is not None:
            before *= 0.5 + uniform(self.seed, epoch, index, "foreshock/window", 1)[:, 0].astype(np.float64)
        start = np.round(self.p_sample[position] - before)
        return np.clip(start, 0, np.maximum(length - self.cfg.samples, 0)).astype(np.int64)


@final
class ForeshockPart(EventPart):
    """One split of :class:`Foreshock`.

    Args:
        reader: of the set.
        traces: their numbers in the catalogue.
        label: their classes.
        windows: where windows start.
        spec: of its batches.
    """

    def __init__(self, reader: Reader, traces: np.ndarray, label: np.ndarray, windows: EventWindows, spec: DataSpec) -> None:
        self.reader, self.traces, self.label, self.windows, self.spec = reader, traces, label, windows, spec
        self.event = reader.catalogue.event[traces]

    def __len__(self) -> int:
        return len(self.traces)

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> Batch:
        """Raw windows in counts, three components, with their classes; a damaged trace is 0, wholly invalid and has no class."""
        epoch, position = np.asarray(keys, np.int64).reshape(-1, 2).T
        trace, catalogue = self.traces[position].astype(np.int64), self.reader.catalogue
        length = catalogue.length[trace].astype(np.int64)
        start = self.windows.starts(position, epoch, trace, length)
        count = np.minimum(length - start, self.spec.samples)
        wave, sound = self.reader.read(trace, start, count, self.spec.samples)
        return Batch(
            wave=torch.from_numpy(wave),
            valid=torch.from_numpy(covered(count, self.spec.samples) & sound[:, None]),
            live=torch.from_numpy(catalogue.live(trace) & sound[:, None]),
            index=torch.from_numpy(trace),
            epoch=torch.from_numpy(np.ascontiguousarray(epoch)),
            label=torch.from_numpy(np.where(sound, self.label[position], -1)),
        )
