"""Target files on disk, ours or pick-benchmark's: written, read, checked, and found again among the traces of a set."""

from pathlib import Path

import numpy as np
import pandas as pd

from dataloaders.sets.splits import SPLITS
from evaluation import frames
from evaluation.records import Records
from evaluation.targets import FILES, NOISE_PREFIX, is_noise_set
from utils.errors import DataError

_TEXTS = ("trace_name", "trace_chunk", "trace_set", "trace_split", "trace_type", "phase_label", "full_phase_label")
_CHOICES = {"trace_split": SPLITS, "trace_type": ("earthquake", "noise"), "phase_label": ("P", "S")}


def write_targets(tables: dict[str, pd.DataFrame], folder: Path) -> None:
    """Write ``task1.csv`` and ``task23.csv`` into a folder, made if it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    for task, table in tables.items():
        table.to_csv(folder / f"task{task}.csv", index=False)


def read_targets(folder: Path, records: Records) -> dict[str, pd.DataFrame]:
    """Read ``task1.csv`` and ``task23.csv`` for the traces of sets; rows of other splits than dev and test are left out.

    Raises:
        DataError: a file or a column is missing, a value cannot be meant, or the file belongs to another dataset.
    """
    tables = {}
    for task, columns in FILES.items():
        path = folder / f"task{task}.csv"
        table = _read(path, columns)
        table = frames.rows(table, ~frames.is_(table, "trace_split", "train")).reset_index(drop=True)
        traces = find_traces(table, records, path)
        _inside(table, records, traces, path)
        tables[task] = table
    return tables


def read_table(path: Path) -> pd.DataFrame:
    """A file of targets or predictions with texts as text. Raises DataError where it cannot be read."""
    try:
        return pd.read_csv(
            path, dtype=dict.fromkeys(_TEXTS, str), keep_default_na=False, na_values={name: [""] for name in _NUMBERS}
        )
    except (OSError, ValueError, pd.errors.ParserError) as error:
        raise DataError(f"{path}: cannot be read as a table ({error}). Give a folder with task1.csv and task23.csv") from error


_NUMBERS = (
    "trace_idx", "sampling_rate", "start_sample", "end_sample", "phase_onset", "score_detection", "score_p_or_s",
    "p_sample_pred", "s_sample_pred", "p_score", "s_score",
)  # fmt: skip


_WHOLE = ("trace_idx", "start_sample", "end_sample")


def _read(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    table = read_table(path)
    missing = [name for name in columns if name not in table]
    if missing:
        raise DataError(f"{path}: columns {', '.join(missing)} are missing. The file has: {', '.join(map(str, table.columns))}")
    for name, known in _CHOICES.items():
        wrong = ~np.isin(frames.texts(table, name).astype(str), known) if name in columns else np.zeros(len(table), bool)
        if wrong.any():
            row = int(wrong.argmax())
            raise DataError(f"{path}, column '{name}', row {row + 1}: '{table[name].iloc[row]}' is none of {', '.join(known)}")
    for name in set(columns) & set(_NUMBERS):
        values = frames.numbers(table, name)
        wrong = np.isnan(values) | ((values % 1 != 0) & (name in _WHOLE))
        if wrong.any():
            row = int(wrong.argmax())
            kind = "whole number" if name in _WHOLE else "number"
            raise DataError(f"{path}, column '{name}', row {row + 1}: '{table[name].iloc[row]}' is no {kind}")
        table[name] = values.astype(np.int64) if name in _WHOLE else values
    return table


def find_traces(table: pd.DataFrame, records: Records, path: Path) -> np.ndarray:
    """The number of each row's trace among ``records``, by set, chunk and name; ``trace_idx`` is not trusted.

    Args:
        table: targets or predictions.
        records: the traces they should be about.
        path: of the file, for messages.

    Returns:
        ``n`` int64.

    Raises:
        DataError: names that the sets do not have (targets for another dataset), or that several traces have.
    """
    sets = np.array(records.sets, dtype=object)[records.catalogue.which]
    known = pd.DataFrame({"trace_set": sets, "trace_chunk": records.chunk, "trace_name": records.name})
    noise = known["trace_set"].map(is_noise_set)
    known["trace_name"] = known["trace_name"].where(~noise, NOISE_PREFIX + known["trace_name"])
    known["row"] = np.arange(len(known))
    keys = [name for name in ("trace_set", "trace_chunk") if name in table] + ["trace_name"]
    asked = pd.DataFrame({key: frames.texts(table, key) for key in keys})
    known = frames.rows(known, np.asarray(known["trace_name"].isin(asked["trace_name"])))
    repeated = frames.rows(known, np.asarray(known.duplicated(keys, keep=False))).merge(asked.drop_duplicates(), on=keys)
    if len(repeated):
        name = repeated["trace_name"].iloc[0]
        chunks = sorted(repeated.loc[repeated["trace_name"] == name, "trace_chunk"].astype(str))
        raise DataError(
            f"{path}: trace name '{name}' is that of {len(chunks)} traces, in chunks {', '.join(chunks)}. "
            "Add column 'trace_chunk', as our own targets have it, or make targets anew by leaving targets= out"
        )
    found = asked.merge(known, on=keys, how="left")["row"].to_numpy()
    gone = np.isnan(found.astype(np.float64))
    if gone.any():
        raise DataError(
            f"{path}: evaluation targets for another dataset: {int(gone.sum())} of {len(table)} rows name traces that "
            f"{', '.join(records.sets)} does not have, the first is '{table['trace_name'].iloc[int(gone.argmax())]}'. "
            "Give the dataset they were made for, or leave targets= out"
        )
    return found.astype(np.int64)


def _inside(table: pd.DataFrame, records: Records, traces: np.ndarray, path: Path) -> None:
    """Windows and onsets must lie inside their trace and in its split, at 100 Hz."""
    start, end = (table[name].to_numpy(np.int64) for name in ("start_sample", "end_sample"))
    split = np.array([*SPLITS, "none"], dtype=object)[records.catalogue.split[traces]]
    broken = {
        "sampling_rate": (table["sampling_rate"] != records.rate, "the windows must be counted at 100 Hz"),
        "end_sample": (
            (start < 0) | (end <= start) | (end > records.catalogue.length[traces]),
            "the window does not lie inside its trace: these are evaluation targets for another dataset",
        ),
        "trace_split": (
            table["trace_split"].to_numpy(dtype=object) != split,
            "the dataset has this trace in another split: these are evaluation targets for another version of it",
        ),
    }
    if "phase_onset" in table:
        onset = table["phase_onset"].to_numpy(np.float64)
        broken["phase_onset"] = ((onset < start) | (onset >= end), "the onset does not lie inside its window")
    for name, (wrong, rule) in broken.items():
        if np.asarray(wrong).any():
            row = int(np.argmax(np.asarray(wrong)))
            raise DataError(f"{path}, column '{name}', row {row + 1}: '{table[name].iloc[row]}': {rule}")
