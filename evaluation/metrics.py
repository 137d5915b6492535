"""Metrics of pick-benchmark's three tasks (Münchmeyer et al. 2022) as estimators: functions of weights, see ``bootstrap.py``.

All are pure. An undefined one (a single class, no rows) is NaN here and told as such, with its reason, in the tables.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
from sklearn.metrics import precision_recall_curve

from evaluation.bootstrap import Estimator

QUANTILES = 50
"""Thresholds tried for the Matthews correlation."""
BEYOND = (0.1, 0.45, 1.5)
"""Seconds: residuals beyond these are outliers, from strict to the benchmark's own."""
WITHIN = (0.1, 0.5)
"""Seconds: picks this close count as right."""
_SAME = 1e-9
"""Seconds by which a residual may miss a limit through rounding: 10 samples are 0.1 s."""


def auc(score: np.ndarray, truth: np.ndarray) -> Estimator:
    """Area under the receiver operating characteristic; ties count half.

    Args:
        score: ``N``, finite.
        truth: ``N`` bool.
    """
    order = np.argsort(score, kind="stable")
    ordered, positive = score[order], truth[order].astype(np.float64)
    groups = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(ordered) else np.empty(0, np.int64)

    def estimate(weight: np.ndarray) -> np.ndarray:
        if not len(ordered):
            return np.full(len(weight), np.nan)
        sorted_ = weight[:, order]
        up = np.add.reduceat(sorted_ * positive, groups, axis=1)
        down = np.add.reduceat(sorted_ * (1 - positive), groups, axis=1)
        below = np.cumsum(down, axis=1) - down
        return ratio((up * (below + 0.5 * down)).sum(1), up.sum(1) * down.sum(1))

    return estimate


def at_threshold(score: np.ndarray, truth: np.ndarray, threshold: float) -> dict[str, Estimator]:
    """``precision``, ``recall`` and ``f1`` of calling a row true where its score reaches a threshold.

    Args:
        score: ``N``.
        truth: ``N`` bool.
        threshold: chosen on other rows.
    """
    counts = _counts(score, truth, threshold)

    def precision(weight: np.ndarray) -> np.ndarray:
        hit, false, _, _ = counts(weight)
        return ratio(hit, hit + false)

    def recall(weight: np.ndarray) -> np.ndarray:
        hit, _, missed, _ = counts(weight)
        return ratio(hit, hit + missed)

    def f1(weight: np.ndarray) -> np.ndarray:
        hit, false, missed, _ = counts(weight)
        return np.where(hit + missed > 0, ratio(2 * hit, 2 * hit + false + missed), np.nan)

    return {"precision": precision, "recall": recall, "f1": f1}


def mcc(score: np.ndarray, truth: np.ndarray, threshold: float) -> Estimator:
    """Matthews correlation at a threshold (Matthews 1975); undefined where a class or an answer does not occur."""
    counts = _counts(score, truth, threshold)

    def estimate(weight: np.ndarray) -> np.ndarray:
        hit, false, missed, right = counts(weight)
        below = np.sqrt((hit + false) * (hit + missed) * (right + false) * (right + missed))
        return ratio(hit * right - false * missed, below)

    return estimate


def _counts(score: np.ndarray, truth: np.ndarray, threshold: float) -> Callable[[np.ndarray], tuple[np.ndarray, ...]]:
    """Weighted (true positives, false positives, false negatives, true negatives), ``R`` each."""
    said = score >= threshold
    kinds = np.stack([said & truth, said & ~truth, ~said & truth, ~said & ~truth], 1).astype(np.float64)

    def count(weight: np.ndarray) -> tuple[np.ndarray, ...]:
        return tuple((weight @ kinds).T)

    return count


def best_f1(score: np.ndarray, truth: np.ndarray) -> float:
    """The threshold with the highest F1 (the lowest of equally good ones); NaN without both classes."""
    if truth.all() or not truth.any():
        return np.nan
    precision, recall, thresholds = precision_recall_curve(truth, score)
    both = precision[:-1] + recall[:-1]
    f1 = np.where(both > 0, 2 * precision[:-1] * recall[:-1] / np.where(both > 0, both, 1), 0)
    return float(thresholds[f1.argmax()])


def best_mcc(score: np.ndarray, truth: np.ndarray) -> float:
    """The best of 50 quantiles of the scores as a threshold for the Matthews correlation; NaN without both classes."""
    if truth.all() or not truth.any():
        return np.nan
    tried = np.quantile(score, np.linspace(0, 1, QUANTILES))
    one = np.ones((1, len(score)))
    found = np.array([mcc(score, truth, threshold)(one)[0] for threshold in tried])
    return float(tried[np.nanargmax(found)]) if np.isfinite(found).any() else np.nan


def residuals(seconds: np.ndarray) -> dict[str, Estimator]:
    """What is said of pick minus onset: moments over the picks made, shares over all rows.

    A row without a pick (NaN) has no residual: it counts as beyond every limit, and in no moment.

    Args:
        seconds: ``N``.

    Returns:
        ``mean``, ``rmse``, ``mae``, ``median_absolute``, ``beyond_<s>``, ``within_<s>``.
    """
    made = np.isfinite(seconds)
    value = np.where(made, seconds, 0.0)
    found: dict[str, Estimator] = {
        "mean": partial(_mean, value, made),
        "rmse": lambda weight: np.sqrt(_mean(value**2, made, weight)),
        "mae": partial(_mean, np.abs(value), made),
        "median_absolute": partial(_median, np.abs(value), made),
    }
    every = np.ones_like(made)
    distance = np.where(made, np.abs(value), np.inf)
    found |= {f"beyond_{limit:g}": partial(_mean, (distance > limit + _SAME).astype(float), every) for limit in BEYOND}
    return found | {f"within_{limit:g}": partial(_mean, (distance <= limit + _SAME).astype(float), every) for limit in WITHIN}


def _mean(value: np.ndarray, where: np.ndarray, weight: np.ndarray) -> np.ndarray:
    kept = weight[:, where]
    return ratio(kept @ value[where], kept.sum(1))


def _median(value: np.ndarray, where: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Weighted median; that of NumPy for weights of one."""
    order = np.argsort(value[where], kind="stable")
    ordered, total = value[where][order], np.cumsum(weight[:, where][:, order], axis=1)
    if not len(ordered):
        return np.full(len(weight), np.nan)
    half = total[:, -1:] / 2
    low, high = ((total >= half).argmax(1), (total > half).argmax(1))
    return np.where(half[:, 0] > 0, (ordered[low] + ordered[high]) / 2, np.nan)


def ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """A quotient, NaN over 0."""
    return np.where(below > 0, above / np.where(below > 0, below, 1.0), np.nan)
