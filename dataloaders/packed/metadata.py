"""The metadata of a set as they are at 100 Hz: the same rows and columns, with samples counted anew where it was resampled."""

import re
from pathlib import Path

import numpy as np
import pandas as pd

from dataloaders.packed.files import atomic
from dataloaders.sets.catalogue import Catalogue
from dataloaders.sets.resample import RATE

_SAMPLES = re.compile(r"trace_.+_sample")
"""Columns that count samples from the beginning of the trace."""
_RATE = {"trace_sampling_rate_hz": f"{RATE:g}", "trace_dt_s": f"{1 / RATE:g}"}
_ROWS = 50_000
"""Rows in memory at a time."""


def write_metadata(source: Path, target: Path, catalogue: Catalogue, first: int) -> int:
    """Copy a metadata table, a part at a time.

    Rows that were at 100 Hz already keep every digit; all get the order of the components as it is packed.

    Args:
        source: CSV file.
        target: CSV file.
        catalogue: the traces, at 100 Hz.
        first: number of the table's first row in the catalogue.

    Returns:
        the number of rows.
    """
    count = 0
    with atomic(target) as file:
        for frame in pd.read_csv(source, dtype=str, keep_default_na=False, chunksize=_ROWS):
            rows = np.arange(first + count, first + count + len(frame))
            at_100_hz(frame, catalogue, rows).to_csv(file, index=False, header=count == 0)
            count += len(frame)
    return count


def at_100_hz(frame: pd.DataFrame, catalogue: Catalogue, rows: np.ndarray) -> pd.DataFrame:
    """Some rows of a table, texts, as they are when their traces are packed.

    Args:
        frame: as it was.
        catalogue: the traces, at 100 Hz.
        rows: their numbers in it.
    """
    frame = frame.copy()
    resampled = catalogue.ratio[rows] != 0
    for name in frame.columns if resampled.any() else ():
        column = np.array(frame[name], dtype=object)
        if _SAMPLES.fullmatch(str(name)):
            value = np.asarray(pd.to_numeric(frame[name], errors="coerce"), dtype=np.float64)
            given = resampled & np.isfinite(value)
            column[given] = [repr(sample) for sample in catalogue.onsets(rows[given], value[given]).tolist()]
        elif name == "trace_npts":
            column[resampled] = [str(length) for length in catalogue.length[rows[resampled]].tolist()]
        elif name in _RATE:
            column[resampled] = _RATE[str(name)]
        frame[name] = column
    if "trace_component_order" in frame:
        words = ["".join(letter for bit, letter in enumerate("ZNE") if code >> bit & 1) for code in range(8)]
        frame["trace_component_order"] = np.array(words, dtype=object)[catalogue.live(rows) @ np.array([1, 2, 4])]
    return frame
