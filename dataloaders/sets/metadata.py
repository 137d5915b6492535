"""The metadata tables of a set: the few columns that reading needs, with SeisBench's rules for what is absent."""

from hashlib import blake2b
from pathlib import Path

import numpy as np
import pandas as pd

from utils.errors import DataError

EVENT_COLUMNS = ("source_id", "event_id", "source_event_id", "source_id_list")
"""Columns that say which event a trace shows; the first one present is used."""
_RATE_COLUMNS = ("trace_sampling_rate_hz", "trace_dt_s")
_EMPTY = ("", "nan", "NaN", "None", "NA", "<NA>")
_TEXT_COLUMNS = ("trace_name", "trace_component_order", "split", *EVENT_COLUMNS)

Table = dict[str, np.ndarray]
"""Columns by name: identifiers as ``str`` objects with ``""`` where empty, numbers as float64 with NaN where empty."""


def read_metadata(path: Path) -> Table:
    """The columns of a metadata file that reading needs; identifiers stay text (``"007"`` is not 7).

    Raises:
        DataError: unreadable, or without ``trace_name`` in any row.
    """
    wanted = {*_TEXT_COLUMNS, *_RATE_COLUMNS}
    try:
        frame = pd.read_csv(path, usecols=lambda name: name in wanted, dtype=str, keep_default_na=False)
    except (OSError, ValueError, UnicodeDecodeError, pd.errors.ParserError) as error:
        raise DataError(f"{path}: cannot be read as a table ({error}). Download or write the set again") from error
    table = {str(name): np.asarray(frame[name], dtype=object) for name in frame.columns}
    if "trace_name" not in table:
        raise DataError(
            f"{path}: column 'trace_name' is missing; without it no waveform can be found. Is this SeisBench metadata?"
        )
    if not len(frame):
        raise DataError(f"{path}: there is no trace in it, only column names. Download or write the set again")
    unnamed = int((table["trace_name"] == "").sum())
    if unnamed:
        raise DataError(
            f"{path}: {unnamed} of {len(frame)} rows have an empty 'trace_name'. Correct them or download the set again"
        )
    for name in _TEXT_COLUMNS:
        if name in table:
            table[name] = np.where(np.isin(table[name].astype(str), _EMPTY), "", table[name])
    for name in _RATE_COLUMNS:
        if name in table:
            table[name] = np.asarray(pd.to_numeric(frame[name], errors="coerce"), dtype=np.float64)
    return table


def rates(table: Table, default: float) -> np.ndarray:
    """Sampling rate of each row in Hz: ``trace_sampling_rate_hz``, else ``1 / trace_dt_s``, else the file's; else NaN."""
    unknown = np.full(len(table["trace_name"]), np.nan)
    rate, step = (table.get(name, unknown) for name in _RATE_COLUMNS)
    rate = np.where(np.isnan(rate) & (step > 0), 1 / np.where(step > 0, step, 1.0), rate)
    return np.where(np.isnan(rate), default, rate)


def component_orders(table: Table, default: str) -> np.ndarray:
    """Component order of each row as text; the file's where the row gives none."""
    orders = table.get("trace_component_order", np.full(len(table["trace_name"]), "", dtype=object))
    return np.where(orders == "", default, orders)


def events(table: Table, chunk: str) -> tuple[np.ndarray, np.ndarray]:
    """Which event each row shows.

    A row without an event (noise) is an event of its own.

    Args:
        table: metadata.
        chunk: name of the chunk; trace names are unique only within one.

    Returns:
        (64-bit hashes of the events' identifiers as int64, ``N`` bool: whether the row names its event).
    """
    own = f"trace {chunk}/" + table["trace_name"]
    for column in EVENT_COLUMNS:
        if column in table and (table[column] != "").any():
            named = np.asarray(table[column] != "", dtype=bool)
            return _hashes(np.where(named, "event " + table[column], own)), named
    return _hashes(own), np.zeros(len(own), bool)


def _hashes(words: np.ndarray) -> np.ndarray:
    codes, unique = pd.factorize(words)
    digests = [int.from_bytes(blake2b(word.encode(), digest_size=8).digest(), "little", signed=True) for word in unique]
    return np.array(digests, np.int64)[codes]
