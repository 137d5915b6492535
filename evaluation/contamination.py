"""Do evaluation data share earthquakes or hours with what a model learnt from?

``python -m evaluation.contamination pretraining=[…] evaluation=[…]`` takes sets as everywhere: SeisBench names or folders. For
every pair it counts traces of the same station (network.station) that overlap in time, and traces of the same event: the same
identifier, unless both sets state origin times and these differ. The exit code is 0 where nothing overlaps, else 1.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from rich.table import Table as Screen

from dataloaders.sets.metadata import EVENT_COLUMNS
from dataloaders.sets.names import chunks_of, folder_of
from utils import cli
from utils.console import console
from utils.errors import DataError, demand

NETWORK, STATION, START = "station_network_code", "station_code", "trace_start_time"
LENGTH, RATE, STEP, ORIGIN = "trace_npts", "trace_sampling_rate_hz", "trace_dt_s", "source_origin_time"
_EMPTY = ("nan", "NaN", "None", "NA", "<NA>")
Table = dict[str, np.ndarray]
"""Columns by name, text with ``""`` where empty."""
_LONGEST_S = 300.0
"""Assumed for traces whose length the metadata do not state: generous, so that an overlap is rather told than missed."""
_SAME_ORIGIN_S = 10
"""Catalogues give one event origin times that differ by less; numbers such as "12" are identifiers in many."""


@dataclass(kw_only=True)
class Arguments:
    """Arguments of the command."""

    pretraining: list[str] = field(default_factory=list)
    """SeisBench names or folders that a model learnt from."""
    evaluation: list[str] = field(default_factory=list)
    """SeisBench names or folders that it is evaluated on."""
    split: str = ""
    """Of the evaluation sets, look at this split only: train, dev or test; empty is all of them."""
    output: str | None = None
    """Write every overlapping trace of the evaluation sets to this CSV file."""

    def __post_init__(self) -> None:
        """State the ranges."""
        demand(
            (len(self.pretraining) > 0, "pretraining = []: must name at least one set"),
            (len(self.evaluation) > 0, "evaluation = []: must name at least one set"),
            (self.split in ("", "train", "dev", "test"), f"split = '{self.split}': must be train, dev or test, or empty"),
            (
                self.output is None or Path(self.output).absolute().parent.is_dir(),
                f"output = '{self.output}': its folder does not exist; make it first",
            ),
        )


@dataclass(frozen=True)
class Traces:
    """What of a set is compared.

    Attributes:
        name: of the set.
        trace: ``N`` names.
        station: ``N``, network.station; ``""`` where unknown.
        start, end: ``N``, s since 1970, NaN where unknown.
        event: ``N`` identifiers, ``""`` where there is none.
        origin: ``N``, s since 1970, NaN where unknown.
        guessed: traces of unknown length, taken to be long.
    """

    name: str
    trace: np.ndarray
    station: np.ndarray
    start: np.ndarray
    end: np.ndarray
    event: np.ndarray
    origin: np.ndarray
    guessed: int

    @property
    def blind(self) -> int:
        """Traces that cannot be compared at all."""
        return int(((np.isnan(self.start) | (self.station == "")) & (self.event == "")).sum())

    @property
    def undated(self) -> int:
        """Traces that cannot be compared by station and time."""
        return int((np.isnan(self.start) | (self.station == "")).sum())


@dataclass(frozen=True)
class Overlap:
    """A pair of sets.

    Attributes:
        pretraining, evaluation: names.
        in_time: ``N`` bool, traces of the evaluation set that overlap with one of the same station.
        of_event: ``N`` bool, traces of the evaluation set whose event is in the other set.
    """

    pretraining: str
    evaluation: str
    in_time: np.ndarray
    of_event: np.ndarray

    @property
    def contaminated(self) -> int:
        """Traces of the evaluation set that overlap in either way."""
        return int((self.in_time | self.of_event).sum())


def read(name: str, split: str = "") -> Traces:
    """The columns of a set that tell which station, when and which event.

    Raises:
        DataError: no such set, or columns for station or time are missing: names what the file has.
    """
    chunks = [_table(path) for _, path, _ in chunks_of(folder_of(name))]
    counts = [len(chunk["trace_name"]) for chunk in chunks]
    columns = {column for chunk in chunks for column in chunk}
    table = {
        column: np.concatenate([chunk.get(column, np.full(count, "")) for chunk, count in zip(chunks, counts, strict=True)])
        for column in columns
    }
    if split:
        if "split" not in table:
            has = ", ".join(sorted(table))
            raise DataError(f"{name}: column 'split' is missing, so split={split} cannot be chosen. It has: {has}")
        table = {column: values[table["split"] == split] for column, values in table.items()}
    if not len(table["trace_name"]):
        raise DataError(f"{name}: no trace{f' in split {split}' if split else ''}")
    return _traces(name, table)


def _traces(name: str, table: Table) -> Traces:
    start, length = _seconds(table[START]), _number(table, LENGTH) / _rate(table)
    empty = np.full(len(start), "")
    event = next((table[column] for column in EVENT_COLUMNS if (table.get(column, empty) != "").any()), empty)
    dotted = np.char.add(np.char.add(table[NETWORK], "."), table[STATION])
    return Traces(
        name=name,
        trace=table["trace_name"],
        station=np.where(table[STATION] == "", "", dotted),
        start=start,
        end=start + np.where(np.isnan(length), _LONGEST_S, length),
        event=event,
        origin=_seconds(table.get(ORIGIN, empty)),
        guessed=int((np.isnan(length) & ~np.isnan(start)).sum()),
    )


def _table(path: Path) -> Table:
    needed = ["trace_name", NETWORK, STATION, START]
    wanted = {*needed, LENGTH, RATE, STEP, ORIGIN, "split", *EVENT_COLUMNS}
    try:
        has = [str(name) for name in pd.read_csv(path, nrows=0).columns]
        frame = pd.read_csv(path, usecols=[name for name in has if name in wanted], dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as a table ({error})") from error
    missing = [name for name in needed if name not in has]
    if missing:
        raise DataError(
            f"{path}: without {', '.join(missing)} no overlap by station and time can be ruled out. It has: {', '.join(has)}"
        )
    words = {str(name): np.char.strip(np.asarray(frame[name], dtype=str)) for name in frame.columns}
    return {name: np.where(np.isin(values, _EMPTY), "", values) for name, values in words.items()}


def _number(table: Table, name: str) -> np.ndarray:
    """A column as float64, NaN where it is empty or absent."""
    if name not in table:
        return np.full(len(table["trace_name"]), np.nan)
    return np.asarray(pd.to_numeric(pd.Series(table[name]), errors="coerce"), np.float64)


def _rate(table: Table) -> np.ndarray:
    rate, step = _number(table, RATE), _number(table, STEP)
    rate = np.where(np.isnan(rate) & (step > 0), 1 / np.where(step > 0, step, 1.0), rate)
    return np.where(rate > 0, rate, np.nan)


def _seconds(column: np.ndarray) -> np.ndarray:
    """Times as s since 1970, NaN where there is none."""
    moment = pd.DatetimeIndex(pd.to_datetime(pd.Series(column), utc=True, errors="coerce", format="ISO8601"))
    since = np.asarray(moment.tz_localize(None), "datetime64[us]")
    return np.where(np.isnat(since), np.nan, since.astype(np.int64) / 1e6)


def overlapping(start: np.ndarray, end: np.ndarray, others_start: np.ndarray, others_end: np.ndarray) -> np.ndarray:
    """``N`` bool: intervals that share a moment with any of the others. Ends count; NaN never overlaps.

    Args:
        start, end: ``N``, s.
        others_start, others_end: ``M``, s.
    """
    order = np.argsort(others_start, kind="stable")
    first, last = others_start[order], np.maximum.accumulate(others_end[order]) if len(order) else others_end
    begun = np.searchsorted(first, end, side="right")  # others that begin before this one ends
    latest = np.where(begun > 0, last[np.maximum(begun - 1, 0)] if len(last) else -np.inf, -np.inf)
    return ~np.isnan(start) & (latest >= start)


def compare(pretraining: Traces, evaluation: Traces) -> Overlap:
    """What a pair of sets shares."""
    in_time = np.zeros(len(evaluation.trace), bool)
    there = ~np.isnan(pretraining.start)
    for station in sorted(set(evaluation.station) & set(pretraining.station[there]) - {""}):
        mine, theirs = evaluation.station == station, there & (pretraining.station == station)
        in_time[mine] = overlapping(
            evaluation.start[mine], evaluation.end[mine], pretraining.start[theirs], pretraining.end[theirs]
        )
    return Overlap(pretraining.name, evaluation.name, in_time, same_event(pretraining, evaluation))


def same_event(pretraining: Traces, evaluation: Traces) -> np.ndarray:
    """``N`` bool: traces of the evaluation set whose event the other set holds too.

    In a set merged of several catalogues one number may be that of several earthquakes: each of them counts.
    """
    found = np.isin(evaluation.event, pretraining.event[np.isnan(pretraining.origin)])
    found |= np.isnan(evaluation.origin) & np.isin(evaluation.event, pretraining.event)
    mine, theirs = (
        pd.DataFrame({"event": traces.event, "origin": traces.origin, "row": np.arange(len(traces.event))})
        .dropna(subset="origin")
        .sort_values("origin", kind="stable")
        for traces in (evaluation, pretraining)
    )
    near = pd.merge_asof(mine, theirs, on="origin", by="event", direction="nearest", tolerance=_SAME_ORIGIN_S)
    found[near.loc[near["row_y"].notna(), "row_x"].to_numpy(np.int64)] = True
    return found & (evaluation.event != "")


def listing(evaluation: Traces, found: Overlap) -> pd.DataFrame:
    """A row for each overlapping trace of an evaluation set."""
    rows = np.flatnonzero(found.in_time | found.of_event)
    return pd.DataFrame(
        {
            "evaluation": found.evaluation,
            "pretraining": found.pretraining,
            "trace_name": evaluation.trace[rows],
            "station": evaluation.station[rows],
            "start": pd.to_datetime(evaluation.start[rows], unit="s", utc=True),
            "event": evaluation.event[rows],
            "same_station_and_time": found.in_time[rows],
            "same_event": found.of_event[rows],
        }
    )


def check(args: Arguments) -> tuple[list[Overlap], dict[str, Traces]]:
    """Every pair of sets, and what was read of each, by kind and name (``"pretraining ETHZ"``).

    Raises:
        DataError: see :func:`read`; or a set of which nothing can be compared.
    """
    sets = {f"pretraining {name}": read(name) for name in args.pretraining}
    sets |= {f"evaluation {name}": read(name, args.split) for name in args.evaluation}
    blind = [name for name, traces in sets.items() if traces.blind == len(traces.trace)]
    if blind:
        raise DataError(f"{', '.join(blind)}: no trace has a station and a start, or an event: no overlap can be ruled out")
    pairs = [(sets[f"pretraining {one}"], sets[f"evaluation {other}"]) for one in args.pretraining for other in args.evaluation]
    return [compare(*pair) for pair in pairs], sets


def main(args: Arguments) -> None:
    """Print a table of the pairs and exit with 1 where any overlaps."""
    pairs, sets = check(args)
    screen, table = console(), Screen(title="traces of the evaluation sets that overlap with pretraining")
    for name in ("evaluation", "pretraining", "traces", "same station and time", "same event", "either"):
        table.add_column(name, justify="left" if name in ("evaluation", "pretraining") else "right")
    for pair in pairs:
        counts = (len(pair.in_time), int(pair.in_time.sum()), int(pair.of_event.sum()), pair.contaminated)
        table.add_row(pair.evaluation, pair.pretraining, *(f"{count:,}" for count in counts))
    screen.print(table)
    for name, traces in sets.items():
        if traces.undated:
            told = f"{traces.undated:,} traces have no station or no start: compared by event only, {traces.blind:,} not at all"
            screen.print(f"{name}: {told}", markup=False)
        if traces.guessed:
            screen.print(
                f"{name}: {traces.guessed:,} traces of unknown length are taken to be {_LONGEST_S:g} s long", markup=False
            )
    if args.output:
        frames = [listing(sets[f"evaluation {pair.evaluation}"], pair) for pair in pairs]
        pd.concat(frames, ignore_index=True).to_csv(args.output, index=False)
    total = sum(pair.contaminated for pair in pairs)
    if total:
        sys.exit(f"contaminated: {total:,} overlaps. Leave these traces out of evaluation, or these sets out of pretraining")
    screen.print("clean: no overlap by station and time or by event")


if __name__ == "__main__":
    cli.run(main, Arguments, where="evaluation.contamination")
