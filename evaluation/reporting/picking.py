"""Sections of a picker's report: detection, identification, onsets, calibration, records to look at."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from evaluation.figures import calibration, matrices, residuals, roc, waveforms
from evaluation.reporting.folder import Evaluation
from evaluation.reporting.page import Block, Figure, Words
from evaluation.reporting.tables import shown
from evaluation.scoring import ALL, DETECTION, IDENTIFICATION, TwoClass, of_source, residuals_of, sources_of

NO_PREDICTIONS = "The folder holds no predictions of this, so no curve can be drawn."
MOST_EXAMPLES = 6
"""Windows drawn of each kind: more make the file large, and nobody looks at them."""


def detection(found: Evaluation) -> list[Block]:
    """ROC curves of earthquakes against noise."""
    table = found.predictions.get("test_task1")
    if table is None:
        return [Words([NO_PREDICTIONS])]
    return _roc(DETECTION, table, threshold(found, "task1", "detection"))


def identification(found: Evaluation) -> list[Block]:
    """ROC curves of P against S, and who is taken for whom at the threshold from dev."""
    table = found.predictions.get("test_task23")
    if table is None:
        return [Words([NO_PREDICTIONS])]
    cut = threshold(found, "task2", "p_or_s")
    blocks = _roc(IDENTIFICATION, table, cut)
    kept, _ = IDENTIFICATION.kept(table)
    if cut is None or kept.empty:
        return blocks
    truth, says_p = (kept["phase_label"] == "P").to_numpy(), kept["score_p_or_s"].to_numpy(np.float64) >= cut
    counts = np.array([[((truth == t) & (says_p == a)).sum() for a in (True, False)] for t in (True, False)], dtype=float)
    told = (
        f"Windows of 10 s with a labelled phase; called P where max p_P / max p_S ≥ {cut:.3g} (from dev). Rows add up to 100 %."
    )
    return [*blocks, Figure(matrices.confusion(counts, ("P", "S")), told, _confusion_alt(counts), narrow=True)]


def onsets(found: Evaluation) -> list[Block]:
    """Histograms of residuals, and the share of picks within any tolerance."""
    table = found.predictions.get("test_task23")
    if table is None:
        return [Words([NO_PREDICTIONS])]
    single = _residuals(table)
    if not single:
        return [Words(["No window has a labelled phase: there are no residuals."])]
    pooled = {phase: np.concatenate(list(by_source.values())) for phase, by_source in single.items()}
    told = [_counted(phase, values) for phase, values in pooled.items()]
    text = f"Residuals of all sources in bins of {residuals.BIN} s. {'; '.join(told)}."
    guides = "Share of labelled onsets with a pick within a tolerance. Dotted lines: 0.1 s and 0.5 s."
    return [Figure(residuals.histogram(pooled), text), Figure(residuals.within(single), guides)]


def calibrated(found: Evaluation) -> list[Block]:
    """Reliability curves."""
    if not any(bins.n.any() for bins in found.calibration.values()):
        return [Words(["The folder holds no calibration.csv with claims in it."])]
    errors = [f"{phase} {calibration.error(bins):.3f}" for phase, bins in sorted(found.calibration.items()) if bins.n.any()]
    text = (
        "Reliability, all sources together. Below the diagonal the model is surer than it should be. Larger points rest on more "
        f"windows. Expected calibration error: {', '.join(errors)}."
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
        unlabelled = [phase for phase, known in zip("PS", examples.known[row], strict=True) if not known]
        verdict = "; ".join(waveforms.verdict(truth, picked, chance, rate, unlabelled))
        plot = waveforms.draw(examples.wave[row], chance, truth, picked, rate)
        cuts = ", ".join(f"{phase} {found.thresholds[phase]:.2f}" for phase in ("P", "S") if phase in found.thresholds)
        text = f"{shown(str(examples.source[row]))}, {examples.trace_name[row]}.{f' Thresholds: {cuts}.' if cuts else ''}"
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
    stated = [row.value for row in found.metrics if (row.protocol, row.metric) == (protocol, "threshold")]
    return next((value for value in stated if math.isfinite(value)), None)


def _roc(task: TwoClass, table: pd.DataFrame, cut: float | None) -> list[Block]:
    kept, note = task.kept(table)
    made = []
    for source in sorted(sources_of(kept), key=lambda name: (name == ALL, name)):
        rows = of_source(kept, source)
        score = rows[task.score].to_numpy(np.float64)
        truth = (rows[task.label] == task.yes).to_numpy()
        made.append(roc.curve(roc.Scored(shown(source), truth, score, source == ALL), cut))
    curves = [item for item in made if isinstance(item, roc.Curve)]
    without = [item for item in made if isinstance(item, str)] or ([] if made else ["No window can be scored."])
    blocks: list[Block] = [Words(without, listed=True)] if without else []
    if not curves:
        return blocks
    chosen = f"Rings: the threshold chosen on dev ({cut:.3g})." if cut is not None else "No threshold is stated."
    text = f"ROC curves of {task.yes} against {task.no}, test windows. {chosen}{f' {note[0].upper()}{note[1:]}.' if note else ''}"
    areas = ", ".join(f"{curve.name} {curve.area:.3f}" for curve in curves)
    return [*blocks, Figure(roc.draw(curves, yes=task.yes, no=task.no), text, f"{text} Areas: {areas}.", narrow=True)]


def _residuals(table: pd.DataFrame) -> dict[str, dict[str, NDArray]]:
    """Residuals in seconds by phase and source; NaN where a labelled phase has no pick."""
    single: dict[str, dict[str, NDArray]] = {}
    for phase in ("P", "S"):
        own = (table["phase_label"] == phase).to_numpy()
        late, source = residuals_of(table, phase)[own], table["source"].to_numpy(dtype=str)[own]
        if len(late):
            single[phase] = {shown(name): late[source == name] for name in sorted(set(source))}
    return single


def _counted(phase: str, late: NDArray) -> str:
    """Where the labelled onsets of a phase went that the histogram does not show."""
    (early, after), none = residuals.outside(late), int(np.isnan(late).sum())
    missed = f", {none} without a pick" if none else ""
    return f"{phase}: of {len(late)} labelled onsets {early} are picked more than {residuals.REACH} s early, {after} late{missed}"


def _confusion_alt(counts: NDArray) -> str:
    return (
        f"Of {counts[0].sum():.0f} P, {counts[0, 0]:.0f} are called P and {counts[0, 1]:.0f} S; "
        f"of {counts[1].sum():.0f} S, {counts[1, 1]:.0f} are called S and {counts[1, 0]:.0f} P."
    )
