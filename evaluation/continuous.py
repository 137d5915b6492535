"""Picks of a continuous record against an analyst's: ``python -m evaluation.continuous picks=… reference=…``.

A pick counts if it lies within the tolerance of a reference pick of the same phase and station; each is used once, and the
assignment is the one with the most pairs, the nearest among those. ``evaluation=runs/…`` puts the figures, with intervals over
station-hours, into the metrics and the report of the picker's evaluation.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from rich.table import Table

from evaluation import frames
from evaluation.pairing import matched
from evaluation.station_hours import Record, add_to_evaluation
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
    evaluation: str | None = None
    """An evaluation folder, or a run folder that holds one: put the figures into its metrics and its report."""

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
        """Share of the picks that have a reference; undefined without references."""
        return self.hits / self.picks if self.picks and self.references else np.nan

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


def compare(picks: pd.DataFrame, reference: pd.DataFrame, *, tolerance: float, hours: float) -> dict[str, Matched]:
    """Counts by phase over all stations.

    Args:
        picks: columns ``station`` (network.station), ``phase`` (P, S), ``time`` (seconds).
        reference: the same.
        tolerance: seconds.
        hours: station-hours of record.
    """
    hit, _ = matched(picks, reference, tolerance)
    result = {}
    for phase in ("P", "S"):
        ours, theirs = (frames.is_(table, "phase", phase) for table in (picks, reference))
        result[phase] = Matched(int(hit[ours].sum()), int(ours.sum()), int(theirs.sum()), hours)
    return result


def read_picks(path: str) -> pd.DataFrame:
    """A CSV of picks as ``station`` (network.station), ``phase`` (first letter, P or S), ``time`` (s since 1970, UTC) and ``on``.

    ``on`` is what of the station was picked, location and instrument, "" where the file does not say.

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
        station, on = [f"{network}.{code}" for network, code in zip(table["network"], table["station"], strict=True)], ""
    else:
        station = [".".join(str(code).split(".")[:2]) for code in table["trace_id"]]
        on = table["trace_id"] + ("." + table["instrument"] if "instrument" in table else "")
    phase = np.array([str(word).strip()[:1].upper() for word in table["phase"]], dtype=object)
    time = frames.numbers(table, stamp) if own else _seconds([str(word) for word in table[stamp]])
    wrong = np.isnan(time) | ~np.isin(phase.astype(str), ["P", "S"])
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(f"{path}, row {row + 1}: phase '{table['phase'][row]}' at '{table[stamp][row]}' is no pick of P or S")
    return pd.DataFrame({"station": station, "phase": phase, "time": time, "on": on})


def _seconds(times: list[str]) -> np.ndarray:
    """ISO 8601 to seconds since 1970, float64; NaN where it is none."""
    parsed = pd.DatetimeIndex(pd.to_datetime(times, utc=True, errors="coerce", format="ISO8601")).tz_localize(None)
    return np.asarray((parsed - pd.Timestamp(0)) / pd.Timedelta(1, "s"), dtype=np.float64)


def read(args: Arguments) -> Record:
    """The files of a command.

    Raises:
        DataError: a file or a time cannot be used.
    """
    begin, end = _seconds([args.start, args.end]).tolist()
    if not end > begin:
        raise DataError(f"start = '{args.start}', end = '{args.end}': must be two times in ISO 8601, the second later")
    tables = [read_picks(path) for path in (args.picks, args.reference)]
    within = [(frames.numbers(table, "time") >= begin) & (frames.numbers(table, "time") <= end) for table in tables]
    ours, theirs = (frames.rows(table, where).reset_index(drop=True) for table, where in zip(tables, within, strict=True))
    stations = args.stations or max(1, len(set(ours["station"]) | set(theirs["station"])))
    early, late = (int((~where).sum()) for where in within)
    return Record(ours, theirs, (begin, end), stations, (early, late))


def evaluate(args: Arguments) -> pd.DataFrame:
    """A row a phase and tolerance, columns ``phase, tolerance, precision, recall, f1, false_per_station_hour`` and counts.

    Raises:
        DataError: see :func:`read`.
    """
    return figures(read(args), args.tolerances)


def figures(record: Record, tolerances: list[float]) -> pd.DataFrame:
    """See :func:`evaluate`."""
    hours = (record.span[1] - record.span[0]) / 3600 * record.stations
    rows = []
    for tolerance in tolerances:
        for phase, found in compare(record.picks, record.reference, tolerance=tolerance, hours=hours).items():
            values = {name: getattr(found, name) for name in ("precision", "recall", "f1", "false_per_station_hour")}
            note = "" if found.picks else f"no {phase} picks: precision undefined"
            note = note if found.references else f"undefined: the reference has no {phase}"
            rows.append({"phase": phase, "tolerance": tolerance, **values, **vars(found), "note": note})
    return pd.DataFrame(rows)


def main(args: Arguments) -> None:
    """Print the figures, and write them where asked."""
    record = read(args)
    found = figures(record, args.tolerances)
    table = Table(title=f"{Path(args.picks).name} against {Path(args.reference).name}")
    for name in found.columns:
        table.add_column(str(name).replace("_", " "), justify="left" if name in ("phase", "note") else "right")
    for values in found.itertuples(index=False):
        table.add_row(*(_shown(value) for value in values))
    out = console()
    out.print(table)
    if any(record.outside):
        told = "{:,} picks and {:,} reference picks lie outside the record: not compared".format(*record.outside)
        out.print(told, markup=False)
    for station, instruments in record.picks.groupby("station")["on"].unique().items():
        if len(instruments) > 1:
            told = f"{station} was picked on {', '.join(sorted(instruments))}: each counts, though an arrival has one reference"
            out.print(f"{told}. Pick one of them for a fair comparison", markup=False, soft_wrap=True)
    if args.output:
        found.to_csv(args.output, index=False)
    if args.evaluation:
        from evaluation.report import write
        from evaluation.reporting.folder import find

        folders = find([args.evaluation])
        if len(folders) > 1:
            raise DataError(f"evaluation {args.evaluation}: holds {', '.join(map(str, folders))}. Name one of them")
        add_to_evaluation(record, args.tolerances, Path(args.reference).stem, folders[0])
        out.print(f"report: {write(folders[0])}", soft_wrap=True, markup=False)


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}" if np.isfinite(value) else "undefined"
    return str(value)


if __name__ == "__main__":
    cli.run(main, Arguments, where="evaluation.continuous")
