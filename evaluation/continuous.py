"""Picks of a continuous record against an analyst's: ``python -m evaluation.continuous picks=… reference=…``.

A pick counts if it lies within the tolerance of a reference pick of the same phase and station; each is used once, and the
assignment is the one with the most pairs, the nearest among those.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from rich.table import Table
from scipy.optimize import linear_sum_assignment

from evaluation import frames
from utils import cli
from utils.console import console
from utils.errors import DataError, demand

TOLERANCES = (0.1, 0.5)
"""Seconds."""
PICK_COLUMNS = ("trace_id", "phase", "time")


@dataclass(kw_only=True)
class Arguments:
    """Arguments of the command."""

    picks: str
    """CSV of picks with columns trace_id (network.station.location), phase, time (ISO 8601, UTC): what evaluation.pick writes."""
    reference: str
    """CSV of reference picks: the same columns, or network, station, phase, timestamp (seconds since 1970)."""
    start: str
    """Beginning of the record that was picked, UTC: what lies outside counts neither for nor against."""
    end: str
    """End of the record."""
    stations: int | None = None
    """Stations of the record; null counts those with a pick in either file."""
    tolerances: list[float] = field(default_factory=lambda: list(TOLERANCES))
    """Seconds within which a pick is right."""
    output: str | None = None
    """Write the figures to this CSV file too."""

    def __post_init__(self) -> None:
        """State the ranges."""
        demand(
            (self.stations is None or self.stations >= 1, f"stations = {self.stations}: must be at least 1"),
            (bool(self.tolerances), "tolerances = []: must name at least one"),
            (all(value > 0 for value in self.tolerances), f"tolerances = {self.tolerances}: must be above 0"),
        )


@dataclass(frozen=True)
class Matched:
    """Counts of one phase at one tolerance, and what follows from them; NaN where undefined.

    Attributes:
        hits: pairs.
        picks, references: numbers of each.
        hours: station-hours of record.
    """

    hits: int
    picks: int
    references: int
    hours: float

    @property
    def precision(self) -> float:
        """Share of the picks that have a reference."""
        return self.hits / self.picks if self.picks else np.nan

    @property
    def recall(self) -> float:
        """Share of the references that were found."""
        return self.hits / self.references if self.references else np.nan

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; undefined without references."""
        return 2 * self.hits / (self.picks + self.references) if self.references else np.nan

    @property
    def false_per_station_hour(self) -> float:
        """Picks without a reference, a station and hour."""
        return (self.picks - self.hits) / self.hours if self.hours else np.nan


def pairs(picks: np.ndarray, references: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """One-to-one pairs within a tolerance: as many as there can be, and of these the ones with the least total distance.

    Times are cut into groups that cannot reach each other, so that each assignment is small.

    Args:
        picks: ``n`` seconds.
        references: ``m`` seconds.
        tolerance: seconds; a distance equal to it counts.

    Returns:
        (numbers of the paired picks, numbers of their references).
    """
    time, kind = np.concatenate([picks, references]), np.repeat([0, 1], [len(picks), len(references)])
    number = np.concatenate([np.arange(len(picks)), np.arange(len(references))])
    order = np.argsort(time, kind="stable")
    reach = tolerance + 1e-6  # times are given to microseconds
    groups = np.split(order, np.flatnonzero(np.diff(time[order]) > reach) + 1)
    found: list[tuple[int, int]] = []
    for group in groups:
        ours, theirs = (number[group[kind[group] == which]] for which in (0, 1))
        if len(ours) and len(theirs):
            distance = np.abs(picks[ours][:, None] - references[theirs])
            cost = np.where(distance <= reach, distance, reach * 2 * (len(group) + 1))  # dearer than any number of pairs
            rows, columns = linear_sum_assignment(cost)
            near = distance[rows, columns] <= reach
            found += list(zip(ours[rows[near]].tolist(), theirs[columns[near]].tolist(), strict=True))
    one, other = np.array(found, np.int64).reshape(-1, 2).T
    return one, other


def compare(picks: pd.DataFrame, reference: pd.DataFrame, *, tolerance: float, hours: float) -> dict[str, Matched]:
    """Counts by phase over all stations.

    Args:
        picks: columns ``station`` (network.station), ``phase`` (P, S), ``time`` (seconds).
        reference: the same.
        tolerance: seconds.
        hours: station-hours of record.
    """
    result = {}
    for phase in ("P", "S"):
        hits = 0
        ours, theirs = (frames.rows(table, frames.is_(table, "phase", phase)) for table in (picks, reference))
        for station in set(ours["station"]) & set(theirs["station"]):
            one, other = (frames.numbers(table, "time")[frames.is_(table, "station", station)] for table in (ours, theirs))
            hits += len(pairs(one, other, tolerance)[0])
        result[phase] = Matched(hits, len(ours), len(theirs), hours)
    return result


def read_picks(path: str) -> pd.DataFrame:
    """A CSV of picks as ``station`` (network.station), ``phase`` (first letter, P or S) and ``time`` (seconds since 1970, UTC).

    Raises:
        DataError: unreadable, without the columns, or with a time or phase that cannot be meant.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError, pd.errors.ParserError) as error:
        raise DataError(f"{path}: cannot be read as a table of picks ({error})") from error
    own = {"network", "station", "phase", "timestamp"} <= set(table)
    missing = [] if own else [name for name in PICK_COLUMNS if name not in table]
    if missing:
        raise DataError(
            f"{path}: columns {', '.join(missing)} are missing. It needs {', '.join(PICK_COLUMNS)}, or network, station, phase, "
            f"timestamp. The file has: {', '.join(map(str, table.columns))}"
        )
    stamp = "timestamp" if own else "time"
    if own:
        station = [f"{network}.{code}" for network, code in zip(table["network"], table["station"], strict=True)]
    else:
        station = [".".join(str(code).split(".")[:2]) for code in table["trace_id"]]
    phase = np.array([str(word).strip()[:1].upper() for word in table["phase"]], dtype=object)
    time = frames.numbers(table, stamp) if own else _seconds([str(word) for word in table[stamp]])
    wrong = np.isnan(time) | ~np.isin(phase.astype(str), ["P", "S"])
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(f"{path}, row {row + 1}: phase '{table['phase'][row]}' at '{table[stamp][row]}' is no pick of P or S")
    return pd.DataFrame({"station": station, "phase": phase, "time": time})


def _seconds(times: list[str]) -> np.ndarray:
    """ISO 8601 to seconds since 1970, float64; NaN where it is none."""
    parsed = pd.DatetimeIndex(pd.to_datetime(times, utc=True, errors="coerce", format="ISO8601")).tz_localize(None)
    return np.asarray((parsed - pd.Timestamp(0)) / pd.Timedelta(1, "s"), dtype=np.float64)


def evaluate(args: Arguments) -> pd.DataFrame:
    """A row a phase and tolerance, columns ``phase, tolerance, precision, recall, f1, false_per_station_hour`` and counts.

    Raises:
        DataError: a file or a time cannot be used.
    """
    begin, end = _seconds([args.start, args.end]).tolist()
    if not end > begin:
        raise DataError(f"start = '{args.start}', end = '{args.end}': must be two times in ISO 8601, the second later")
    tables = [read_picks(path) for path in (args.picks, args.reference)]
    within = [(frames.numbers(table, "time") >= begin) & (frames.numbers(table, "time") <= end) for table in tables]
    ours, theirs = (frames.rows(table, where) for table, where in zip(tables, within, strict=True))
    stations = args.stations or max(1, len(set(ours["station"]) | set(theirs["station"])))
    hours = (end - begin) / 3600 * stations
    rows = []
    for tolerance in args.tolerances:
        for phase, found in compare(ours, theirs, tolerance=tolerance, hours=hours).items():
            figures = {name: getattr(found, name) for name in ("precision", "recall", "f1", "false_per_station_hour")}
            note = "" if found.references else f"undefined: the reference has no {phase}"
            rows.append({"phase": phase, "tolerance": tolerance, **figures, **vars(found), "note": note})
    return pd.DataFrame(rows)


def main(args: Arguments) -> None:
    """Print the figures, and write them where asked."""
    found = evaluate(args)
    table = Table(title=f"{Path(args.picks).name} against {Path(args.reference).name}")
    for name in found.columns:
        table.add_column(str(name).replace("_", " "), justify="left" if name in ("phase", "note") else "right")
    for values in found.itertuples(index=False):
        table.add_row(*(f"{value:.3f}" if isinstance(value, float) and np.isfinite(value) else str(value) for value in values))
    console().print(table)
    if args.output:
        found.to_csv(args.output, index=False)


if __name__ == "__main__":
    cli.run(main, Arguments, where="evaluation.continuous")
