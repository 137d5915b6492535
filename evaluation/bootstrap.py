"""Intervals by resampling events: traces of one earthquake are no independent witnesses (Efron & Tibshirani 1993, ch. 8).

A metric is an *estimator*: a function of weights ``R N`` (how often each of N rows counts, in each of R rounds) that returns
``R`` values. Weights of one give the metric itself, resampled weights its bootstrap distribution, all rounds at once.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from utils.errors import DataError

Estimator = Callable[[np.ndarray], np.ndarray]

ROUNDS = 1000
LEVEL = 0.95
_ELEMENTS = 2_000_000
"""Weights held in memory at a time."""
_DEFINED = 0.5
"""Share of the rounds in which a metric must be defined for an interval to be given."""


@dataclass(frozen=True)
class Interval:
    """A metric with its uncertainty; NaN where undefined.

    Attributes:
        value: on all rows.
        low, high: percentiles of its bootstrap distribution.
        n: rows.
        events: distinct events among them.
    """

    value: float
    low: float
    high: float
    n: int
    events: int


def weights(events: np.ndarray, rounds: int, seed: int) -> Iterator[np.ndarray]:
    """How often each row counts when its events are drawn with replacement, a few rounds at a time.

    Args:
        events: ``N`` identifiers.
        rounds: how many in all.
        seed: the same seed and events give the same rounds, whatever the metric: differences are paired.

    Yields:
        ``r N`` float64.
    """
    unique, code = np.unique(events, return_inverse=True)
    generator = np.random.default_rng(seed)
    step = max(1, min(rounds, _ELEMENTS // max(len(events), 1)))
    for first in range(0, rounds, step):
        count = min(step, rounds - first)
        drawn = generator.integers(0, len(unique), (count, len(unique)))
        flat = drawn + len(unique) * np.arange(count)[:, None]
        times = np.bincount(flat.ravel(), minlength=count * len(unique)).reshape(count, len(unique))
        yield times[:, code.reshape(-1)].astype(np.float64)


def intervals(
    estimators: Mapping[str, Estimator], events: np.ndarray, *, rounds: int = ROUNDS, seed: int = 0, level: float = LEVEL
) -> dict[str, Interval]:
    """Metrics of the same rows with percentile intervals over events.

    Args:
        estimators: by name.
        events: ``N``, the event of each row.
        rounds: resamples.
        seed: of the resampling.
        level: of the intervals.
    """
    one = np.ones((1, len(events)))
    values = {name: float(estimator(one)[0]) if len(events) else np.nan for name, estimator in estimators.items()}
    draws: dict[str, list[np.ndarray]] = {name: [] for name in estimators}
    count = len(np.unique(events))
    for weight in weights(events, rounds if count > 1 else 0, seed):
        for name, estimator in estimators.items():
            draws[name].append(estimator(weight))
    return {name: Interval(value, *_bounds(draws[name], value, level), len(events), count) for name, value in values.items()}


def _bounds(draws: list[np.ndarray], value: float, level: float) -> tuple[float, float]:
    found = np.concatenate(draws) if draws else np.empty(0)
    defined = found[np.isfinite(found)]
    if not np.isfinite(value) or len(defined) < _DEFINED * max(len(found), 1) or not len(defined):
        return np.nan, np.nan
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired_difference(
    one: Estimator, other: Estimator, events: np.ndarray, *, rounds: int = ROUNDS, seed: int = 0, level: float = LEVEL
) -> Interval:
    """A metric of one prediction minus that of another on the same rows, resampled together.

    Both see the same events in every round, so that what is hard for both cancels: the interval is narrower than that of two
    independent samples, and is the right one for "which is better on these data".

    Args:
        one, other: estimators over the same N rows.
        events: ``N``.
        rounds: resamples.
        seed: of the resampling.
        level: of the interval.
    """

    def difference(weight: np.ndarray) -> np.ndarray:
        return one(weight) - other(weight)

    return intervals({"difference": difference}, events, rounds=rounds, seed=seed, level=level)["difference"]


KEYS = ("trace_set", "trace_chunk", "trace_name", "start_sample", "end_sample", "trace_type", "phase_label", "phase_onset")
"""What makes a row of a prediction file the same question as a row of another."""


def aligned(one: pd.DataFrame, other: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of two prediction files in the same order.

    Raises:
        DataError: they answer different questions.
    """
    keys = [name for name in KEYS if name in one and name in other]
    if len(one) != len(other) or any((name in one) != (name in other) for name in KEYS):
        raise DataError(
            f"predictions cannot be paired: {len(one)} and {len(other)} rows. Evaluate both on the same dataset with the same "
            "target_seed, or give the second the first's targets with targets=…"
        )
    asked = [_questions(table, keys) for table in (one, other)]
    order = [table.sort_values(keys, kind="stable").index for table in asked]
    differ = np.any(asked[0].loc[order[0]].to_numpy() != asked[1].loc[order[1]].to_numpy(), axis=1)
    if differ.any():
        raise DataError(
            f"predictions cannot be paired: {int(differ.sum())} of {len(one)} rows are other windows. Evaluate both on the same "
            "dataset with the same target_seed, or give the second the first's targets with targets=…"
        )
    return one.iloc[order[0]].reset_index(drop=True), other.iloc[order[1]].reset_index(drop=True)


def _questions(table: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """The keys of a table, numbers as float64 and texts as ``str``: an empty text is empty however the file was read."""
    numbers = ("start_sample", "end_sample", "phase_onset")
    columns = {
        name: table[name].astype(np.float64) if name in numbers else table[name].astype(object).fillna("").astype(str)
        for name in keys
    }
    return pd.DataFrame(columns).reset_index(drop=True)
