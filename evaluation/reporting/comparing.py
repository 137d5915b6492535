"""The page of a comparison: what is better than what, by how much, how surely, and with how many labels."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from evaluation.figures import comparison as plots
from evaluation.figures import matrices
from evaluation.figures.panels import Curve, Curves, Dot, Dots, Matrix
from evaluation.reporting import words
from evaluation.reporting.comparison import Comparison, Key, Mean, Model, headlines
from evaluation.reporting.folder import Evaluation
from evaluation.reporting.page import Block, Cell, Figure, Page, Section, Table, Words
from evaluation.reporting.pairs import Difference
from evaluation.reporting.single import UNTRAINED, fraction
from evaluation.reporting.tables import shown, together
from evaluation.reporting.words import Unit

MOST_PANELS = 9


def page(compared: Comparison, reference: Model, found: Sequence[Difference], apart: Sequence[str]) -> Page:
    """The report of a comparison.

    Args:
        compared: the evaluations.
        reference: the model the others are measured against.
        found: paired differences.
        apart: sentences on models that could not be paired.
    """
    names = compared.names()
    sections = [
        Section("models", "Models", "A model is what its runs share; its runs differ in their seed.", [_models(compared)]),
        Section("results", "Results", "", [_overview(compared), *_results(compared)]),
        *_pairs(names, reference, found, apart),
        *_labels(compared),
        *_across(compared),
    ]
    evaluations, runs = (sum(map(len, each)) for each in (compared.runs.values(), map(_seeds, compared.runs.values())))
    counts = [("models", len(compared.runs)), ("runs", runs), ("evaluations", evaluations)]
    facts = [*((name, f"{count}") for name, count in counts), ("reference", names[reference])]
    title = f"Comparison of {len(compared.runs)} model{'s' if len(compared.runs) > 1 else ''}"
    return Page(title, facts, _findings(names, reference, found), _caveats(compared), sections)


def dots(compared: Comparison) -> list[Dots]:
    """A panel a headline figure, over all models and sources."""
    names, panels = compared.names(), []
    for protocol, phase, metric in _asked(compared)[:MOST_PANELS]:
        own = [
            Dot(names[model], shown(key[1]), mean.values if not mean.undefined else (), mean.low, mean.high)
            for model in compared.runs
            for key in headlines(compared)
            if (key[0], key[2], key[3]) == (protocol, phase, metric) and (mean := compared.means.get((model, key)))
        ]
        panels.append(Dots(_title((protocol, "", phase, metric)), own, words.metric(metric).unit is Unit.share))
    return panels


def curves(compared: Comparison) -> list[Curves]:
    """Headline figures against the share of labels, for what was trained with two shares or more."""
    families: dict[str, list[Model]] = {}
    for model in compared.runs:
        if model.fraction > 0:
            families.setdefault(_family(model, compared), []).append(model)
    families = {name: sorted(models, key=lambda m: m.fraction) for name, models in families.items() if len(models) > 1}
    panels = []
    for key in _whole(compared) if families else []:
        own = [
            curve for name, models in families.items() if (curve := _curve(name, [compared.means.get((m, key)) for m in models]))
        ]
        if own:
            panels.append(Curves(f"{_title(key)}{f' on {shown(key[1])}'}", own, words.metric(key[3]).unit is Unit.share))
    return panels


def crossings(compared: Comparison) -> list[Matrix]:
    """Trained on × evaluated on, a matrix a headline figure, where models were trained on two sets or more."""
    rows = sorted({model.trained_on for model in compared.runs})
    if len(rows) < 2:
        return []
    panels = []
    for protocol, phase, metric in _asked(compared):
        keys = [
            key for key in headlines(compared) if (key[0], key[2], key[3]) == (protocol, phase, metric) and not together(key[1])
        ]
        for experiment in sorted({(model.experiment, model.init, model.fraction) for model in compared.runs}):
            own = {
                model.trained_on: model for model in compared.runs if (model.experiment, model.init, model.fraction) == experiment
            }
            if len(own) < 2 or not keys:
                continue
            means = [[compared.means.get((own[row], key)) if row in own else None for key in keys] for row in rows]
            values = np.array([[mean.mean if mean else math.nan for mean in line] for line in means])
            told = [[_told(mean, metric) for mean in line] for line in means]
            title = f"{_title((protocol, '', phase, metric))}, {experiment[0]}"
            panels.append(Matrix(title, rows, [key[1] for key in keys], values, told, words.metric(metric).better))
    return panels


def _asked(compared: Comparison) -> list[tuple[str, str, str]]:
    return list(dict.fromkeys((protocol, phase, metric) for protocol, _, phase, metric in headlines(compared)))


def _whole(compared: Comparison) -> list[Key]:
    """Headline figures over all sources together; of every source where there are none of all together."""
    keys = headlines(compared)
    return [key for key in keys if together(key[1])] or keys


def _family(model: Model, compared: Comparison) -> str:
    """A model's name but for its share of labels."""
    parts = [model.experiment, model.init]
    if len({other.trained_on for other in compared.runs}) > 1:
        parts.append(f"on {model.trained_on}")
    return ", ".join(part for part in parts if part)


def _curve(name: str, means: Sequence[Mean | None]) -> Curve | None:
    known = [mean for mean in means if mean is not None and math.isfinite(mean.mean)]
    if len(known) < 2:
        return None
    bounds = np.array([[min(mean.values), max(mean.values)] for mean in known])
    fraction = np.array([mean.model.fraction for mean in known])
    return Curve(name, fraction, np.array([mean.mean for mean in known]), bounds[:, 0], bounds[:, 1])


def _title(key: Key) -> str:
    protocol, _, phase, metric = key
    return f"{words.protocol(protocol).title}: {f'{phase} ' if phase else ''}{words.metric(metric).title}"


def _models(compared: Comparison) -> Table:
    names, body = compared.names(), []
    for model, runs in compared.runs.items():
        sizes = sorted({run.run["parameters"] for run in runs if isinstance(run.run.get("parameters"), int)})
        seeds = _seeds(runs)
        share = fraction(model.fraction)
        size = ", ".join(f"{number:,}" for number in sizes) or "not stated"
        trained_on = "nothing" if model.init == UNTRAINED else model.trained_on or "not stated"
        told = (model.init or "not stated", trained_on, share, size, f"{len(seeds)}", ", ".join(seeds))
        body.append([Cell(names[model], head=True), *(Cell(text) for text in told)])
    return Table("What is compared.", ["model", "start", "trained on", "labels", "parameters", "runs", "seeds"], body)


def _seeds(runs: Sequence[Evaluation]) -> list[str]:
    """The seed of each run: one that was evaluated on several data sets is still one."""
    return [seed for _, seed in dict.fromkeys((str(run.run["run_id"]), str(run.run["seed"])) for run in runs)]


def _overview(compared: Comparison) -> Figure:
    panels = dots(compared)
    told = "Large marks are means; with several runs the small ones are runs and bars their range, with one run bars are its "
    return Figure(
        plots.dots(panels), f"{told}95 % bootstrap interval over events. What is undefined is not drawn; the tables say why."
    )


def _results(compared: Comparison) -> list[Block]:
    """A table a headline figure: models in rows, sources in columns."""
    names, blocks = compared.names(), []
    for protocol, phase, metric in _asked(compared):
        keys = [key for key in headlines(compared) if (key[0], key[2], key[3]) == (protocol, phase, metric)]
        body = [
            [Cell(names[model], head=True), *(_cell(compared.means.get((model, key))) for key in keys)] for model in compared.runs
        ]
        title = _title((protocol, "", phase, metric))
        blocks.append(Table(f"{title}, test.", ["model", *(shown(key[1]) for key in keys)], body))
    note = "Means over runs ± their standard deviation; of a single run its 95 % bootstrap interval over events."
    return [Words([note]), *blocks]


def _pairs(names: Mapping[Model, str], reference: Model, found: Sequence[Difference], apart: Sequence[str]) -> list[Section]:
    if not found and not apart:
        return []
    blocks: list[Block] = [Words(apart, listed=True)] if apart else []
    for key in dict.fromkeys((item.protocol, item.phase, item.metric) for item in found):
        own = [item for item in found if (item.protocol, item.phase, item.metric) == key]
        sources = list(dict.fromkeys(item.source for item in own))
        by = {(item.model, item.source): item for item in own}
        models = list(dict.fromkeys(item.model for item in own))
        body = [[Cell(names[m], head=True), *(_difference(by.get((m, source))) for source in sources)] for m in models]
        title = f"{_title((key[0], '', key[1], key[2]))}: difference to {names[reference]}."
        blocks.append(Table(title, ["model", *(shown(source) for source in sources)], body))
    lead = (
        f"Each model minus {names[reference]} on the same windows, with 95 % intervals over events, both resampled together. "
        "▲ better and ▼ worse: the interval leaves out zero; · not told apart."
    )
    return [Section("pairs", "Paired differences", lead, blocks)]


def _labels(compared: Comparison) -> list[Section]:
    panels = curves(compared)
    if not panels:
        return []
    plot = Figure(
        plots.curves(panels), "Figures of merit against the share of labels trained with; bands are the range over runs."
    )
    return [Section("labels", "How many labels it takes", "Is pretraining worth labels, and how many?", [plot])]


def _across(compared: Comparison) -> list[Section]:
    blocks: list[Block] = []
    for panel in crossings(compared):
        plot: go.Figure = matrices.heat(panel.shade(), panel.told, panel.rows, panel.columns)
        plot.update_xaxes(title={"text": "evaluated on"})
        plot.update_yaxes(title={"text": "trained on"})
        blocks.append(Figure(plot, f"{panel.title}: means over runs, the better the darker.", narrow=True))
    lead = "How well a model does on data that it was not trained on."
    return [Section("across", "Across data sets", lead, blocks)] if blocks else []


def _cell(mean: Mean | None) -> Cell:
    if mean is None:
        return Cell("not asked", muted=True)
    if mean.undefined:
        often = f" in {len(mean.undefined)} of {len(mean.undefined) + len(mean.values)} runs" if mean.values else ""
        return Cell(f"{words.undefined(mean.undefined[0])}{often}", muted=True)
    unit = words.metric(mean.key[3]).unit
    if len(mean.values) > 1:
        return Cell(words.written(mean.mean, unit), f"± {words.written(mean.spread, unit)}")
    return Cell(words.written(mean.mean, unit), words.interval(mean.low, mean.high, unit))


def _told(mean: Mean | None, metric: str) -> str:
    if mean is None:
        return "not run"
    return words.written(mean.mean, words.metric(metric).unit) if math.isfinite(mean.mean) else "undefined"


def _difference(item: Difference | None) -> Cell:
    if item is None:
        return Cell("not asked", muted=True)
    unit, interval = words.metric(item.metric).unit, item.interval
    if not math.isfinite(interval.value):
        return Cell(words.undefined(item.note), muted=True)
    sign = "+" if interval.value > 0 else ""
    return Cell(f"{sign}{words.written(interval.value, unit)} {_mark(item)}", words.interval(interval.low, interval.high, unit))


def _mark(item: Difference) -> str:
    """Whether the interval leaves out zero, and on which side."""
    low, high, better = item.interval.low, item.interval.high, words.metric(item.metric).better
    if not (math.isfinite(low) and math.isfinite(high)) or low <= 0 <= high:
        return "·"
    return "▲" if (low > 0) == (better > 0) else "▼"


def _findings(names: Mapping[Model, str], reference: Model, found: Sequence[Difference]) -> list[str]:
    told = []
    for model in dict.fromkeys(item.model for item in found):
        marks = [_mark(item) for item in found if item.model == model and math.isfinite(item.interval.value)]
        told.append(
            f"{names[model]} against {names[reference]}: better in {marks.count('▲')}, worse in {marks.count('▼')}, "
            f"not told apart in {marks.count('·')} of {len(marks)} paired figures."
        )
    return told


def _caveats(compared: Comparison) -> list[str]:
    names, told = compared.names(), []
    made_up = sorted({source for _, source, _, _ in compared.keys if "synthetic" in source.lower()})
    if made_up:
        told.append(f"Evaluated on synthetic data ({', '.join(made_up)}): a simulation, not the Earth.")
    seeds = {model: set(_seeds(runs)) for model, runs in compared.runs.items() if model.init != UNTRAINED}
    lone = [names[model] for model, own in seeds.items() if len(own) < 3]
    if lone:
        told.append(f"Fewer than three seeds of {'; '.join(lone)}: how much a seed matters is not known.")
    sizes = {model: {key for (other, key) in compared.means if other == model} for model in compared.runs}
    if len({frozenset(keys) for keys in sizes.values()}) > 1:
        told.append("Not every model was evaluated on everything: where one was not, the tables say so.")
    told.append("Many figures are compared: of twenty differences that are none, one interval leaves out zero by chance.")
    return told
