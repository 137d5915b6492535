"""Which model is better on these very windows: paired differences, with intervals over events.

Both models see the same events in every bootstrap round, so that what is hard for both cancels. A model with several runs counts
with the mean of its runs.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from evaluation import metrics
from evaluation.bootstrap import Estimator, Interval, aligned, paired_difference
from evaluation.reporting.comparison import Comparison, Model, dataset
from evaluation.reporting.folder import Evaluation
from evaluation.reporting.picking import threshold
from evaluation.scoring import ALL, DETECTION, IDENTIFICATION, TwoClass, residuals_of
from utils.errors import DataError


@dataclass(frozen=True)
class Difference:
    """A figure of a model minus that of the reference.

    Attributes:
        model: the one compared.
        protocol, source, phase, metric: what was compared.
        interval: of the difference; NaN where it is undefined.
        note: why it is undefined, or what was left out.
    """

    model: Model
    protocol: str
    source: str
    phase: str
    metric: str
    interval: Interval
    note: str


class _Asked(NamedTuple):
    """A figure to compare, as a function of one run's table, its threshold and the rows to use.

    ``score`` is the column that all runs must have an answer in for a row to count; "" where a missing answer is one too.
    """

    protocol: str
    phase: str
    metric: str
    file: str
    make: Callable[[Evaluation, pd.DataFrame, NDArray], Estimator]
    score: str


def _area(task: TwoClass) -> Callable[[Evaluation, pd.DataFrame, NDArray], Estimator]:
    def make(found: Evaluation, table: pd.DataFrame, rows: NDArray) -> Estimator:
        return metrics.auc(table[task.score].to_numpy(np.float64)[rows], (table[task.label] == task.yes).to_numpy()[rows])

    return make


def _matthews(found: Evaluation, table: pd.DataFrame, rows: NDArray) -> Estimator:
    cut = _matthews_cut(found)
    truth = (table["phase_label"] == "P").to_numpy()[rows]
    return metrics.mcc(table["score_p_or_s"].to_numpy(np.float64)[rows], truth, math.nan if cut is None else cut)


def _matthews_cut(found: Evaluation) -> float | None:
    """The threshold that is best for the Matthews correlation on dev."""
    return found.thresholds.get("p_or_s_mcc", threshold(found, "task2", "p_or_s"))


def _residual(phase: str, metric: str) -> Callable[[Evaluation, pd.DataFrame, NDArray], Estimator]:
    def make(found: Evaluation, table: pd.DataFrame, rows: NDArray) -> Estimator:
        return metrics.residuals(residuals_of(table, phase)[rows])[metric]

    return make


_PICK = "{}_sample_pred"
"""Column of picks. Moments are over the picks made: they are compared on onsets that both models picked, shares on all."""

ASKED = (
    _Asked("task1", "", "auc", "test_task1", _area(DETECTION), DETECTION.score),
    _Asked("task2", "", "auc", "test_task23", _area(IDENTIFICATION), IDENTIFICATION.score),
    _Asked("task2", "", "mcc", "test_task23", _matthews, IDENTIFICATION.score),
    *(
        _Asked("task3", phase, metric, "test_task23", _residual(phase, metric), answer.format(phase.lower()))
        for metric, answer in (("within_0.1", ""), ("within_0.5", ""), ("rmse", _PICK), ("mae", _PICK))
        for phase in ("P", "S")
    ),
)
"""Figures that are compared."""


def differences(compared: Comparison, reference: Model) -> tuple[list[Difference], list[str]]:
    """All models against one of them.

    Returns:
        (differences; sentences on models that could not be paired, and why).
    """
    found: list[Difference] = []
    apart: list[str] = []
    names = compared.names()
    sets = list(dict.fromkeys(dataset(run) for run in compared.runs[reference] if run.predictions))
    for model in compared.runs:
        for name in sets if model != reference else ():
            one, other = ([run for run in compared.runs[who] if dataset(run) == name] for who in (reference, model))
            for file in ("test_task1", "test_task23") if other else ():
                try:
                    tables = _together([*one, *other], file)
                except DataError as error:
                    apart.append(f"{names[model]} on {name}, {file}: {error}")
                    continue
                label = f"{ALL} of {name}" if len(sets) > 1 else ALL
                asked = [item for item in ASKED if item.file == file]
                found += [item for each in asked for item in _by_source(model, each, [*one, *other], tables, len(one), label)]
    return found, apart


def _together(runs: Sequence[Evaluation], file: str) -> list[pd.DataFrame]:
    """Prediction tables of runs in one order. Raises DataError where they answer different questions."""
    missing = [item.name for item in runs if file not in item.predictions]
    if missing:
        raise DataError(f"no predictions of {', '.join(missing)}")
    first = runs[0].predictions[file]
    pairs = [aligned(first, item.predictions[file]) for item in runs]
    return [pairs[0][0], *(other for _, other in pairs[1:])]


def _by_source(
    model: Model, asked: _Asked, runs: Sequence[Evaluation], tables: Sequence[pd.DataFrame], references: int, label: str
) -> list[Difference]:
    """One figure on every source, and on all of them; the first so many ``references`` runs are the reference's."""
    table = tables[0]
    source = table["source"].to_numpy(dtype=str)
    base = np.ones(len(table), dtype=bool)
    if asked.phase:
        base = (table["phase_label"] == asked.phase).to_numpy()
    elif asked.protocol == "task2":
        base = (table["p_known"].astype(bool) & table["s_known"].astype(bool)).to_numpy()
    scored = base.copy()
    for other in tables if asked.score else ():
        scored &= np.isfinite(other[asked.score].to_numpy(np.float64))
    names = sorted(set(source[base]))
    found = []
    for name in [*names, *([label] if len(names) > 1 else [])]:
        rows = scored & ((source == name) | (name == label))
        left = int((base & ((source == name) | (name == label))).sum() - rows.sum())
        interval = _difference(asked, runs, tables, rows, references)
        note = f"{left} windows without an answer in one of them left out" if left else ""
        if not math.isfinite(interval.value):
            note = note or _reason(asked, runs)
        found.append(Difference(model, asked.protocol, name, asked.phase, asked.metric, interval, note))
    return found


def _difference(
    asked: _Asked, runs: Sequence[Evaluation], tables: Sequence[pd.DataFrame], rows: NDArray, references: int
) -> Interval:
    made = [asked.make(run, table, rows) for run, table in zip(runs, tables, strict=True)]
    events = tables[0]["event"].to_numpy(dtype=str)[rows]
    return paired_difference(_averaged(made[references:]), _averaged(made[:references]), events)


def _reason(asked: _Asked, runs: Sequence[Evaluation]) -> str:
    """Why a difference is undefined."""
    if asked.metric == "mcc" and any(_matthews_cut(run) is None for run in runs):
        return "a run has no threshold from dev"
    return "no picks" if asked.phase else "all windows are of one class"


def _averaged(estimators: Sequence[Estimator]) -> Estimator:
    """The mean of a model's runs, as one estimator."""

    def estimate(weight: NDArray) -> NDArray:
        return np.mean([estimator(weight) for estimator in estimators], axis=0)

    return estimate
