"""Figures of picked continuous records with intervals: station-hours are resampled, as events are elsewhere."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from evaluation import frames
from evaluation.bootstrap import Estimator
from evaluation.metrics import ratio
from evaluation.pairing import matched
from evaluation.picking import write_rows
from evaluation.scoring import Bootstrap, Row, Scored

PROTOCOL = "continuous"
HOUR = 3600.0
"""Seconds of a block; the last one of a record may be shorter."""


@dataclass(frozen=True)
class Record:
    """What was picked, and what an analyst picked, inside a record.

    Attributes:
        picks, reference: columns ``station``, ``phase``, ``time``.
        span: beginning and end, seconds since 1970.
        stations: how many were recorded.
        outside: picks and reference picks left out because they lie outside the span.
    """

    picks: pd.DataFrame
    reference: pd.DataFrame
    span: tuple[float, float]
    stations: int
    outside: tuple[int, int]


def rows(record: Record, tolerance: float, source: str) -> list[Row]:
    """Precision, recall, F1 and false picks a station-hour, ``<figure>_at_<tolerance>``, by phase.

    Args:
        record: picks and references.
        tolerance: seconds.
        source: name of the record.
    """
    edges = np.append(np.arange(*record.span, HOUR), record.span[1])
    seen = sorted(set(record.picks["station"]) | set(record.reference["station"]))
    stations = max(record.stations, len(seen))
    length = np.tile(np.diff(edges) / HOUR, stations)
    picks, reference = (_block(table, seen, edges) for table in (record.picks, record.reference))
    right, met = matched(record.picks, record.reference, tolerance)
    figures: list[Row] = []
    for phase in ("P", "S"):
        ours, theirs = (frames.is_(table, "phase", phase) for table in (record.picks, record.reference))
        made, good = (np.bincount(picks[where], minlength=len(length)) for where in (ours, ours & right))
        asked, found = (np.bincount(reference[where], minlength=len(length)) for where in (theirs, theirs & met))
        told = f"{made.sum()} picks, {good.sum()} of them right, {asked.sum()} reference picks; intervals over station-hours"
        why = f"undefined: no {phase} picks" if theirs.any() else f"undefined: the reference has no {phase}"
        for name, (above, below) in _quotients(made, good, asked, found, length).items():
            says = np.flatnonzero(below > 0)  # station-hours that take part
            scored = Scored(PROTOCOL, "test", source, phase, says, told)
            figures += scored.rows({f"{name}_at_{tolerance:g}": _quotient(above[says], below[says])}, why, Bootstrap())
    return figures


def _block(table: pd.DataFrame, stations: list[str], edges: np.ndarray) -> np.ndarray:
    """The station-hour of each row."""
    hour = np.clip(np.searchsorted(edges, frames.numbers(table, "time"), side="right") - 1, 0, len(edges) - 2)
    return np.searchsorted(np.array(stations, dtype=str), table["station"].to_numpy(dtype=str)) * (len(edges) - 1) + hour


def _quotients(
    made: np.ndarray, right: np.ndarray, asked: np.ndarray, met: np.ndarray, length: np.ndarray
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Numerator and denominator of each figure by station-hour; without references only false picks are defined."""
    known = int(asked.any())
    return {
        "precision": (right, made * known),
        "recall": (met, asked),
        "f1": (right + met, (made + asked) * known),
        "false_per_station_hour": (made - right, length),
    }


def _quotient(above: np.ndarray, below: np.ndarray) -> Estimator:
    def estimate(weight: np.ndarray) -> np.ndarray:
        return ratio(weight @ above.astype(np.float64), weight @ below.astype(np.float64))

    return estimate


def add_to_evaluation(record: Record, tolerances: list[float], source: str, folder: Path) -> None:
    """Put the figures into ``metrics.csv`` and ``metrics.json`` of an evaluation; earlier ones of the same source are replaced.

    Raises:
        DataError: the folder is no evaluation.
    """
    from evaluation.reporting.folder import read  # plotting takes seconds to import

    known = read(folder)
    kept = [row for row in known.metrics if (row.protocol, row.source) != (PROTOCOL, source)]
    new = [row for tolerance in tolerances for row in rows(record, tolerance, source)]
    write_rows([*kept, *new], known.run.get("skipped") or {}, folder)
