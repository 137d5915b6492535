"""The metadata tables of a set: the few columns that reading needs, with SeisBench's rules for what is absent."""

from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from dataloaders.sets.layout import component_axis
from utils.errors import DataError

EVENT_COLUMNS = ("source_id", "event_id", "source_event_id", "source_id_list")
"""Columns that say which event a trace shows; the first one present is used."""
_RATE_COLUMNS = ("trace_sampling_rate_hz", "trace_dt_s")
_EMPTY = ("", "nan", "NaN", "None", "NA", "<NA>")
_TEXT_COLUMNS = ("trace_name", "trace_component_order", "split", *EVENT_COLUMNS)


@dataclass(frozen=True)
class DataFormat:
    """What a waveform file says of itself in its ``data_format`` group.

    Attributes:
        components: axis of the components among a trace's two axes.
        component_order: for traces whose metadata give none; empty where the file gives none either.
        rate: in Hz, NaN where the file gives none.
    """

    components: int
    component_order: str
    rate: float


def read_format(file: h5py.File, path: Path) -> DataFormat:
    """The ``data_format`` group; without one, ``CW`` as SeisBench assumes.

    Raises:
        DataError: a dimension order that no trace can have.
    """
    group = file.get("data_format")
    values: dict[str, object] = {}
    if isinstance(group, h5py.Group):
        # by name: HDF5 may walk through a damaged group for ever
        found = {key: group.get(key) for key in ("dimension_order", "component_order", "sampling_rate")}
        values = {key: item[()] for key, item in found.items() if isinstance(item, h5py.Dataset)}
    order = _text(values.get("dimension_order", "CW"))
    axis = component_axis(order)
    if axis is None:
        raise DataError(f"{path}: dimension_order '{order}' is none that a trace can have; known: CW, WC, each also with N")
    rate = float(np.asarray(values.get("sampling_rate", np.nan)).ravel()[0])
    return DataFormat(axis, _text(values.get("component_order", "")), rate)


def _text(value: object) -> str:
    if isinstance(value, np.ndarray):
        return "".join(_text(item) for item in value.tolist())
    return value.decode() if isinstance(value, bytes) else str(value)


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
