"""Columns of a pickled data frame, out of inert records: NumPy arrays are made here, from bytes, and nowhere else.

Knows the layouts of pandas 0.14 to 3: a frame has a block manager, blocks hold rows of a two-dimensional array a column.
"""

from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from dataloaders.foreshock.inert import Record
from utils.errors import DataError

_KINDS = "biufmMUSO"
"""Kinds of NumPy's types that are read: numbers, times, text, objects. Records and raw memory are not."""


class UnreadableError(Exception):
    """A value of a form that is not known; the text says which."""


_UNFIT = (UnreadableError, TypeError, ValueError, LookupError, AttributeError, OverflowError, RecursionError)
"""What an inert value of another form than expected fails with."""


def columns(frame: Any) -> dict[str, np.ndarray]:
    """The columns of an inert data frame, each an array of one entry a row.

    Raises:
        DataError: it is no data frame, or of a layout that is not known.
    """
    try:
        return _columns(frame)
    except _UNFIT as error:
        raise DataError(f"no data frame that can be read ({error}). Save it again with a current pandas") from error


def _columns(frame: Any) -> dict[str, np.ndarray]:
    state = _record(frame, "frame").state
    manager = _record(state.get("_mgr", state.get("_data")), "manager")
    if manager.args:
        blocks, axes = manager.args
        parts = [_record(block, "block").args[:2] for block in blocks]
    else:
        inner = manager.state[3]["0.14.1"]
        axes, parts = inner["axes"], [(block["values"], block["mgr_locs"]) for block in inner["blocks"]]
    names = [str(name) for name in _index(axes[0])]
    found: dict[str, np.ndarray] = {}
    for values, place in parts:
        rows = array(values)
        at = _place(place, len(names))
        rows = rows[None] if rows.ndim == 1 else rows
        if len(rows) != len(at):
            raise UnreadableError(f"a block of {len(rows)} columns for {len(at)} names")
        found |= {names[number]: row for number, row in zip(at.tolist(), rows, strict=True)}
    if len({len(column) for column in found.values()}) > 1 or set(found) != set(names):
        raise UnreadableError("columns that do not fit together")
    return found


def _kind(value: Any) -> str:
    """Which known global an inert record stands for, ``""`` for anything else."""
    return value.kind if isinstance(value, Record) else ""


def _record(value: Any, *kinds: str) -> Record:
    if _kind(value) not in kinds:
        raise UnreadableError(f"{_kind(value) or type(value).__name__} where {' or '.join(kinds)} should be")
    return value


def _index(index: Any) -> np.ndarray:
    made = _record(index, "new_index").args[1]
    if "data" not in made:
        raise UnreadableError("columns without names")
    return array(made["data"])


def _place(place: Any, count: int) -> np.ndarray:
    if _kind(place) == "slice":
        return np.arange(count)[slice(*place.args)]
    return array(place).astype(np.int64)


def array(value: Any) -> np.ndarray:
    """An inert array of NumPy or pandas as a NumPy array; times become ``datetime64`` in UTC.

    Raises:
        UnreadableError: of another form.
    """
    if type(value) is np.ndarray:  # made here already
        return value
    made = _record(value, "reconstruct", "frombuffer", "backed", "datetimes", "strings", "new_index")
    if made.kind == "reconstruct":
        _, shape, dtype, fortran, data = made.state
        return _filled(data, _dtype(dtype), shape, "F" if fortran else "C")
    if made.kind == "frombuffer":
        data, dtype, shape, order = made.args[:4]
        return _filled(data, _dtype(dtype), shape, "F" if order == "F" else "C")
    if made.kind == "new_index":
        return array(made.args[1]["data"])
    if made.kind == "backed":
        state = made.state if made.state is not None else made.args[2]
        return array(next(part for part in state if _kind(part) in ("reconstruct", "frombuffer")))
    return array(made.state["_data" if "_data" in made.state else "_ndarray"])


def _filled(data: Any, dtype: np.dtype[Any], shape: Any, order: str) -> np.ndarray:
    shape = tuple(int(length) for length in shape)
    if dtype.kind == "O":
        if type(data) is not list or len(data) != int(np.prod(shape, dtype=object)):
            raise UnreadableError("an array of objects whose number does not fit its shape")
        out = np.empty(len(data), object)
        out[:] = data if not data else _each(data)
        return out.reshape(shape, order="F" if order == "F" else "C")
    raw = _bytes(data)
    if min(shape, default=0) < 0 or len(raw) != dtype.itemsize * int(np.prod(shape, dtype=object)):
        raise UnreadableError(f"an array of shape {shape} with {len(raw)} bytes")
    return np.frombuffer(raw, dtype).reshape(shape, order="F" if order == "F" else "C")


def _each(data: list[Any]) -> np.ndarray:
    """Objects as an array of objects, whatever they are (NumPy would stack lists of equal length)."""
    out = np.empty(len(data), object)
    for number, item in enumerate(data):
        out[number] = item
    return out


def _bytes(data: Any) -> bytes:
    if type(data) in (bytes, bytearray):
        return bytes(data)
    if type(data) is str:  # protocol 2 of Python 2
        return data.encode("latin-1")
    if _kind(data) == "no_bytes" and not data.args:  # an empty array in protocol 2
        return b""
    text, coding = _record(data, "encode").args
    if coding not in ("latin1", "latin-1"):
        raise UnreadableError(f"bytes written as '{coding}'")
    return text.encode("latin-1")


def _dtype(dtype: Any) -> np.dtype[Any]:
    made = _record(dtype, "dtype")
    code = _word(made.args[0])
    if code.lstrip("<>=|")[:1] not in set(_KINDS) or not code.lstrip("<>=|")[1:].isdigit():
        raise UnreadableError(f"an array of type '{code}'")
    state = made.state or (3, "=", None, None, None)
    if state[2] is not None or state[3] is not None or state[4] is not None:
        raise UnreadableError("an array of records")
    order = _word(state[1])
    base = np.dtype(code).newbyteorder(order if order in ("<", ">") else "=")
    if base.kind in "mM" and len(state) > 8:
        unit, count = state[8][1][:2]
        return np.dtype(f"{base.str[:3]}[{count}{_word(unit)}]")
    return base


def _word(value: Any) -> str:
    return value if type(value) is str else _bytes(value).decode("ascii")


def time(value: Any) -> np.datetime64:
    """A cell as a time in UTC, to the microsecond; NaT where it is none."""
    try:
        return _time(value)
    except _UNFIT:
        return np.datetime64("NaT")


def _time(value: Any) -> np.datetime64:
    kind = _kind(value)
    if kind == "timestamp" and value.args and type(value.args[0]) is int:
        unit = {7: "s", 8: "ms", 9: "us", 10: "ns"}.get(value.args[3] if len(value.args) > 3 else 10, "ns")
        return np.datetime64(value.args[0], unit).astype("datetime64[us]")
    if kind == "datetime":
        return np.datetime64(_moment(value.args[0]), "us") if len(value.args) == 1 else np.datetime64("NaT")
    if type(value) is np.datetime64:
        return value.astype("datetime64[us]")
    if type(value) is not str:
        return np.datetime64("NaT")
    moment = pd.DatetimeIndex(pd.to_datetime([value], utc=True, errors="coerce")).tz_localize(None)
    return np.asarray(moment, "datetime64[us]")[0]


def _moment(packed: Any) -> datetime:
    """A time out of the ten bytes that ``datetime`` without a zone pickles to."""
    raw = _bytes(packed)
    micro = int.from_bytes(raw[7:10], "big")
    return datetime(raw[0] * 256 + raw[1], raw[2] & 0x7F, raw[3], raw[4], raw[5], raw[6], micro, tzinfo=None)


def number(value: Any) -> float:
    """A cell as a number, NaN where it is none."""
    try:
        return float(_plain(value))
    except _UNFIT:
        return float("nan")


def _plain(value: Any) -> Any:
    """A cell, or the number that NumPy made a scalar of."""
    return np.frombuffer(_bytes(value.args[1]), _dtype(value.args[0]))[0] if _kind(value) == "scalar" else value


def text(value: Any) -> str:
    """A cell as text, ``""`` where it is empty; a whole number without decimals, so that 7 and 7.0 are one identifier."""
    if type(value) is str:
        return value.strip()
    figure = number(value)
    if not np.isfinite(figure):
        return ""
    whole = _plain(value)
    if isinstance(whole, (int, np.integer)):  # exact, also where float64 would take two identifiers for one
        return str(int(whole))
    return str(int(figure)) if figure == int(figure) else str(figure)


def samples(value: Any) -> np.ndarray | None:
    """A cell as ``L`` float32 samples; None where it is no one-dimensional array of numbers."""
    try:
        found = np.asarray([number(item) for item in value]) if type(value) in (list, tuple) else array(value)
        if found.dtype.kind == "O":
            found = np.asarray([number(item) for item in found.ravel()]).reshape(found.shape)
    except _UNFIT:
        return None
    found = found.squeeze()
    return found.astype(np.float32) if found.ndim == 1 and found.dtype.kind in "iuf" and len(found) else None
