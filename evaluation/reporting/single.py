"""The page of one evaluation: what was evaluated, what was found, what to beware of, and every figure in its section."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.figures import matrices
from evaluation.reporting import picking, tables, words
from evaluation.reporting.folder import Evaluation
from evaluation.reporting.page import Block, Figure, Fold, Page, Section, Words
from evaluation.scoring import Row

UNTRAINED = "untrained"
"""Start of what has no weights to train: the classical line."""
FEWEST_EVENTS = 10
"""A source with fewer test events is in the tables, but is no finding."""
FEW_EVENTS = 30
"""Below so many events a bootstrap interval is too narrow to be believed."""


def page(found: Evaluation) -> Page:
    """The report of an evaluation."""
    stated = dict.fromkeys(row.protocol for row in found.metrics)
    if found.calibration:
        stated["calibration"] = None
    order = [name for name in words.PROTOCOLS if name in stated]
    order += [name for name in stated if name not in order]
    results = _final(found.metrics)
    summary = tables.headline(results, words.HEADLINES, f"The figures that matter most{_with_intervals(results)}.")
    sections = [Section("summary", "Summary", "", [summary])] if summary else []
    sections += [_section(found, name) for name in order]
    sections += _examples(found)
    sections.append(Section("provenance", "Provenance", "Enough to make this report again.", _provenance(found)))
    kind = "Event classification" if found.is_classification else "Phase picking"
    return Page(f"{kind}: {found.name}", facts(found), findings(found), caveats(found), sections)


def facts(found: Evaluation) -> list[tuple[str, str]]:
    """What was evaluated, in names and values."""
    run, results = found.run, _final(found.metrics)
    sources = [source for source in dict.fromkeys(row.source for row in results) if not tables.together(source)]
    events = max((row.events for row in results), default=0)
    return [
        ("model", str(run["experiment_name"])),
        ("run", str(run["run_id"])),
        ("seed", str(run["seed"])),
        ("parameters", f"{run['parameters']:,}" if isinstance(run.get("parameters"), int) else "not stated"),
        ("trained on", "nothing" if run.get("init") == UNTRAINED else listed(trained_on(run))),
        ("labels used", fraction(run.get("training_fraction"))),
        ("start", start(run) or "not stated"),
        ("evaluated on", listed(sources)),
        ("test events", f"{events:,}" if events else "not stated"),
        ("date", str(run.get("date") or "not stated").replace("T", " ").replace("+00:00", " UTC")),
    ]


def findings(found: Evaluation) -> list[str]:
    """What was found, in a sentence a headline figure: over one source its interval, over several the worst and the best."""
    told: list[str] = []
    for protocol, name in words.HEADLINES:
        rows = [row for row in _final(found.metrics) if (row.protocol, row.metric) == (protocol, name)]
        single = [row for row in rows if not tables.together(row.source) and row.events >= FEWEST_EVENTS] or rows
        for phase in sorted({row.phase for row in single}):
            told += _sentence([row for row in single if row.phase == phase and math.isfinite(row.value)])
    return told


def caveats(found: Evaluation) -> list[str]:
    """What a reader must know before believing a number."""
    results, told = _final(found.metrics), []
    made_up = sorted({row.source for row in results if "synthetic" in row.source.lower()})
    if made_up:
        told.append(f"Evaluated on synthetic data ({listed(made_up)}): a simulation, not the Earth. Real records are harder.")
    if any("synthetic" in name.lower() for name in trained_on(found.run)):
        told.append("Trained on synthetic data, in whole or in part.")
    if found.run.get("init") != UNTRAINED:
        told.append(
            f"One training run, seed {found.run['seed']}: runs that differ in nothing but their seed differ too. "
            "Compare several: python -m evaluation.report runs/…"
        )
    events = {row.source: max(other.events for other in results if other.source == row.source) for row in results}
    few = [f"{tables.shown(source)} {number}" for source, number in sorted(events.items()) if number < FEW_EVENTS]
    if few:
        told.append(f"Few test events ({listed(few)}): an interval over fewer than {FEW_EVENTS} events is too narrow.")
    undefined = sum(math.isnan(row.value) for row in results)
    bare = sum(math.isfinite(row.value) and math.isnan(row.low) for row in results)
    skipped = found.run.get("skipped")
    if isinstance(skipped, Mapping) and skipped:
        told.append(f"Left out: {', '.join(f'{count:,} {what}' for what, count in skipped.items())}.")
    if undefined:
        told.append(f"{undefined} of {len(results)} test figures are undefined; each says why in its place.")
    if bare:
        told.append(f"{bare} of {len(results)} test figures come without an interval.")
    return told


def trained_on(run: Mapping[str, Any]) -> list[str]:
    """Names of the training sets; empty where the run does not say."""
    stated = run.get("training_sets") or []
    return [str(name) for name in ([stated] if isinstance(stated, str) else stated)]


def start(run: Mapping[str, Any]) -> str:
    """Where a run's weights come from: ``scratch``, ``pretrained (contrastive/small)``; "" where the run does not say.

    Which experiments these were is in the run's lineage; in files without one it is read off the path of the checkpoint,
    ``runs/<experiment>/<run_id>/…``, and where that is another one, the folder of the checkpoint stands for it.
    """
    init, source = str(run.get("init") or ""), run.get("pretrained_from")
    if run.get("lineage") and init not in ("", "scratch"):
        return f"{init} ({' → '.join(str(name).rpartition('/')[0] for name in run['lineage'])})"
    if not source or init in ("", "scratch"):
        return init
    parts = [part for part in Path(str(source)).parts if part != "checkpoints" and not part.endswith(".ckpt")]
    below = parts[len(parts) - parts[::-1].index("runs") :] if "runs" in parts else []
    return f"{init} ({'/'.join(below[:-1]) or '/'.join(parts[-1:])})"


def fraction(value: Any) -> str:
    """A share of labels in words."""
    if isinstance(value, int | float) and value >= 0:
        return f"{100 * float(value):g} %" if value else "none"
    return "not stated"


def listed(names: Sequence[str]) -> str:
    """``a, b, c``, or that nothing is stated."""
    return ", ".join(names) if names else "not stated"


def _final(metrics: Sequence[Row]) -> list[Row]:
    """Rows that report a result: all but those of dev and train."""
    return [row for row in metrics if row.split not in ("dev", "train")]


def _section(found: Evaluation, name: str) -> Section:
    """A protocol: its table on test, its figures, and what was seen on dev, folded."""
    rows = [row for row in found.metrics if row.protocol == name]
    test, dev = _final(rows), [row for row in rows if row.split in ("dev", "train")]
    title = words.protocol(name)
    blocks: list[Block] = []
    if test:
        blocks += tables.by_source(test, f"{title.title} on test{_with_intervals(test)}.")
    blocks += picking.FIGURES.get(name, _no_figures)(found)
    if name == "classification" and found.confusion is not None:
        counts, classes = found.confusion.counts, found.confusion.classes
        text = f"Who is taken for whom: {counts.sum():.0f} test windows. Rows add up to 100 %; the diagonal is right."
        blocks.append(Figure(matrices.confusion(counts, classes), text))
    if dev:
        chosen = tables.by_source(dev, f"{title.title} on dev, where thresholds were chosen: too good by construction.")
        blocks += [Fold("What was chosen on dev", chosen)] if test else chosen
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


def _sentence(rows: Sequence[Row]) -> list[str]:
    """One figure on every source: over one its interval, over several the worst and the best."""
    if not rows:
        return []
    first = rows[0]
    metric = words.metric(first.metric)
    what = f"{words.protocol(first.protocol).title}{f', {first.phase}' if first.phase else ''}: {metric.title}"
    if len(rows) == 1:
        reach = words.interval(first.low, first.high, metric.unit)
        told = f"{words.written(first.value, metric.unit)}{f' ({reach})' if reach else ''}"
        return [f"{what} {told} on {tables.shown(first.source)}."]
    ranked = sorted(rows, key=lambda row: row.value, reverse=metric.better < 0)
    worst, best = (f"{words.written(row.value, metric.unit)} on {tables.shown(row.source)}" for row in (ranked[0], ranked[-1]))
    return [f"{what} from {worst} to {best}."]


def _with_intervals(rows: Sequence[Row]) -> str:
    return ", with 95 % bootstrap intervals over events" if any(math.isfinite(row.low) for row in rows) else ""
