"""The page of one evaluation: what was evaluated, what was found, what to beware of, and every figure in its section."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from evaluation.figures import matrices
from evaluation.reporting import picking, tables, words
from evaluation.reporting.folder import Evaluation
from evaluation.reporting.page import Block, Figure, Fold, Page, Section, Words

FEW_EVENTS = 30
"""Below so many events a bootstrap interval is too narrow to be believed."""


def page(found: Evaluation) -> Page:
    """The report of an evaluation."""
    metrics = found.metrics
    order = [name for name in words.PROTOCOLS if (metrics["protocol"] == name).any()]
    order += [name for name in dict.fromkeys(metrics["protocol"]) if name not in order]
    if not found.calibration.empty and "calibration" not in order:
        order.append("calibration")
    summary = tables.headline(_final(metrics), words.HEADLINES, f"The figures that matter most{_with_intervals(metrics)}.")
    sections = [Section("summary", "Summary", "", [summary])] if summary else []
    sections += [_section(found, name) for name in order]
    sections += _examples(found)
    sections.append(Section("provenance", "Provenance", "Enough to make this report again.", _provenance(found)))
    kind = "Event classification" if found.is_classification else "Phase picking"
    return Page(f"{kind}: {found.name}", facts(found), findings(found), caveats(found), sections)


def facts(found: Evaluation) -> list[tuple[str, str]]:
    """What was evaluated, in names and values."""
    run, test = found.run, _final(found.metrics)
    sources = [source for source in dict.fromkeys(test["source"]) if source not in ("", tables.ALL)]
    events = test["events"].max()
    return [
        ("model", str(run["experiment_name"])),
        ("run", str(run["run_id"])),
        ("seed", str(run["seed"])),
        ("parameters", f"{run['parameters']:,}" if isinstance(run.get("parameters"), int) else "not stated"),
        ("trained on", listed(trained_on(run))),
        ("labels used", _fraction(run.get("training_fraction"))),
        ("start", str(run.get("init") or "not stated")),
        ("evaluated on", listed(sources)),
        ("test events", f"{int(events):,}" if np.isfinite(events) else "not stated"),
        ("date", str(run.get("date") or "not stated")),
    ]


def findings(found: Evaluation) -> list[str]:
    """What was found, in a sentence a headline figure: over one source its interval, over several the worst and the best."""
    test, told = _final(found.metrics), []
    for protocol, name in words.HEADLINES:
        rows = test[(test["protocol"] == protocol) & (test["metric"] == name) & ~test["source"].isin(("", tables.ALL))]
        if rows.empty:
            rows = test[(test["protocol"] == protocol) & (test["metric"] == name)]
        for phase in sorted(set(rows["phase"])):
            told += _sentence(protocol, name, phase, rows[(rows["phase"] == phase) & rows["value"].notna()])
    return told[:8]


def caveats(found: Evaluation) -> list[str]:
    """What a reader must know before believing a number."""
    metrics, run = found.metrics, found.run
    test, told = _final(metrics), []
    made_up = sorted({name for name in test["source"] if "synthetic" in name.lower()})
    if made_up:
        told.append(f"Evaluated on synthetic data ({listed(made_up)}): a simulation, not the Earth. Real records are harder.")
    if any("synthetic" in name.lower() for name in trained_on(run)):
        told.append("Trained on synthetic data, in whole or in part.")
    told.append(
        f"One training run, seed {run['seed']}: runs that differ in nothing but their seed differ too. "
        "Compare several: python -m evaluation.report runs/…"
    )
    events = test.groupby("source")["events"].max()
    few = [f"{tables.shown(str(source))} {int(number)}" for source, number in events.items() if number < FEW_EVENTS]
    if few:
        told.append(f"Few test events ({listed(few)}): an interval over fewer than {FEW_EVENTS} events is too narrow.")
    undefined, bare = int(test["value"].isna().sum()), int((test["value"].notna() & test["low"].isna()).sum())
    if undefined:
        told.append(f"{undefined} of {len(test)} test figures are undefined; each says why in its place.")
    if bare:
        told.append(f"{bare} of {len(test)} test figures come without an interval.")
    return told


def trained_on(run: Mapping[str, Any]) -> list[str]:
    """Names of the training sets; empty where the run does not say."""
    stated = run.get("training_sets") or run.get("dataset_name") or run.get("dataset") or []
    return [str(name) for name in ([stated] if isinstance(stated, str) else stated)]


def listed(names: Sequence[str]) -> str:
    """``a, b, c``, or that nothing is stated."""
    return ", ".join(names) if names else "not stated"


def _final(metrics: pd.DataFrame) -> pd.DataFrame:
    """Rows that report a result: all but those of dev and train."""
    return metrics[~metrics["split"].isin(("dev", "train"))]


def _section(found: Evaluation, name: str) -> Section:
    """A protocol: its table on test, its figures, and what was seen on dev, folded."""
    rows = found.metrics[found.metrics["protocol"] == name]
    test, dev = _final(rows), rows[rows["split"].isin(("dev", "train"))]
    title = words.protocol(name)
    blocks: list[Block] = []
    if len(test):
        blocks.append(tables.by_source(test, f"{title.title} on test{_with_intervals(test)}."))
    blocks += picking.FIGURES.get(name, _no_figures)(found)
    if name == "classification" and found.confusion is not None:
        counts = found.confusion.to_numpy()
        text = f"Who is taken for whom: {counts.sum():.0f} test windows. Rows add up to 100 %; the diagonal is right."
        blocks.append(Figure(matrices.confusion(counts, [str(c) for c in found.confusion.columns]), text))
    if len(dev):
        table = tables.by_source(dev, f"{title.title} on dev, where thresholds were chosen: too good by construction.")
        blocks.append(Fold("The same on dev", [table]))
    return Section(name, title.title, title.question, blocks)


def _no_figures(found: Evaluation) -> Sequence[Block]:
    return []


def _examples(found: Evaluation) -> list[Section]:
    """Records to look at."""
    if found.examples is None:
        return []
    how = (
        "Solid lines are labelled onsets, dashed ones picks above the threshold from dev. Drag to zoom, double-click to go back."
    )
    typical, worst = picking.records(found, "typical"), picking.records(found, "worst")
    sections = [Section("records", "Records", how, typical)] if typical else []
    why = "Where the model did worst, and what went wrong. Look for labels that are wrong before you blame the model."
    return [*sections, *([Section("worst", "Worst cases", why, worst)] if worst else [])]


def _provenance(found: Evaluation) -> list[Block]:
    stated = {name: _plain(value) for name, value in found.run.items()}
    blocks: list[Block] = [tables.facts(stated, "What run.json states.", ("name", "value"))]
    if found.thresholds:
        chosen = {name: f"{value:.4g}" for name, value in found.thresholds.items()}
        blocks.append(tables.facts(chosen, "Thresholds, chosen on dev.", ("of", "threshold")))
    if found.predictions:
        kept = {name: f"{len(table):,} rows" for name, table in found.predictions.items()}
        blocks.append(tables.facts(kept, "Predictions that the figures were drawn from.", ("file", "holds")))
    return [*blocks, Words([f"Folder: {found.path.name}"])]


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {stated}" for name, stated in value.items()) or "–"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "–"
    return "–" if value is None or value == "" else str(value)


def _sentence(protocol: str, name: str, phase: str, rows: pd.DataFrame) -> list[str]:
    if rows.empty:
        return []
    metric, what = words.metric(name), f"{words.protocol(protocol).title}{f', {phase}' if phase else ''}"
    if len(rows) == 1:
        row = rows.iloc[0]
        reach = words.interval(row["low"], row["high"], metric.unit)
        where = f" on {tables.shown(row['source'])}"
        return [f"{what}: {metric.title} {words.written(row['value'], metric.unit)}{f' ({reach})' if reach else ''}{where}."]
    ranked = rows.sort_values("value", ascending=metric.better >= 0)
    last, best = ranked.iloc[0], ranked.iloc[-1]
    ends = [f"{words.written(row['value'], metric.unit)} on {tables.shown(row['source'])}" for row in (last, best)]
    return [f"{what}: {metric.title} from {ends[0]} to {ends[1]}."]


def _with_intervals(rows: pd.DataFrame) -> str:
    return ", with 95 % bootstrap intervals over events" if rows["low"].notna().any() else ""


def _fraction(value: Any) -> str:
    return f"{100 * float(value):g} %" if isinstance(value, int | float) else "not stated"
