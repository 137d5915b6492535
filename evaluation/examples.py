"""Windows to look at: a few where a picker does as usual, and those where it does worst."""

from pathlib import Path

import numpy as np
import pandas as pd

from dataloaders.normalise import prepare
from evaluation import frames
from evaluation.picker import Picker
from evaluation.predict import context_starts, window_batch
from evaluation.records import Records
from evaluation.scoring import residuals_of

TYPICAL, WORST = 6, 6
"""Windows of each kind."""
FALSE = 2
"""Of the worst, so many at most are noise that looks most like an earthquake."""


def choose(task1: pd.DataFrame, task23: pd.DataFrame, detection: float | None, seed: int = 0) -> tuple[pd.DataFrame, list[str]]:
    """Rows of test predictions to look at, each trace once.

    Typical ones are drawn at random among those with a residual of at most the median of its source; the worst are those with
    the largest residuals, and noise windows above the detection threshold.

    Args:
        task1, task23: predictions on test, with column ``row``, the number of the trace.
        detection: threshold of task 1; None: the noise windows are left out.
        seed: of the draw.

    Returns:
        (rows; ``typical`` or ``worst`` of each).
    """
    late = np.full(len(task23), np.inf)
    for phase in ("P", "S"):
        mine = frames.is_(task23, "phase_label", phase)
        late[mine] = np.nan_to_num(np.abs(residuals_of(frames.rows(task23, mine), phase)), nan=np.inf)
    table = task23.assign(late=late)
    table = table.assign(usual=table["late"] <= table.groupby("source")["late"].transform("median"))
    shuffled = table.iloc[np.random.default_rng(seed).permutation(len(table))]
    typical = frames.rows(shuffled, frames.flags(shuffled, "usual")).drop_duplicates("row")
    each = max(1, TYPICAL // max(1, len(set(typical["source"]))))
    typical = typical.groupby("source", sort=True).head(each).head(TYPICAL)
    least = np.inf if detection is None else detection
    noise = frames.rows(task1, frames.is_(task1, "trace_type", "noise") & (frames.numbers(task1, "score_detection") >= least))
    noise = noise.sort_values("score_detection", ascending=False, kind="stable").drop_duplicates("row").head(FALSE)
    seen = np.concatenate([frames.numbers(typical, "row"), frames.numbers(noise, "row")])
    worst = frames.rows(table, ~np.isin(frames.numbers(table, "row"), seen))
    worst = worst.sort_values("late", ascending=False, kind="stable").drop_duplicates("row").head(WORST - len(noise))
    kinds = ["typical"] * len(typical) + ["worst"] * (len(worst) + len(noise))
    return pd.concat([typical, worst, noise], ignore_index=True), kinds


def write_examples(picker: Picker, records: Records, rows: pd.DataFrame, kinds: list[str], path: Path) -> None:
    """Write ``examples.npz``: K windows as the picker sees them, with all their arrivals.

    ``wave`` K C L float32 normalised (C 3, or 1 where the picker reads Z alone), ``probabilities`` K L 3, ``onsets`` K P (samples
    in the window, −1: none), ``phases`` K P (0 P, 1 S, −1 none), ``known`` K 2 (whether P, S of the trace is labelled),
    ``source``, ``trace_name``, ``kind`` K str, ``rate``.

    Args:
        picker: the model.
        records: the traces.
        rows: from :func:`choose`.
        kinds: of each row.
        path: of the file.
    """
    traces = rows["row"].to_numpy(np.int64)
    start, end = (rows[name].to_numpy(np.int64) for name in ("start_sample", "end_sample"))
    samples = max(picker.samples, int((end - start).max(initial=0)))
    first = context_starts(start, end, records.catalogue.length[traces].astype(np.int64), samples)
    raw = window_batch(records, traces, first, samples)
    ready, _ = prepare(raw, picker.module.prepare_cfg)
    onset = np.rint(records.onset[traces]) - first[:, None]
    there = np.isfinite(onset) & (onset >= 0) & (onset < samples)
    np.savez_compressed(
        path,
        wave=ready.wave.transpose(1, 2).numpy(),
        probabilities=picker(raw).float().cpu().numpy(),
        onsets=np.where(there, onset, -1).astype(np.int64),
        phases=np.where(there, records.phase[traces], -1).astype(np.int64),
        known=records.known[traces],
        source=records.source[traces].astype(str),
        trace_name=rows["trace_name"].to_numpy().astype(str),
        kind=np.array(kinds, dtype=str),
        rate=np.float64(records.rate),
    )
