"""Several evaluations side by side: means over training runs, their spread, and differences on the very same windows.

A *model* is what its runs share: experiment, start, training sets, share of labels. Its runs differ in their seed.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import final

import numpy as np

from evaluation.reporting import words
from evaluation.reporting.folder import Evaluation
from evaluation.reporting.single import start, trained_on
from evaluation.reporting.tables import together
from evaluation.scoring import ALL, Row
from utils.errors import DataError

Key = tuple[str, str, str, str]
"""protocol, source, phase, metric"""


@final
@dataclass(frozen=True, order=True)
class Model:
    """What runs of one model share.

    Attributes:
        experiment: its name.
        init: where its weights started: ``scratch``, ``pretrained``, …; "" where that is not stated.
        trained_on: training sets, joined.
        fraction: share of the labels it was trained with, 0 … 1; −1 where that is not stated.
    """

    experiment: str
    init: str
    trained_on: str
    fraction: float

    @classmethod
    def of(cls, found: Evaluation) -> "Model":
        """The model a run belongs to."""
        run = found.run
        share = run.get("training_fraction")
        fraction = float(share) if isinstance(share, int | float) else -1.0
        return cls(str(run["experiment_name"]), start(run), " + ".join(trained_on(run)), fraction)


@dataclass(frozen=True)
class Mean:
    """A figure of a model.

    Attributes:
        model: of which.
        key: protocol, source, phase, metric.
        values: of its runs, in order of seed; those that are defined.
        low, high: of several runs the least and the most, of one its bootstrap interval; NaN where there is none.
        undefined: reasons of the runs in which it is undefined.
    """

    model: Model
    key: Key
    values: tuple[float, ...]
    low: float
    high: float
    undefined: tuple[str, ...]

    @property
    def mean(self) -> float:
        """Over runs; NaN where it is undefined in any of them: a mean over the runs that went well would flatter."""
        return float(np.mean(self.values)) if self.values and not self.undefined else math.nan

    @property
    def spread(self) -> float:
        """Standard deviation over runs, NaN for one."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 and not self.undefined else math.nan


@dataclass(frozen=True)
class Comparison:
    """Evaluations, grouped.

    Attributes:
        runs: evaluations of each model, in order of seed; models in the order given.
        means: every test figure of every model.
    """

    runs: Mapping[Model, Sequence[Evaluation]]
    means: Mapping[tuple[Model, Key], Mean]

    @property
    def keys(self) -> list[Key]:
        """All figures, each once."""
        return list(dict.fromkeys(key for _, key in self.means))

    def names(self) -> dict[Model, str]:
        """Models by the shortest name that tells them apart."""
        models = list(self.runs)
        return {model: _name(model, models) for model in models}


def compare(found: Sequence[Evaluation]) -> Comparison:
    """Group evaluations by model.

    Raises:
        DataError: pickers and classifiers are mixed, or a run is given twice with the same data.
    """
    classifiers = [item for item in found if item.is_classification]
    if classifiers and len(classifiers) < len(found):
        picker = next(item for item in found if not item.is_classification)
        raise DataError(f"{classifiers[0].path} classifies, {picker.path} picks: compare each kind by itself")
    runs: dict[Model, list[Evaluation]] = {}
    for item in found:
        runs.setdefault(Model.of(item), []).append(item)
    several = len({dataset(item) for item in found}) > 1
    means: dict[tuple[Model, Key], Mean] = {}
    for model, own in runs.items():
        own.sort(key=lambda item: (str(item.run["seed"]), str(item.run["run_id"])))
        means |= {(model, key): _mean(model, key, rows) for key, rows in _figures(own, several).items()}
    return Comparison(runs, means)


def table(compared: Comparison) -> list[dict[str, str | float]]:
    """``comparison.csv``: a line a model and figure; an undefined one has no number and says why."""
    lines: list[dict[str, str | float]] = []
    for (model, (protocol, source, phase, metric)), mean in compared.means.items():
        about = {field.name: getattr(model, field.name) for field in fields(model)}
        about["fraction"] = about["fraction"] if model.fraction >= 0 else ""
        kind = "range over runs" if len(mean.values) > 1 else "bootstrap over events" if math.isfinite(mean.low) else ""
        lines.append({
            **about, "protocol": protocol, "source": source, "phase": phase, "metric": metric,
            "mean": _blank(mean.mean), "spread": _blank(mean.spread), "low": _blank(mean.low), "high": _blank(mean.high),
            "interval": kind, "runs": len(mean.values) + len(mean.undefined), "note": "; ".join(dict.fromkeys(mean.undefined)),
        })  # fmt: skip
    return lines


def headlines(compared: Comparison) -> list[Key]:
    """The figures a reader asks for first, in their order, each source by itself and all together last."""
    order = {pair: place for place, pair in enumerate(words.HEADLINES)}
    chosen = [key for key in compared.keys if (key[0], key[3]) in order]
    return sorted(chosen, key=lambda key: (order[key[0], key[3]], key[2], together(key[1]), key[1]))


def dataset(found: Evaluation) -> str:
    """What was evaluated on: names of the sets without their folders; the evaluation folder's name where it is not stated."""
    stated = found.run.get("dataset") or []
    if isinstance(stated, Mapping):
        stated = str(stated.get("path") or stated.get("_name_") or "")
    names = [stated] if isinstance(stated, str) else [str(name) for name in stated]
    return " + ".join(Path(name).name for name in names if name) or found.path.name


def _figures(runs: Sequence[Evaluation], several: bool) -> dict[Key, list[Row]]:
    """Test figures of one model's runs. A run given twice with the same data would count double: refused.

    Args:
        runs: of one model.
        several: whether there are several data sets: all sources of one are then not those of another.
    """
    figures: dict[Key, list[Row]] = {}
    seen: dict[tuple[str, Key], Evaluation] = {}
    for item in runs:
        for row in item.metrics:
            if row.split in ("dev", "train"):
                continue
            source = f"{ALL} of {dataset(item)}" if several and together(row.source) else row.source
            key = (row.protocol, source, row.phase, row.metric)
            before = seen.setdefault((str(item.run["run_id"]), key), item)
            if before is not item:
                raise DataError(
                    f"{before.path} and {item.path} evaluate the same run on {row.source or 'the same data'}: give one of them"
                )
            figures.setdefault(key, []).append(row)
    return figures


def _mean(model: Model, key: Key, rows: Sequence[Row]) -> Mean:
    values = tuple(row.value for row in rows if math.isfinite(row.value))
    undefined = tuple(row.note for row in rows if not math.isfinite(row.value))
    low, high = (min(values), max(values)) if len(values) > 1 else (rows[0].low, rows[0].high)
    return Mean(model, key, values, low, high, undefined)


def _name(model: Model, among: Sequence[Model]) -> str:
    """The experiment, and what else tells it from others."""
    parts = [model.experiment]
    same = [other for other in among if other.experiment == model.experiment]
    if len({other.init for other in same}) > 1:
        parts.append(model.init or "start not stated")
    if len({other.trained_on for other in same}) > 1:
        parts.append(f"on {model.trained_on or 'data not stated'}")
    if len({other.fraction for other in same}) > 1:
        parts.append(f"{100 * model.fraction:g} % of labels" if model.fraction >= 0 else "labels not stated")
    return ", ".join(parts)


def _blank(value: float) -> float | str:
    return value if math.isfinite(value) else ""
