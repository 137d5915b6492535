"""Pickles read as inert records: nothing that a file names is ever called.

Unpickling a stranger's file runs the functions it names with the arguments it gives. Here every global that a file may name is
replaced by a record that notes the name, the arguments and the state, and does nothing; a global that data frames do not need
ends the reading and is named in the error. pandas and NumPy themselves take no part, so neither their versions nor their
unpickling code matter.
"""

import pickle
import pickletools
from pathlib import Path
from typing import IO, Any, ClassVar, NoReturn

from utils.errors import DataError

BROKEN = (
    pickle.UnpicklingError, EOFError, TypeError, ValueError, AttributeError, LookupError, OverflowError, MemoryError,
    RecursionError,
)  # fmt: skip
"""What a damaged or hostile pickle fails with once nothing of it is executed."""


class _Sealed(type):
    """A metaclass whose classes cannot be changed: a pickle may set attributes on whatever it holds."""

    def __setattr__(cls, name: str, value: object) -> NoReturn:
        raise pickle.UnpicklingError(f"attribute '{name}' set on a type")


class Record(metaclass=_Sealed):
    """What a pickle wanted to make.

    Attributes:
        kind: which of the known globals was named.
        args: what it was to be called with.
        state: what was to become of it afterwards, None where the pickle says nothing.
    """

    kind: ClassVar[str] = ""
    __slots__ = ("args", "state")
    args: tuple[Any, ...]
    state: Any

    def __new__(cls, *args: Any) -> "Record":
        """Note the arguments."""
        made = object.__new__(cls)
        made.args, made.state = args, None
        return made

    def __setstate__(self, state: Any) -> None:
        """Note the state."""
        self.state = state


def _kind(name: str) -> type[Record]:
    return _Sealed(f"Inert_{name}", (Record,), {"kind": name, "__slots__": ()})


_GLOBALS = {
    "frame": "pandas.DataFrame pandas.core.frame.DataFrame",
    "manager": "pandas.core.internals.managers.BlockManager pandas.core.internals.BlockManager",
    "block": "pandas._libs.internals._unpickle_block pandas.core.internals.blocks.new_block",
    "new_index": "pandas.core.indexes.base._new_Index pandas.core.indexes.datetimes._new_DatetimeIndex "
    "pandas.indexes.base._new_Index",
    "index_type": "pandas.Index pandas.RangeIndex pandas.DatetimeIndex pandas.core.indexes.base.Index "
    "pandas.core.indexes.range.RangeIndex pandas.core.indexes.numeric.Int64Index pandas.core.indexes.numeric.UInt64Index "
    "pandas.core.indexes.numeric.Float64Index pandas.core.indexes.datetimes.DatetimeIndex",
    "backed": "pandas._libs.arrays.__pyx_unpickle_NDArrayBacked",
    "datetimes": "pandas.arrays.DatetimeArray pandas.core.arrays.datetimes.DatetimeArray",
    "strings": "pandas.arrays.StringArray pandas.core.arrays.string_.StringArray",
    "categories": "pandas.Categorical pandas.core.arrays.categorical.Categorical",
    "extension_dtype": "pandas.StringDtype pandas.core.arrays.string_.StringDtype pandas.DatetimeTZDtype "
    "pandas.core.dtypes.dtypes.DatetimeTZDtype pandas.CategoricalDtype pandas.core.dtypes.dtypes.CategoricalDtype",
    "timestamp": "pandas._libs.tslibs.timestamps._unpickle_timestamp pandas._libs.tslibs.timestamps.Timestamp "
    "pandas._libs.tslib.Timestamp",
    "nat": "pandas._libs.tslibs.nattype._nat_unpickle",
    "reconstruct": "numpy.core.multiarray._reconstruct numpy._core.multiarray._reconstruct",
    "frombuffer": "numpy.core.numeric._frombuffer numpy._core.numeric._frombuffer",
    "scalar": "numpy.core.multiarray.scalar numpy._core.multiarray.scalar",
    "ndarray": "numpy.ndarray",
    "dtype": "numpy.dtype",
    "encode": "_codecs.encode",
    "no_bytes": "builtins.bytes __builtin__.bytes",
    "slice": "builtins.slice __builtin__.slice",
    "datetime": "datetime.datetime",
    "timezone": "datetime.timezone datetime.timedelta pytz._UTC pytz.UTC dateutil.tz.tz.tzutc",
}
ALLOWED: dict[str, type[Record]] = {path: _kind(kind) for kind, paths in _GLOBALS.items() for path in paths.split()}
"""Every global a file may name, under its old and new module paths, and the inert record it becomes."""


class _Unpickler(pickle.Unpickler):
    """Makes records of allowed globals and refuses all others by name."""

    def find_class(self, module: str, name: str) -> type[Record]:
        """The record type of a global."""
        found = ALLOWED.get(f"{module}.{name}")
        if found is None:
            raise RefusedError(f"{module}.{name}")
        return found


class RefusedError(Exception):
    """A pickle named a global that data frames do not need; the text is its name."""


def _demand_modest(file: IO[bytes]) -> None:
    """Refuse places in the memo that no pickler counts up to: a few bytes would take all memory, since the memo is an array.

    Raises:
        pickle.UnpicklingError: such a place; :data:`BROKEN` where the file is no pickle.
    """
    for done, (code, place, _) in enumerate(pickletools.genops(file)):
        if code.name in ("PUT", "BINPUT", "LONG_BINPUT") and isinstance(place, int) and place > done:
            raise pickle.UnpicklingError(f"place {place} of a memo of at most {done}")


def read_inert(path: Path) -> Any:
    """The content of a pickle as builtins and records; nothing in it is executed.

    Raises:
        DataError: missing, no pickle, damaged, or naming a global that is not allowed.
    """
    try:
        with path.open("rb") as file:
            _demand_modest(file)
            file.seek(0)
            return _Unpickler(file).load()
    except RefusedError as refused:
        raise DataError(
            f"{path}: names '{refused}', which no table of waveforms needs; reading it as usual would run it. Nothing was "
            "executed. If you trust the file, load it where it was made and save it again with columns of plain text, numbers "
            "and NumPy arrays"
        ) from refused
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    except BROKEN as error:
        raise DataError(f"{path}: no pickle of a table, or damaged ({error}). Download it again") from error
