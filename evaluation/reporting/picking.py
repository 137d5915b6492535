"""Sections of a picker's report: detection, identification, onsets, calibration, records to look at."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from evaluation.figures import calibration, matrices, residuals, roc, waveforms
from evaluation.reporting.folder import Evaluation
from evaluation.reporting.page import Block, Figure, Words
from evaluation.reporting.tables import shown

MOST_EXAMPLES = 6
"""Windows drawn of each kind: more make the file large, and nobody looks at them."""


def detection(found: Evaluation) -> list[Block]:
    """ROC curves of earthquakes against noise."""
    table = found.predictions.get("test_task1")
    if table is None:
        return [Words(["There are no predictions for this in the folder, so no curve can be drawn."])]
    truth = (table["trace_type"] == "earthquake").to_numpy()
    cut = threshold(found, "task1", "detection")
    return _roc(table, truth, table["score_detection"], cut, ("earthquake", "noise"))


def identification(found: Evaluation) -> list[Block]:
    """ROC curves of P against S, and who is taken for whom at the threshold from dev."""
    table = found.predictions.get("test_task23")
    if table is None:
        return [Words(["There are no predictions for this in the folder, so no curve can be drawn."])]
    truth = (table["phase_label"] == "P").to_numpy()
    cut = threshold(found, "task2", "p_or_s")
    blocks = _roc(table, truth, table["score_p_or_s"], cut, ("P", "S"))
    if cut is None:
        return blocks
    known = table["score_p_or_s"].notna().to_numpy()
    says_p = (table["score_p_or_s"] >= cut).to_numpy()
    counts = np.array([[(known & (truth == t) & (says_p == a)).sum() for a in (True, False)] for t in (True, False)], dtype=float)
    told = (
        f"Windows of 10 s with a labelled phase; called P where max p_P / max p_S ≥ {cut:.3g} (from dev). Rows add up to 100 %."
    )
    return [*blocks, Figure(matrices.confusion(counts, ("P", "S")), told, _confusion_alt(counts), narrow=True)]


def onsets(found: Evaluation) -> list[Block]:
    """Histograms of residuals, and the share of picks within any tolerance."""
    table = found.predictions.get("test_task23")
    if table is None:
        return [Words(["There are no predictions for this in the folder, so no residuals can be drawn."])]
    pooled, single = _residuals(table)
    if not pooled:
        return [Words(["No window has a labelled phase and a pick of it: there are no residuals."])]
    told = []
    for phase, values in pooled.items():
        early, late = residuals.outside(values)
        told.append(f"{phase}: {early + late} of {len(values)} beyond ±{residuals.REACH} s, {early} early and {late} late")
    text = f"Residuals of all sources in bins of {residuals.BIN} s. {'; '.join(told)}."
    return [
        Figure(residuals.histogram(pooled), text),
        Figure(residuals.within(single), "Share of picks within a tolerance of the label. Dotted lines: 0.1 s and 0.5 s."),
    ]


def calibrated(found: Evaluation) -> list[Block]:
    """Reliability curves."""
    if found.calibration.empty or not (found.calibration["n"] > 0).any():
        return [Words(["The folder holds no calibration.csv with samples in it."])]
    errors = [f"{phase} {calibration.error(bins):.3f}" for phase, bins in found.calibration.groupby("phase", sort=True)]
    text = (
        "Reliability of the probabilities. Below the diagonal the model is surer than it should be. Larger points rest on more "
        f"samples. Expected calibration error: {', '.join(errors)}."
    )
    return [Figure(calibration.draw(found.calibration), text, narrow=True)]


def records(found: Evaluation, kind: str) -> list[Block]:
    """Windows of one kind (``typical``, ``worst``) with onsets, picks, probabilities and a verdict."""
    examples = found.examples
    if examples is None:
        return []
    rows = np.flatnonzero(examples.kind == kind)
    blocks: list[Block] = []
    for row in rows[:MOST_EXAMPLES]:
        chance, rate = examples.probabilities[row], examples.rate
        truth = waveforms.arrivals(examples.onsets[row], examples.phases[row], rate)
        picked = waveforms.picks(chance, dict(found.thresholds), rate)
        verdict = "; ".join(waveforms.verdict(truth, picked, chance))
        plot = waveforms.draw(examples.wave[row], chance, truth, picked, rate)
        text = f"{shown(str(examples.source[row]))}, {examples.trace_name[row]}."
        blocks.append(Figure(plot, text, f"Seismogram of {text} {verdict}.", title=f"{verdict[0].upper()}{verdict[1:]}"))
    if len(rows) > MOST_EXAMPLES:
        blocks.append(Words([f"{MOST_EXAMPLES} of {len(rows)} {kind} windows are drawn; examples.npz holds all."]))
    return blocks


FIGURES: Mapping[str, Callable[[Evaluation], Sequence[Block]]] = {
    "task1": detection,
    "task2": identification,
    "task3": onsets,
    "calibration": calibrated,
}
"""Figures by protocol."""


def threshold(found: Evaluation, protocol: str, name: str) -> float | None:
    """The threshold a protocol chose on dev: from ``thresholds.json``, else from ``metrics.csv``; None where there is none."""
    if name in found.thresholds:
        return found.thresholds[name]
    rows = found.metrics
    stated = rows[(rows["protocol"] == protocol) & (rows["metric"] == "threshold") & rows["value"].notna()]
    return float(stated["value"].iloc[-1]) if len(stated) else None


def _roc(table: pd.DataFrame, truth: NDArray, score: pd.Series, cut: float | None, sides: tuple[str, str]) -> list[Block]:
    groups = {shown(str(source)): (table["source"] == source).to_numpy() for source in sorted(set(table["source"]))}
    if len(groups) > 1:
        groups["all sources"] = np.ones(len(table), dtype=bool)
    numbers = score.to_numpy(dtype=float)
    made = [roc.curve(roc.Scored(name, truth[rows], numbers[rows]), cut) for name, rows in groups.items()]
    curves = [item for item in made if isinstance(item, roc.Curve)]
    without = [item for item in made if isinstance(item, str)]
    blocks: list[Block] = [Words(without, listed=True)] if without else []
    if not curves:
        return blocks
    yes, no = sides
    chosen = f"Rings: the threshold chosen on dev ({cut:.3g})." if cut is not None else "No threshold is stated."
    lost = int(np.isnan(numbers).sum())
    text = f"ROC curves of {yes} against {no}, test windows. {chosen}{f' {lost} windows have no score.' if lost else ''}"
    areas = ", ".join(f"{curve.name} {curve.area:.3f}" for curve in curves)
    return [*blocks, Figure(roc.draw(curves, yes=yes, no=no), text, f"{text} Areas: {areas}.", narrow=True)]


def _residuals(table: pd.DataFrame) -> tuple[dict[str, NDArray], dict[str, dict[str, NDArray]]]:
    """Residuals in seconds by phase, and by phase and source."""
    pooled: dict[str, NDArray] = {}
    single: dict[str, dict[str, NDArray]] = {}
    for phase, column in (("P", "p_sample_pred"), ("S", "s_sample_pred")):
        rows = table[table["phase_label"] == phase]
        late = ((rows[column] - rows["phase_onset"]) / rows["sampling_rate"]).astype(float)
        known = late.notna()
        if known.any():
            pooled[phase] = late[known].to_numpy()
            groups = late[known].groupby(rows.loc[known, "source"])
            single[phase] = {shown(str(source)): values.to_numpy() for source, values in groups}
    return pooled, single


def _confusion_alt(counts: NDArray) -> str:
    return (
        f"Of {counts[0].sum():.0f} P, {counts[0, 0]:.0f} are called P and {counts[0, 1]:.0f} S; "
        f"of {counts[1].sum():.0f} S, {counts[1, 1]:.0f} are called S and {counts[1, 0]:.0f} P."
    )
