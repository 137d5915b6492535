"""Which rows of the published tables are usable records: every row that is not is counted and listed with its reason."""

from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

import numpy as np

from dataloaders.foreshock import frames
from dataloaders.foreshock.classes import POST, PRE, SEQUENCES, VISSO
from dataloaders.foreshock.inert import read_inert
from utils.errors import DataError

RATE = 100.0
REQUIRED = ("Z_channel", "N_channel", "E_channel", "source_id", "source_origin_time")
_RATES = ("trace_sampling_rate_hz", "sampling_rate", "trace_dt_s")
MIN_SAMPLES = 400
_SAME_ORIGIN = np.timedelta64(1, "s")
"""Origin times of one event may differ by this much between catalogues."""


@dataclass(frozen=True)
class Record:
    """A usable row.

    Attributes:
        wave: ``3 L`` float32, ZNE, as published.
        sequence: ``pre``, ``visso`` or ``post``.
        event: identifier of the event.
        name: of the trace, as published.
        origin: of the event, UTC.
        start: of the trace, UTC; NaT where unknown.
        magnitude: NaN where unknown.
        p_travel: of P, s; NaN where unknown.
    """

    wave: np.ndarray
    sequence: str
    event: str
    name: str
    origin: np.datetime64
    start: np.datetime64
    magnitude: float
    p_travel: float


@dataclass
class Gathered:
    """What was found in the tables.

    Attributes:
        records: usable rows, in the order of the files (Visso first, then before, then after).
        skipped: (file, row, trace name, reason) of each row that was left out.
        kept: how many records are kept although something is odd, by what it is.
    """

    records: list[Record] = field(default_factory=list)
    skipped: list[tuple[str, int, str, str]] = field(default_factory=list)
    kept: dict[str, int] = field(default_factory=dict)


def gather(files: dict[str, Path], mainshock: np.datetime64) -> Gathered:
    """Read the tables of the parts of the sequence.

    An event of the Visso table is left out of the others; a waveform that occurs twice is kept once; an event whose rows
    disagree on its origin time keeps the first.

    Args:
        files: pickled data frames by part of the sequence.
        mainshock: its origin time, UTC.

    Raises:
        DataError: a file is unreadable, unsafe or without a needed column, or nothing usable is left of it.
    """
    found = Gathered()
    origins: dict[str, np.datetime64] = {}
    owners: dict[str, str] = {}
    seen: set[bytes] = set()
    for sequence in (VISSO, PRE, POST):
        if sequence not in files:
            continue
        before = len(found.records)
        table = _table(files[sequence])
        for row in range(len(table["source_id"])):
            record, reason = _record(table, row, sequence)
            if record is not None:
                reason = _contradiction(record, mainshock, origins, owners, seen)
            if record is None or reason:
                name = frames.text(table["trace_name"][row]) if "trace_name" in table else ""
                found.skipped.append((files[sequence].name, row, name, reason))
                continue
            if not np.isfinite(record.wave).all():
                odd = "with some samples that are not finite (masked in training)"
                found.kept[odd] = found.kept.get(odd, 0) + 1
            found.records.append(record)
        if len(found.records) == before:
            reasons = sorted({reason for name, *_, reason in found.skipped if name == files[sequence].name})
            raise DataError(f"{files[sequence]}: no usable row: {'; '.join(reasons) or 'the table is empty'}")
    return found


def _table(path: Path) -> dict[str, np.ndarray]:
    try:
        table = frames.columns(read_inert(path))
    except DataError as error:
        raise DataError(str(error) if str(path) in str(error) else f"{path}: {error}") from error
    missing = [name for name in REQUIRED if name not in table]
    if missing:
        raise DataError(f"{path}: columns {', '.join(missing)} are missing. It has: {', '.join(table)}")
    return table


def _record(table: dict[str, np.ndarray], row: int, sequence: str) -> tuple[Record | None, str]:
    """The record of a row, or None and why it is unusable by itself."""
    channels = [frames.samples(table[f"{component}_channel"][row]) for component in "ZNE"]
    event, origin = frames.text(table["source_id"][row]), frames.time(table["source_origin_time"][row])
    if any(channel is None for channel in channels):
        return None, "a component is no array of numbers"
    waves = [channel for channel in channels if channel is not None]
    reason = _fault(waves, _rate(table, row))
    if not event:
        reason = "no event identifier"
    elif np.isnat(origin):
        reason = "no readable origin time"
    if reason:
        return None, reason
    cells = {name: table[name][row] for name in ("trace_name", "trace_start_time", "magnitude", "p_travel_sec") if name in table}
    record = Record(
        wave=np.stack(waves),
        sequence=sequence,
        event=event,
        name=frames.text(cells.get("trace_name", "")),
        origin=origin,
        start=frames.time(cells.get("trace_start_time", "")),
        magnitude=frames.number(cells.get("magnitude")),
        p_travel=frames.number(cells.get("p_travel_sec")),
    )
    return record, ""


def _fault(waves: list[np.ndarray], rate: float) -> str:
    lengths = {len(wave) for wave in waves}
    if len(lengths) > 1:
        return f"components of different lengths: {', '.join(str(len(wave)) for wave in waves)} samples"
    if min(lengths) < MIN_SAMPLES:
        return f"shorter than {MIN_SAMPLES} samples"
    if rate != RATE:
        return f"sampled at {rate:g} Hz instead of {RATE:g} Hz"
    finite = [wave[np.isfinite(wave)] for wave in waves]
    if all(len(wave) == 0 or np.ptp(wave) == 0 for wave in finite):
        return "no signal: every component is constant or not finite"
    return ""


def _rate(table: dict[str, np.ndarray], row: int) -> float:
    """Hz of a row; the published tables have no such column and are at 100 Hz."""
    for name in _RATES:
        value = frames.number(table[name][row]) if name in table else float("nan")
        if value > 0:
            return 1 / value if name == "trace_dt_s" else value
    return RATE


def _contradiction(
    record: Record, mainshock: np.datetime64, origins: dict[str, np.datetime64], owners: dict[str, str], seen: set[bytes]
) -> str:
    """Why a sound record does not go with those before it, ``""`` where it does; notes it if so."""
    after = record.origin > mainshock
    if after != (record.sequence == POST) or record.origin == mainshock:
        return f"in the table '{record.sequence}', but {'after' if after else 'not after'} the mainshock"
    if owners.get(record.event, record.sequence) != record.sequence:
        return f"its event is in the table '{owners[record.event]}' already"
    if abs(origins.get(record.event, record.origin) - record.origin) > _SAME_ORIGIN:
        return "another origin time than an earlier row of its event"
    digest = blake2b(record.wave.tobytes(), digest_size=16).digest()
    if digest in seen:
        return "duplicate: the same waveform occurred before"
    seen.add(digest)
    owners[record.event] = record.sequence
    origins.setdefault(record.event, record.origin)
    return ""


def find_files(folder: Path, station: str) -> dict[str, Path]:
    """The published files of a folder by part of the sequence: ``dataframe_{pre,visso,post}_<station>[.csv]``.

    Raises:
        DataError: the files before or after the mainshock are not there.
    """
    files = {}
    for sequence in SEQUENCES:
        named = [folder / f"dataframe_{sequence}_{station}{end}" for end in (".csv", "", ".pkl")]
        there = [path for path in named if path.is_file()]
        if there:
            files[sequence] = there[0]
    missing = [name for name in (PRE, POST) if name not in files]
    if missing:
        listed = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) if folder.is_dir() else "no such folder"
        raise DataError(
            f"{folder}: dataframe_{missing[0]}_{station}.csv is not there (found: {listed}). The published files are at "
            "https://zenodo.org/records/12806081; give their folder with input=, and station= where it is not NRCA"
        )
    return files
