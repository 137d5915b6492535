"""Picks: found on curves of probability, written as CSV and QuakeML, read again."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from obspy import UTCDateTime
from obspy.core.event import Catalog, Comment, Event, ResourceIdentifier, WaveformStreamID
from obspy.core.event import Pick as QuakeMLPick

from utils.errors import DataError

COLUMNS = ("trace_id", "station", "phase", "time", "probability", "start", "end", "instrument")
"""Of a CSV of picks; times in UTC, ISO 8601."""
FORMATS = {".csv": "CSV", ".xml": "QuakeML", ".quakeml": "QuakeML"}
"""What is written, by the output's suffix."""


@dataclass(frozen=True, order=True)
class PickedPhase:
    """One pick.

    Attributes:
        time: of the highest probability.
        trace_id: ``NET.STA.LOC``.
        phase: P or S.
        probability: at ``time``.
        start, end: where the probability rises to the threshold, and where it is last above half of it.
        instrument: band and instrument code of the channels it was picked on: ``HH``.
    """

    time: UTCDateTime
    trace_id: str
    phase: str
    probability: float
    start: UTCDateTime
    end: UTCDateTime
    instrument: str

    @property
    def station(self) -> str:
        """``NET.STA``."""
        return self.trace_id.rpartition(".")[0]


class Peak(NamedTuple):
    """A pick as samples of a curve: first one at the threshold, highest one, last one above half the threshold."""

    start: int
    peak: int
    end: int
    probability: float


def peaks(probability: NDArray[np.float32], threshold: float) -> list[Peak]:
    """Where a curve reaches a threshold; it is one pick until the curve falls below half of it (SeisBench's rule).

    Args:
        probability: ``N``; NaN is below every threshold.
        threshold: above 0.
    """
    curve = np.nan_to_num(probability, nan=0.0)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], curve >= 0.5 * threshold, [False]]).astype(np.int8)))
    found = []
    for low, high in edges.reshape(-1, 2):
        part = curve[low:high]
        highest = int(part.argmax())
        if part[highest] >= threshold:
            rises = int((part >= threshold).argmax())
            found.append(Peak(int(low) + rises, int(low) + highest, int(high) - 1, float(part[highest])))
    return found


def table(picks: Iterable[PickedPhase]) -> pd.DataFrame:
    """Picks in order of time, columns as in :data:`COLUMNS`."""
    rows = [
        {**asdict(pick), "station": pick.station, "time": str(pick.time), "start": str(pick.start), "end": str(pick.end)}
        for pick in sorted(picks)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS)).round({"probability": 4})


def from_table(rows: pd.DataFrame) -> list[PickedPhase]:
    """The picks of a table, see :func:`table`."""
    return [
        PickedPhase(
            UTCDateTime(row["time"]),
            str(row["trace_id"]),
            str(row["phase"]),
            float(row["probability"]),
            UTCDateTime(row["start"]),
            UTCDateTime(row["end"]),
            str(row["instrument"]),
        )
        for row in rows.to_dict("records")
    ]


def read(path: Path) -> list[PickedPhase]:
    """The picks of a CSV file.

    Raises:
        DataError: a column is missing; lists what the file has.
    """
    rows = pd.read_csv(path, dtype=dict.fromkeys(COLUMNS, str), keep_default_na=False)
    missing = [name for name in COLUMNS if name not in rows]
    if missing:
        raise DataError(f"{path}: no column {', '.join(missing)}. It has: {', '.join(rows.columns)}")
    return from_table(rows)


def format_of(path: Path) -> str:
    """What a file name asks for: CSV or QuakeML.

    Raises:
        DataError: another suffix.
    """
    if path.suffix.lower() not in FORMATS:
        raise DataError(f"output {path}: picks are written as {', '.join(FORMATS)}")
    return FORMATS[path.suffix.lower()]


def write(picks: Sequence[PickedPhase], path: Path, *, model: str) -> None:
    """Write picks, CSV or QuakeML by the path's suffix; the file appears whole or not at all.

    Args:
        picks: in any order.
        path: the file.
        model: what picked, stated in QuakeML.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    if format_of(path) == "CSV":
        table(picks).to_csv(unfinished, index=False)
    else:
        catalog(picks, model).write(str(unfinished), format="QUAKEML", validate=False)
    unfinished.replace(path)


def catalog(picks: Iterable[PickedPhase], model: str) -> Catalog:
    """Picks as QuakeML: one event without origin that says in a comment that nothing is associated yet.

    Args:
        picks: in any order.
        model: what picked; becomes each pick's ``method_id`` and the catalog's creation comment.
    """
    method = ResourceIdentifier("smi:local/wavexlstm/" + re.sub(r"[^\w-]+", "_", model))
    listed = [
        QuakeMLPick(
            time=pick.time,
            waveform_id=WaveformStreamID(
                **dict(zip(("network_code", "station_code", "location_code"), pick.trace_id.split("."), strict=True)),
                channel_code=pick.instrument,
            ),
            phase_hint=pick.phase,
            method_id=method,
            evaluation_mode="automatic",
            evaluation_status="preliminary",
            comments=[Comment(text=f"probability {pick.probability:.4f}")],
        )
        for pick in sorted(picks)
    ]
    event = Event(picks=listed, comments=[Comment(text="unassociated automatic picks, no event")])
    return Catalog(events=[event] if listed else [], comments=[Comment(text=f"picked by WaveXLSTM {model}")])
