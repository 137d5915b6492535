"""Tables like the published ones: pickled data frames of a sequence around a mainshock, a few traces each."""

import pickle
from pathlib import Path

import numpy as np
import pandas as pd

MAINSHOCK = pd.Timestamp("2016-10-30T07:40:17")
DAYS = {"pre": (-60.0, -0.5), "visso": (-3.9, -1.0), "post": (0.2, 90.0)}


def frame(sequence: str, events: int, *, samples: int = 512, seed: int = 0) -> pd.DataFrame:
    """``events`` events at random times of a part of the sequence, one trace each."""
    rng = np.random.default_rng([seed, *sequence.encode()])
    days = rng.uniform(*DAYS[sequence], events)
    rows = []
    for number, day in enumerate(days.tolist()):
        origin = MAINSHOCK + pd.Timedelta(seconds=round(day * 86400, 2))
        waves = {f"{c}_channel": rng.normal(size=samples) * 100 for c in "ENZ"}
        start = origin - pd.Timedelta(seconds=1)
        rows.append(
            waves
            | {
                "label": [1, 0] if sequence == "pre" else [0, 1],
                "trace_name": f"{sequence}{number}.IV.NRCA..HH",
                "trace_start_time": f"{start.isoformat()}Z",
                "source_id": f"{sequence}_{number}",
                "source_origin_time": f"{origin.isoformat()}Z",
                "magnitude": round(float(rng.uniform(1, 3)), 1),
                "p_travel_sec": 1.25,
            }
        )
    return pd.DataFrame(rows)


def write(folder: Path, frames: dict[str, pd.DataFrame], *, protocol: int = 4) -> Path:
    """The frames as the published files."""
    folder.mkdir(parents=True, exist_ok=True)
    for sequence, table in frames.items():
        (folder / f"dataframe_{sequence}_NRCA.csv").write_bytes(pickle.dumps(table, protocol=protocol))
    return folder
