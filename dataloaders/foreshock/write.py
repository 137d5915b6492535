"""Usable records as a set in SeisBench's format, with times to the mainshock."""

from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from dataloaders.foreshock.records import RATE, Gathered, Record
from dataloaders.sets.writing import BLOCK, FILES, FORMAT, new_files

TIME_COLUMN, SEQUENCE_COLUMN, EVENT_COLUMN = "source_time_to_mainshock_s", "source_sequence", "source_id"
P_COLUMN = "trace_p_arrival_sample"
SKIPPED = "skipped.csv"


def write_set(
    folder: Path, gathered: Gathered, *, mainshock: np.datetime64, network: str, station: str, overwrite: bool = False
) -> Path:
    """Write ``metadata.csv``, ``waveforms.hdf5`` and ``skipped.csv``: all or none.

    Args:
        folder: of the set; made if it is not there.
        gathered: usable records and those left out.
        mainshock: origin time, UTC.
        network, station: codes of the station that recorded.
        overwrite: replace a set that is there already.

    Returns:
        the folder.

    Raises:
        DataError: a set is there already, or the folder cannot be written.
    """
    with new_files(folder, (*FILES, SKIPPED), overwrite=overwrite) as (table, waveforms, left_out):
        with h5py.File(waveforms, "w") as file:
            names = _write_waves(file, gathered.records)
        rows = [_row(record, name, mainshock, network, station) for record, name in zip(gathered.records, names, strict=True)]
        pd.DataFrame(rows).to_csv(table, index=False)
        pd.DataFrame(gathered.skipped, columns=["file", "row", "trace_name", "reason"]).to_csv(left_out, index=False)
    return folder


def _write_waves(file: h5py.File, records: list[Record]) -> list[str]:
    """Blocks of equally long traces; returns the name of each trace."""
    described = file.create_group("data_format")
    for key, value in FORMAT.items():
        described.create_dataset(key, data=value)
    data, names = file.create_group("data"), [""] * len(records)
    lengths = np.array([record.wave.shape[1] for record in records])
    block = 0
    for length in np.unique(lengths).tolist():
        mine = np.flatnonzero(lengths == length)
        for low in range(0, len(mine), BLOCK):
            numbers = mine[low : low + BLOCK].tolist()
            data.create_dataset(f"bucket{block}", data=np.stack([records[number].wave for number in numbers]))
            for row, number in enumerate(numbers):
                names[number] = f"bucket{block}${row},:3,:{length}"
            block += 1
    return names


def _row(record: Record, name: str, mainshock: np.datetime64, network: str, station: str) -> dict[str, object]:
    seconds = (record.origin - mainshock) / np.timedelta64(1, "us") / 1e6
    p_sample = np.nan
    if not np.isnat(record.start):
        p_sample = ((record.origin - record.start) / np.timedelta64(1, "us") / 1e6 + record.p_travel) * RATE
    inside = 0 <= p_sample < record.wave.shape[1]
    return {
        "trace_name": name,
        "trace_name_original": record.name,
        "trace_start_time": "" if np.isnat(record.start) else f"{record.start}Z",
        "trace_sampling_rate_hz": RATE,
        "trace_npts": record.wave.shape[1],
        "trace_component_order": "ZNE",
        "station_network_code": network,
        "station_code": station,
        EVENT_COLUMN: record.event,
        "source_origin_time": f"{record.origin}Z",
        "source_magnitude": record.magnitude,
        TIME_COLUMN: seconds,
        SEQUENCE_COLUMN: record.sequence,
        P_COLUMN: round(float(p_sample), 2) if inside else np.nan,
    }
