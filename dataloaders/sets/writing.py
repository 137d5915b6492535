"""Writing the files of a set: all of them or none."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from utils.errors import DataError

FILES = ("metadata.csv", "waveforms.hdf5")
"""What a set without chunks consists of."""
BLOCK = 1024
"""Traces a block, as SeisBench's own writer makes them."""
FORMAT = {
    "dimension_order": "CW",
    "component_order": "ZNE",
    "sampling_rate": 100.0,
    "measurement": "velocity",
    "unit": "counts",
    "instrument_response": "not restituted",
}
"""Group ``data_format`` of the sets that this project writes."""


@contextmanager
def new_files(folder: Path, names: Sequence[str], *, overwrite: bool) -> Iterator[list[Path]]:
    """Paths to write to; what lies there gets its names, all at once, when the block ends without an error, and goes otherwise.

    Args:
        folder: of the files; made if it is not there.
        names: of the files.
        overwrite: replace files that are there already; others in the folder stay.

    Raises:
        DataError: a file is there already, or the folder cannot be written.
    """
    final = [folder / name for name in names]
    there = [file for file in final if file.exists()]
    if there and not overwrite:
        raise DataError(f"{there[0]}: a set is there already. Choose another path, or replace it with overwrite=true.")
    partial = [file.with_name(f".{file.name}.{os.getpid()}.partial") for file in final]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield partial
        for source, target in zip(partial, final, strict=True):
            source.replace(target)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error}). Free space, or choose another path.") from error
    finally:
        for path in partial:
            path.unlink(missing_ok=True)
