"""The folder that an evaluation leaves, read and checked: nothing is drawn from a file that is not what it should be.

Letters: K examples, L samples, P arrivals a trace.
"""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from evaluation.figures.calibration import Bins
from evaluation.scoring import COLUMNS, Row
from utils.errors import DataError

METRICS, RUN, THRESHOLDS, CALIBRATION = "metrics.csv", "run.json", "thresholds.json", "calibration.csv"
EXAMPLES, CONFUSION, PREDICTIONS = "examples.npz", "confusion.csv", "pred"
MAKE = "python -m evaluation.run checkpoint=… dataset=…"
"""The command that makes such a folder, for errors."""
_CALIBRATION = ("phase", "bin_low", "bin_high", "confidence", "frequency", "n")
_TARGETS = ("trace_name", "sampling_rate", "start_sample", "end_sample")
_ANSWERS = ("score_p_or_s", "p_sample_pred", "s_sample_pred")
_SCORES: Mapping[str, tuple[str, ...]] = {
    "task1": (*_TARGETS, "source", "event", "trace_type", "score_detection"),
    "task23": (*_TARGETS, "source", "event", "p_known", "s_known", "phase_label", "phase_onset", *_ANSWERS),
}
"""Columns a report needs of each kind of prediction file."""


@dataclass(frozen=True)
class Examples:
    """Windows to look at.

    Attributes:
        wave: ``K 3 L`` normalised, in the order ZNE.
        probabilities: ``K L 3`` of P, S and noise.
        onsets: ``K P`` samples, −1 where there is none.
        phases: ``K P``, 0 for P, 1 for S.
        known: ``K 2`` bool, whether P (S) of the trace is labelled; True where the file does not say.
        source, trace_name, kind: ``K`` texts; kind is ``typical`` or ``worst``.
        rate: in Hz.
    """

    wave: NDArray
    probabilities: NDArray
    onsets: NDArray
    phases: NDArray
    known: NDArray
    source: NDArray
    trace_name: NDArray
    kind: NDArray
    rate: float


@dataclass(frozen=True)
class Confusion:
    """Who is taken for whom.

    Attributes:
        counts: ``K K``, true classes in rows, answers in columns.
        classes: ``K`` names.
    """

    counts: NDArray
    classes: tuple[str, ...]


@final
@dataclass(frozen=True)
class Evaluation:
    """All that an evaluation left.

    Attributes:
        path: the folder.
        run: what was evaluated: ``experiment_name``, ``run_id``, ``seed``, …
        metrics: the figures; ``value`` is NaN where undefined.
        thresholds: chosen on dev, by name.
        calibration: reliability by phase; empty where there is none.
        predictions: ``{"dev_task1": table, …}``; empty for classification.
        examples: windows with probabilities; None where there are none.
        confusion: of classes; None where there is none.
    """

    path: Path
    run: Mapping[str, Any]
    metrics: tuple[Row, ...]
    thresholds: Mapping[str, float]
    calibration: Mapping[str, Bins]
    predictions: Mapping[str, pd.DataFrame]
    examples: Examples | None
    confusion: Confusion | None

    @property
    def is_classification(self) -> bool:
        """Whether traces were classified rather than phases picked."""
        return any(row.protocol == "classification" for row in self.metrics)

    @property
    def name(self) -> str:
        """Experiment and run."""
        return f"{self.run['experiment_name']} / {self.run['run_id']}"


def read(path: Path) -> Evaluation:
    """Read an evaluation folder.

    Raises:
        DataError: it is none, or a file in it lacks something; says what, and which command makes it.
    """
    if not (path / METRICS).is_file():
        there = ", ".join(sorted(entry.name for entry in path.iterdir())[:8]) if path.is_dir() else ""
        why = f"it holds {there}" if there else "it is empty" if path.is_dir() else "there is no such folder"
        raise DataError(f"{path} is no evaluation folder: no {METRICS} in it ({why}). Make one: {MAKE}")
    return Evaluation(
        path=path,
        run=_run(path / RUN),
        metrics=_metrics(path / METRICS),
        thresholds=_thresholds(path / THRESHOLDS),
        calibration=_calibration(path / CALIBRATION) if (path / CALIBRATION).is_file() else {},
        predictions=_predictions(path / PREDICTIONS),
        examples=_examples(path / EXAMPLES) if (path / EXAMPLES).is_file() else None,
        confusion=_confusion(path / CONFUSION) if (path / CONFUSION).is_file() else None,
    )


def find(paths: Sequence[str | Path]) -> list[Path]:
    """Evaluation folders: those given, and all below the run folders given, each once, in order.

    Raises:
        DataError: a path leads to none.
    """
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        below = [path] if (path / METRICS).is_file() and (path / RUN).is_file() else []
        below = below or sorted(file.parent for file in path.glob("**/evaluation/*/" + METRICS))
        if not below:
            why = "no evaluation in it" if path.is_dir() else "there is no such folder"
            raise DataError(f"{path}: {why}. Make one: {MAKE}")
        found |= dict.fromkeys(folder.resolve() for folder in below)
    return list(found)


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}). Make it again: {MAKE}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} holds no names and values. Make it again: {MAKE}")
    return content


def _run(path: Path) -> dict[str, Any]:
    run = _json(path)
    missing = [name for name in ("experiment_name", "run_id", "seed") if name not in run]
    if missing:
        raise DataError(f"{path} does not say {', '.join(missing)}. Make it again: {MAKE}")
    return run


def _table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """A CSV that has at least these columns; nothing but an empty cell means missing."""
    try:
        table = pd.read_csv(path, keep_default_na=False, na_values=["", "nan", "NaN"])
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}). Make it again: {MAKE}") from error
    _demand_columns(path, list(table.columns), columns)
    return table


def _metrics(path: Path) -> tuple[Row, ...]:
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        _demand_columns(path, reader.fieldnames or [], COLUMNS)
        rows = tuple(_row(cells, path, place) for place, cells in enumerate(reader, start=2))
    if not rows:
        raise DataError(f"{path} has no rows: nothing was evaluated. Make it again: {MAKE}")
    return rows


def _row(cells: Mapping[str, str | None], path: Path, place: int) -> Row:
    """A line of ``metrics.csv``; an empty number is NaN, an empty count is 0."""

    def number(name: str) -> float:
        try:
            return float(cells[name] or "nan")
        except ValueError:
            raise DataError(f"{path}: {name} = '{cells[name]}' in line {place} is no number. Make it again: {MAKE}") from None

    protocol, split, source, phase, metric, note = (
        cells[name] or "" for name in ("protocol", "split", "source", "phase", "metric", "note")
    )
    n, events = (0 if math.isnan(count) else int(count) for count in (number("n"), number("events")))
    value, low, high = (number(name) for name in ("value", "low", "high"))
    return Row(protocol, split, source, phase, metric, value, low, high, n, events, note)


def _demand_columns(path: Path, there: Sequence[Any], wanted: Sequence[str]) -> None:
    missing = [name for name in wanted if name not in there]
    if missing:
        told = f"no column {', '.join(missing)}; it has {', '.join(map(str, there))}"
        raise DataError(f"{path}: {told}. Make it again: {MAKE}")


def _calibration(path: Path) -> dict[str, Bins]:
    table = _table(path, _CALIBRATION)
    phases = table["phase"].astype(str).to_numpy()
    columns = {name: table[name].to_numpy(np.float64) for name in ("confidence", "frequency", "n")}
    return {
        str(phase): Bins(**{name: values[phases == phase] for name, values in columns.items()}) for phase in np.unique(phases)
    }


def _thresholds(path: Path) -> dict[str, float]:
    if not path.is_file():
        return {}
    return {name: float(value) for name, value in _json(path).items() if isinstance(value, int | float)}


def _predictions(folder: Path) -> dict[str, pd.DataFrame]:
    """Prediction tables by ``<split>_<task>``. Several experiments in one folder are mixed up: refused."""
    tables: dict[str, pd.DataFrame] = {}
    for task, columns in _SCORES.items():
        for split in ("dev", "test"):
            files = sorted(folder.glob(f"**/{split}_{task}.csv"))
            if len(files) > 1:
                named = " and ".join(str(file.relative_to(folder)) for file in files[:2])
                raise DataError(f"{folder}: {named} are predictions of different runs; a folder holds those of one. {MAKE}")
            for file in files:
                tables[f"{split}_{task}"] = _table(file, columns)
    return tables


def _examples(path: Path) -> Examples:
    names = ("wave", "probabilities", "onsets", "phases", "source", "trace_name", "kind")
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [name for name in names if name not in file]
            arrays = {name: file[name] for name in names if name in file}
            known = file.get("known")
            rate = float(file["rate"]) if "rate" in file else 100.0
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}). Make it again: {MAKE}") from error
    if missing:
        raise DataError(f"{path} holds no {', '.join(missing)}. Make it again: {MAKE}")
    wave, chance = arrays["wave"], arrays["probabilities"]
    if chance.shape != (len(wave), wave.shape[2], 3) or arrays["onsets"].shape != arrays["phases"].shape:
        raise DataError(f"{path}: waves {wave.shape} and probabilities {chance.shape} do not fit, they are K 3 L and K L 3")
    return Examples(**arrays, known=np.ones((len(wave), 2), bool) if known is None else known, rate=rate)


def _confusion(path: Path) -> Confusion:
    """True classes in rows, named by the first column; the other columns are the classes answered."""
    table = _table(path, ())
    rows, columns = [str(name) for name in table.iloc[:, 0]], [str(name) for name in table.columns[1:]]
    if rows != columns:
        raise DataError(f"{path}: classes in rows and columns differ: {', '.join(rows)} and {', '.join(columns)}")
    return Confusion(table.iloc[:, 1:].to_numpy(np.float64), tuple(columns))
