"""A set written by hand, every trace of which is a case."""

from pathlib import Path

import h5py
import numpy as np
import pandas as pd

NAN = float("nan")
HAND = [
    # name, split, rate, npts, category, source_id, p, Pn, pP, s, PcP
    ("plain", "dev", 100, 9000, "earthquake_local", "e1", 4000, NAN, NAN, 5500, NAN),
    ("early", "test", 100, 9000, "earthquake_local", "e2", 60, NAN, NAN, 2500, NAN),
    ("noise", "dev", 100, 9000, "noise", "", NAN, NAN, NAN, NAN, NAN),
    ("noise_short", "test", 100, 2000, "noise", "", NAN, NAN, NAN, NAN, NAN),
    ("tiny", "test", 100, 90, "noise", "", NAN, NAN, NAN, NAN, NAN),
    ("close", "test", 100, 6000, "earthquake_local", "e3", 3000, NAN, NAN, 3080, NAN),
    ("many", "test", 100, 12000, "earthquake_local", "e4", 3500, 2000.5, 6000, 9000, 10000),
    ("twice", "dev", 100, 6000, "earthquake_local", "e5", 2000, 2000, NAN, 3500, NAN),
    ("outside", "test", 100, 6000, "earthquake_local", "e6", -20, NAN, NAN, 7000, NAN),
    ("unpicked", "test", 100, 6000, "earthquake_local", "e7", NAN, NAN, NAN, NAN, 4000),
    ("only_p", "test", 100, 6000, "earthquake_local", "e8", 3000, NAN, NAN, NAN, NAN),
    ("slow", "test", 20, 1800, "earthquake_local", "e9", 800.5, NAN, NAN, 1100, NAN),
    ("unasked", "train", 100, 6000, "earthquake_local", "e10", 3000, NAN, NAN, 4000, NAN),
]
COLUMNS = ("trace_name", "split", "trace_sampling_rate_hz", "trace_npts", "trace_category", "source_id")
PHASES = ("p", "Pn", "pP", "s", "PcP")


def write_hand_set(folder: Path, chunk: str = "", rows=None) -> Path:
    """A set whose every trace is a case; waves are noise with a spike at each arrival."""
    folder.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(rows or HAND, columns=[*COLUMNS, *(f"trace_{phase}_arrival_sample" for phase in PHASES)])
    rng = np.random.default_rng(0)
    with h5py.File(folder / f"waveforms{chunk}.hdf5", "w") as file:
        data = file.create_group("data")
        for name, npts in zip(table["trace_name"], table["trace_npts"], strict=True):
            data.create_dataset(name, data=rng.normal(size=(3, npts)).astype(np.float32))
        file.create_group("data_format").create_dataset("component_order", data="ZNE")
        file["data_format"].create_dataset("dimension_order", data="CW")
    table.to_csv(folder / f"metadata{chunk}.csv", index=False)
    return folder
