"""Whether a pick stays where it is as the beginning of what the model sees moves by a few samples.

A strict measure, of one window by itself. Picks of continuous records are means over overlapping windows that lie on a grid of
absolute time, see :mod:`evaluation.sliding`: but for the ends they do not depend on where a file begins.
"""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from evaluation import frames
from evaluation.predict import Judge, context_starts, may_shift, predict, seen
from evaluation.records import Records
from evaluation.scoring import Bootstrap, Row, Scored, undefined

SHIFTS = (1, 2, 3, 5, 7, 13, 29, 61, 100)
"""Samples by which the beginning moves; odd ones, since networks halve lengths."""
STILL = 10
"""Samples that a pick may move."""
MOST = 200
"""Windows a phase that are tried, spread over the test rows."""


def stability(
    judge: Judge,
    records: Records,
    table: pd.DataFrame,
    traces: np.ndarray,
    thresholds: Mapping[str, float],
    how: Bootstrap,
    *,
    advance: Callable[[int], None] = lambda count: None,
) -> list[Row]:
    """Shares of picks that stay within 10 samples (``stable``), move further (``moved``) or vanish (``lost``).

    A pick is the highest probability of a window's own phase where it reaches the threshold; one is lost where it no longer does.
    ``stable`` and ``moved`` are shares of those that are not lost. The aim is 99 % stable and at most 5 % lost.

    Args:
        judge: what answers.
        records: the traces.
        table: predictions of task 2 and 3 on test, unshifted.
        traces: number of each row's trace.
        thresholds: by phase; a phase without one is not tried.
        how: intervals are made.
        advance: called with the number of windows answered since the last call.
    """
    rows: list[Row] = []
    for phase in ("P", "S"):
        picked = _picks(table, phase, thresholds.get(phase, np.nan)) & frames.is_(table, "phase_label", phase)
        chosen = np.flatnonzero(picked & _roomy(judge, records, table, traces))
        chosen = chosen[np.unique(np.linspace(0, len(chosen) - 1, min(MOST, len(chosen))).astype(np.int64))]
        some, where = table.iloc[chosen].reset_index(drop=True), traces[chosen]
        before = some[f"{phase.lower()}_sample_pred"].to_numpy()
        kept, still = [], []
        for shift in SHIFTS if len(chosen) else ():
            after = predict(judge, records, some, where, shift=shift, advance=advance)
            kept.append(_picks(after, phase, thresholds[phase]))
            still.append(np.abs(after[f"{phase.lower()}_sample_pred"].to_numpy() - before) <= STILL)
        note = f"picks above the threshold, {len(SHIFTS)} shifts of 1 to {SHIFTS[-1]} samples"
        scored = Scored("stability", "test", "all", phase, np.tile(some["event"].to_numpy(), len(kept)), note)
        rows += scored.rows(_shares(kept, still), "undefined: no pick above the threshold has room to shift", how)
    return rows


def _picks(table: pd.DataFrame, phase: str, threshold: float) -> np.ndarray:
    return table[f"{phase.lower()}_score"].to_numpy(np.float64) >= threshold


def _roomy(judge: Judge, records: Records, table: pd.DataFrame, traces: np.ndarray) -> np.ndarray:
    """Rows for which every shift is possible."""
    start, end = (table[name].to_numpy(np.int64) for name in ("start_sample", "end_sample"))
    length = records.catalogue.length[traces].astype(np.int64)
    samples = seen(judge, table)
    return may_shift(context_starts(start, end, length, samples), start, length, samples, SHIFTS[-1])


def _shares(kept: list[np.ndarray], still: list[np.ndarray]) -> dict:
    if not kept:
        return {"stable": undefined, "moved": undefined, "lost": undefined}
    there, same = np.concatenate(kept), np.concatenate(still)

    def share(what: np.ndarray, of: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        def estimate(weight: np.ndarray) -> np.ndarray:
            total = weight @ of.astype(float)
            return np.where(total > 0, weight @ (what & of).astype(float) / np.where(total > 0, total, 1), np.nan)

        return estimate

    return {
        "stable": share(same, there),
        "moved": share(~same, there),
        "lost": share(~there, np.ones_like(there)),
    }
