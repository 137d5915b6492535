"""What figures are called and how they are written: one table for every report, so that a number reads the same everywhere."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum


class Unit(str, Enum):
    """How a number is written."""

    share = "share"
    """In percent."""
    score = "score"
    """Three decimals: AUC, MCC, F1."""
    seconds = "seconds"
    """Three decimals and ``s``."""
    number = "number"
    """As few digits as it has."""


@dataclass(frozen=True)
class Metric:
    """A metric in words.

    Attributes:
        title: head of its column.
        unit: how it is written.
        meaning: one sentence for the reader.
        better: 1 where more is better, −1 where less is, 0 where neither.
    """

    title: str
    unit: Unit = Unit.score
    meaning: str = ""
    better: int = 1


@dataclass(frozen=True)
class Protocol:
    """A part of the evaluation in words.

    Attributes:
        title: heading of its section.
        question: what it answers, in a sentence or two.
    """

    title: str
    question: str = ""


PROTOCOLS: Mapping[str, Protocol] = {
    "task1": Protocol("Detection", "Is there an earthquake in a window of 30 s?"),
    "task2": Protocol("Identification", "Is the phase in a window of 10 s a P or an S?"),
    "task3": Protocol("Onset", "When does the phase arrive? Residuals are the time picked minus the time labelled."),
    "picks": Protocol(
        "Picking threshold", "From which probability is a peak a pick? Chosen on dev for the best F1 of picks within 0.5 s."
    ),
    "calibration": Protocol(
        "Calibration",
        "Where a window's highest probability is 0.8, is an arrival within half a second of it in 80 % of the cases?",
    ),
    "stability": Protocol(
        "Stability",
        "Does a pick stay where it is as the window's start moves? Asked of one window by itself: picks of continuous records "
        "come from overlapping windows on a fixed grid of time, and but for its ends do not depend on where a file begins.",
    ),
    "continuous": Protocol(
        "Continuous records", "Picks are matched one to one with those of an analyst, of the same phase and station."
    ),
    "classification": Protocol("Classification", "To which part of the sequence does an event belong?"),
}
"""By the name in ``metrics.csv``; one that is not here is shown under its own name."""

_SHARE, _SECONDS = Unit.share, Unit.seconds
METRICS: Mapping[str, Metric] = {
    "auc": Metric("AUC", meaning="area under the ROC curve; 0.5 is guessing"),
    "f1": Metric("F1", meaning="harmonic mean of precision and recall, at the threshold chosen on dev"),
    "precision": Metric("precision", _SHARE, "share of what was claimed that is true"),
    "recall": Metric("recall", _SHARE, "share of what is there that was found"),
    "mcc": Metric("MCC", meaning="Matthews' correlation of truth and answer; 0 is guessing, 1 is perfect"),
    "threshold": Metric("threshold", Unit.number, "score from which the answer is yes; has the best F1 on dev", 0),
    "threshold_mcc": Metric("threshold for MCC", Unit.number, "has the best MCC on dev", 0),
    "mean": Metric("mean", _SECONDS, "mean residual: below zero is early", 0),
    "rmse": Metric("RMSE", _SECONDS, "root of the mean squared residual; a few gross errors rule it", -1),
    "mae": Metric("MAE", _SECONDS, "mean absolute residual", -1),
    "median_absolute": Metric("median |r|", _SECONDS, "median absolute residual", -1),
    "ece": Metric("ECE", meaning="expected calibration error: mean distance of confidence and frequency", better=-1),
    "accuracy": Metric("accuracy", _SHARE, "share of traces put into their class"),
    "balanced_accuracy": Metric("balanced accuracy", _SHARE, "mean over classes of the share found"),
    "moved": Metric("moved", _SHARE, "share of picks that move by more than 10 samples", -1),
    "lost": Metric("lost", _SHARE, "share of picks that vanish", -1),
    "stable": Metric("stable", _SHARE, "share of picks that move by at most 10 samples"),
    "false_per_station_hour": Metric("false picks / station-hour", Unit.number, "picks without a reference", -1),
}
"""By the name in ``metrics.csv``; one that is not here is shown under its own name."""

HEADLINES = (
    ("task1", "auc"),
    ("task2", "mcc"),
    ("task3", "within_0.1"),
    ("task3", "within_0.5"),
    ("task3", "rmse"),
    ("continuous", "f1_at_0.5"),
    ("continuous", "false_per_station_hour_at_0.5"),
    ("classification", "accuracy"),
)
"""(protocol, metric) of the figures a reader asks for first."""


def protocol(name: str) -> Protocol:
    """A protocol in words."""
    return PROTOCOLS.get(name, Protocol(name.replace("_", " ").capitalize()))


def metric(name: str) -> Metric:
    """A metric in words; shares within and beyond a time are understood from their names (``within_0.1``, ``beyond_1.5_s``).

    So are figures at a tolerance: ``f1_at_0.5``.
    """
    for word, text, better in (("within", "within", 1), ("beyond", "beyond", -1), ("outside", "beyond", -1)):
        if word in name:
            digits = "".join(c if c.isdigit() or c == "." else " " for c in name).split()
            if digits:
                return Metric(f"{text} {digits[0]} s", _SHARE, better=better)
    stem, _, tolerance = name.partition("_at_")
    if tolerance and stem in METRICS:
        return replace(METRICS[stem], title=f"{METRICS[stem].title} at {tolerance} s")
    stem, _, number = name.partition("_checkpoint_")
    if number:
        return Metric(f"{metric(stem).title}, run {number}", metric(stem).unit)
    if name.endswith("_spread"):
        stem = name.removesuffix("_spread")
        return Metric(f"{metric(stem).title}, spread", metric(stem).unit, "standard deviation over runs", -1)
    if name.startswith("accuracy_"):
        return Metric(name.removeprefix("accuracy_").replace("_", " "), _SHARE)
    return METRICS.get(name, Metric(name.replace("_", " "), Unit.number, better=0))


def written(value: float, unit: Unit) -> str:
    """A number as its metric is written. Raises ValueError for one that is not finite: callers say why it is undefined."""
    if not math.isfinite(value):
        raise ValueError(f"{value} cannot be written as a number")
    if unit is Unit.share:
        text = f"{100 * value:.1f} %"
    elif unit is Unit.seconds:
        text = f"{value:.3f} s"
    else:
        text = f"{value:.3f}" if unit is Unit.score else f"{value:.4g}"
    return text.replace("-", "−")


def interval(low: float, high: float, unit: Unit) -> str:
    """``71.2 – 76.0 %``; "" where there is none."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    first, last = written(low, unit), written(high, unit)
    for mark in (" %", " s"):
        if first.endswith(mark):
            return f"{first.removesuffix(mark)} – {last}"
    return f"{first} – {last}"


def undefined(note: str) -> str:
    """What stands where a figure is undefined."""
    return f"undefined: {note.removeprefix('undefined: ') or 'no reason was given'}"
