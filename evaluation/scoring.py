"""From prediction files to the table of metrics: tasks 1 to 3 of pick-benchmark, thresholds from dev, a row a figure.

Every row says on how many windows and events it rests, and why where it is undefined or leaves windows out.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from evaluation import frames, metrics
from evaluation.bootstrap import Estimator, Interval, intervals

ALL = "all"
"""Source of rows over all sources together."""
COLUMNS = ("protocol", "split", "source", "phase", "metric", "value", "low", "high", "n", "events", "note")


@dataclass(frozen=True)
class Row:
    """A figure of ``metrics.csv``; NaN is written as an empty field, and ``note`` says why."""

    protocol: str
    split: str
    source: str
    phase: str
    metric: str
    value: float
    low: float
    high: float
    n: int
    events: int
    note: str


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are made: resamples and their seed."""

    rounds: int = 1000
    seed: int = 0


@dataclass(frozen=True)
class Scored:
    """Rows of one source and split that are scored, and why others are not.

    Attributes:
        protocol, split, source, phase: as in :class:`Row`.
        event: ``N``.
        note: what was left out; empty where nothing was.
    """

    protocol: str
    split: str
    source: str
    phase: str
    event: np.ndarray
    note: str

    def rows(self, estimators: Mapping[str, Estimator], why: str, how: Bootstrap) -> list[Row]:
        """A row a metric.

        Args:
            estimators: by name.
            why: said where a metric is undefined.
            how: intervals are made.
        """
        found = intervals(estimators, self.event, rounds=how.rounds, seed=how.seed)
        bare = "" if how.rounds else "no interval: no resamples asked for"
        return [self.row(name, interval, why, bare) for name, interval in found.items()]

    def row(self, name: str, interval: Interval, why: str, bare: str = "") -> Row:
        """A row of a figure that is already computed; ``bare`` says why it has no interval."""
        notes = [self.note] if self.note else []
        if not np.isfinite(interval.value):
            notes.insert(0, why or "undefined on these rows")
        elif not np.isfinite(interval.low):
            few = "one event: no interval" if interval.events < 2 else "no interval: undefined in most resamples"
            notes.append(bare or few)
        named = self.protocol, self.split, self.source, self.phase, name
        return Row(*named, interval.value, interval.low, interval.high, interval.n, interval.events, "; ".join(notes))

    def stated(self, name: str, value: float, why: str) -> Row:
        """A row of a number that has no interval, such as a threshold."""
        count = len(np.unique(self.event))
        note = self.note if np.isfinite(value) else why
        return Row(self.protocol, self.split, self.source, self.phase, name, value, np.nan, np.nan, len(self.event), count, note)


def sources_of(table: pd.DataFrame) -> list[str]:
    """Sources in a prediction table, and ``all`` first where there are several."""
    names = sorted(str(name) for name in table["source"].unique())
    return [ALL, *names] if len(names) > 1 else names


def of_source(table: pd.DataFrame, source: str) -> pd.DataFrame:
    """Its rows of a source."""
    return table if source == ALL else frames.rows(table, frames.is_(table, "source", source))


def classed(truth: np.ndarray, yes: str, no: str) -> str:
    """Why a two-class metric is undefined: empty where both classes occur."""
    if not len(truth):
        return "undefined: no rows"
    if truth.all() or not truth.any():
        return f"undefined: one class, no {no if truth.all() else yes} rows"
    return ""


@dataclass(frozen=True)
class TwoClass:
    """Task 1 or 2: a score that should be high for one class.

    Attributes:
        protocol: name in the table.
        score: its column.
        label, yes, no: column of the truth, the class with high scores, the other.
        mcc: Matthews correlation too.
        both_known: leave rows out where P or S is unlabelled.
    """

    protocol: str
    score: str
    label: str
    yes: str
    no: str
    mcc: bool
    both_known: bool

    def kept(self, table: pd.DataFrame) -> tuple[pd.DataFrame, str]:
        """(rows that can be scored, what was left out)."""
        notes = []
        if self.both_known:
            known = frames.flags(table, "p_known") & frames.flags(table, "s_known")
            if not known.all():
                notes.append(f"{int((~known).sum())} rows with an unlabelled phase not scored")
            table = frames.rows(table, known)
        answered = np.isfinite(frames.numbers(table, self.score))
        if not answered.all():
            notes.append(f"{int((~answered).sum())} rows without a score")
        return frames.rows(table, answered), "; ".join(notes)

    def thresholds(self, dev: pd.DataFrame) -> tuple[float, float, str]:
        """(threshold of the best F1, of the best MCC, why undefined), on dev and all its sources."""
        table, _ = self.kept(dev)
        truth, score = frames.is_(table, self.label, self.yes), frames.numbers(table, self.score)
        why = classed(truth, self.yes, self.no)
        return metrics.best_f1(score, truth), metrics.best_mcc(score, truth) if self.mcc else np.nan, why

    def score_table(self, table: pd.DataFrame, split: str, cuts: tuple[float, float, str], how: Bootstrap) -> list[Row]:
        """All rows of a split, by source.

        Args:
            table: predictions of the split.
            split: its name.
            cuts: from :meth:`thresholds`.
            how: intervals are made.
        """
        rows: list[Row] = []
        for source in sources_of(table):
            kept, note = self.kept(of_source(table, source))
            truth, score = frames.is_(kept, self.label, self.yes), frames.numbers(kept, self.score)
            scored = Scored(self.protocol, split, source, "", np.asarray(kept["event"]), note)
            why = classed(truth, self.yes, self.no)
            if not len(kept) and note:
                why = "undefined: no row can be scored"
            rows += scored.rows({"auc": metrics.auc(score, truth)}, why, how)
            f1, mcc, on_dev = cuts
            missing = why or (f"undefined: no threshold, dev has {on_dev.removeprefix('undefined: ')}" if on_dev else "")
            found = metrics.at_threshold(score, truth, f1)
            if self.mcc:
                found["mcc"] = metrics.mcc(score, truth, mcc)
            if on_dev or why:
                found = dict.fromkeys(found, undefined)
            rows += scored.rows(found, missing or "undefined: all answers are the same", how)
        return rows


def undefined(weight: np.ndarray) -> np.ndarray:
    """An estimator that is NaN on any rows."""
    return np.full(len(weight), np.nan)


DETECTION = TwoClass("task1", "score_detection", "trace_type", "earthquake", "noise", mcc=False, both_known=False)
IDENTIFICATION = TwoClass("task2", "score_p_or_s", "phase_label", "P", "S", mcc=True, both_known=True)


def onset_rows(table: pd.DataFrame, split: str, how: Bootstrap) -> list[Row]:
    """Task 3 by source and phase: residuals in seconds, pick minus onset."""
    rows: list[Row] = []
    for source in sources_of(table):
        for phase in ("P", "S"):
            mine = of_source(table, source)
            mine = frames.rows(mine, frames.is_(mine, "phase_label", phase))
            seconds = residuals_of(mine, phase)
            made = int(np.isfinite(seconds).sum())
            note = f"{len(seconds) - made} of {len(seconds)} without a pick: in the shares only" if made < len(seconds) else ""
            scored = Scored("task3", split, source, phase, np.asarray(mine["event"]), note)
            why = f"undefined: no {phase} onsets" if not len(seconds) else "undefined: no picks"
            rows += scored.rows(metrics.residuals(seconds), why, how)
    return rows


def residuals_of(table: pd.DataFrame, phase: str) -> np.ndarray:
    """``(pred − onset) / rate`` in seconds of the rows of a phase; NaN without a pick."""
    picked = frames.numbers(table, f"{phase.lower()}_sample_pred")
    return (picked - frames.numbers(table, "phase_onset")) / frames.numbers(table, "sampling_rate")


def score_tasks(tables: Mapping[str, pd.DataFrame], how: Bootstrap) -> tuple[list[Row], dict[str, float]]:
    """Tasks 1 to 3 on dev and test.

    Args:
        tables: predictions of both splits by number of their task, ``"1"`` and ``"23"``.
        how: intervals are made.

    Returns:
        (rows; thresholds by name, those that are defined: ``detection``, ``p_or_s``, ``p_or_s_mcc``).
    """
    rows: list[Row] = []
    chosen: dict[str, float] = {}
    for number, task, name in (("1", DETECTION, "detection"), ("23", IDENTIFICATION, "p_or_s")):
        of = _by_split(tables[number])
        cuts = task.thresholds(of["dev"])
        dev, note = task.kept(of["dev"])
        where = Scored(task.protocol, "dev", ALL, "", np.asarray(dev["event"]), note)
        rows.append(where.stated("threshold", cuts[0], cuts[2]))
        if task.mcc:
            rows.append(where.stated("threshold_mcc", cuts[1], cuts[2]))
        chosen |= {key: cut for key, cut in ((name, cuts[0]), (f"{name}_mcc", cuts[1])) if np.isfinite(cut)}
        for split, table in of.items():
            rows += task.score_table(table, split, cuts, how)
    for split, table in _by_split(tables["23"]).items():
        rows += onset_rows(table, split, how)
    return rows, chosen


def _by_split(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    return {split: frames.rows(table, frames.is_(table, "trace_split", split)) for split in ("dev", "test")}


def as_table(rows: list[Row]) -> pd.DataFrame:
    """Rows as a table with :data:`COLUMNS`."""
    return pd.DataFrame([asdict(row) for row in rows], columns=list(COLUMNS))
