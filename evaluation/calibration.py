"""Whether probabilities mean what they say: reliability curves and the expected calibration error (Guo et al. 2017).

A window's confidence in P is the highest p_P inside it; it is right where a labelled P lies within 0.5 s of that sample.
Windows of task 2 hold exactly one labelled arrival, noise windows of task 1 none.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from evaluation import frames
from evaluation.bootstrap import Estimator
from evaluation.scoring import Bootstrap, Row, Scored, of_source, residuals_of, sources_of

BINS = 10
TOLERANCE = 0.5
"""Seconds."""
_SAME = 1e-9
"""Seconds: rounding."""


@dataclass(frozen=True)
class Claims:
    """Confidences and whether they were right.

    Attributes:
        confidence: ``N`` in 0 … 1.
        right: ``N`` bool.
        event, source: ``N``.
    """

    confidence: np.ndarray
    right: np.ndarray
    event: np.ndarray
    source: np.ndarray


def claims(task1: pd.DataFrame, task23: pd.DataFrame, phase: str) -> Claims:
    """What a picker claims of a phase in windows where the truth is known."""
    column = phase.lower()
    noise = frames.rows(task1, frames.is_(task1, "trace_type", "noise"))
    labelled = frames.rows(task23, frames.flags(task23, f"{column}_known"))
    own = frames.is_(labelled, "phase_label", phase)
    right = own & (np.abs(residuals_of(labelled, phase)) <= TOLERANCE + _SAME)
    both = pd.concat([labelled, noise])
    score = frames.numbers(both, f"{column}_score")
    told = np.isfinite(score)
    right = np.concatenate([right, np.zeros(len(noise), bool)])
    return Claims(score[told], right[told], np.asarray(both["event"])[told], frames.texts(both, "source")[told])


def bin_of(confidence: np.ndarray) -> np.ndarray:
    """Number of the bin, of equal widths; 1 belongs to the last."""
    return np.minimum((confidence * BINS).astype(np.int64), BINS - 1)


def reliability(confidence: np.ndarray, right: np.ndarray) -> pd.DataFrame:
    """A row a bin that is not empty: ``bin_low, bin_high, confidence`` (its mean), ``frequency`` (share right), ``n``."""
    at = bin_of(confidence)
    n = np.bincount(at, minlength=BINS)
    full = n > 0
    mean, frequency = (np.bincount(at, values, BINS)[full] / n[full] for values in (confidence, right.astype(float)))
    low = np.arange(BINS)[full] / BINS
    return pd.DataFrame({"bin_low": low, "bin_high": low + 1 / BINS, "confidence": mean, "frequency": frequency, "n": n[full]})


def expected_error(confidence: np.ndarray, right: np.ndarray) -> Estimator:
    """Mean over rows of |confidence − frequency| of their bin."""
    member = np.eye(BINS)[bin_of(confidence)]
    gap = member * (confidence - right)[:, None]

    def estimate(weight: np.ndarray) -> np.ndarray:
        total = weight.sum(1)
        return np.where(total > 0, np.abs(weight @ gap).sum(1) / np.where(total > 0, total, 1), np.nan)

    return estimate


def calibrate(tables: dict[str, pd.DataFrame], how: Bootstrap) -> tuple[list[Row], pd.DataFrame]:
    """Calibration on test.

    Args:
        tables: predictions by number of their task.
        how: intervals are made.

    Returns:
        (rows ``ece`` by source and phase; reliability over all sources with column ``phase``).
    """
    one, two = (frames.rows(table, frames.is_(table, "trace_split", "test")) for table in (tables["1"], tables["23"]))
    rows: list[Row] = []
    curves = []
    for phase in ("P", "S"):
        every = claims(one, two, phase)
        curves.append(reliability(every.confidence, every.right).assign(phase=phase))
        for source in sources_of(pd.concat([one, two])):
            some = claims(of_source(one, source), of_source(two, source), phase)
            why = f"undefined: no window with a known {phase} and a score"
            scored = Scored("calibration", "test", source, phase, some.event, "")
            rows += scored.rows({"ece": expected_error(some.confidence, some.right)}, why, how)
    table = pd.concat(curves, ignore_index=True)
    return rows, table.reindex(columns=["phase", "bin_low", "bin_high", "confidence", "frequency", "n"])
