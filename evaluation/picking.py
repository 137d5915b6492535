"""The evaluation of a picker: targets, predictions, metrics, thresholds, calibration, stability, examples; into a folder."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from evaluation import frames
from evaluation.calibration import calibrate
from evaluation.examples import choose as choose_examples
from evaluation.examples import write_examples
from evaluation.picker import Picker
from evaluation.predict import ClassicalJudge, Judge, PickerJudge, predict, write_predictions
from evaluation.records import Records
from evaluation.scoring import ALL, Bootstrap, Row, Scored, as_table, score_tasks
from evaluation.stability import SHIFTS, stability
from evaluation.target_files import find_traces, read_targets, write_targets
from evaluation.targets import make_targets
from evaluation.thresholds import choose as choose_cuts
from evaluation.thresholds import dev_peaks
from utils.errors import DataError

Advance = Callable[[str, int, int | None], None]
"""Called with what is being done, how many more are done, and of how many in all (None: not known)."""


@dataclass
class Result:
    """What an evaluation found.

    Attributes:
        rows: of ``metrics.csv``.
        thresholds: by name.
        undecided: thresholds that dev does not decide on, with the reason.
        skipped: what was not used, and how often.
    """

    rows: list[Row] = field(default_factory=list)
    thresholds: dict[str, float] = field(default_factory=dict)
    undecided: dict[str, str] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Questions:
    """Targets and the number of each row's trace, by task."""

    tables: dict[str, pd.DataFrame]
    traces: dict[str, np.ndarray]
    skipped: Counter[str]


def ask(records: Records, targets: str | None, seed: int) -> Questions:
    """Targets made of sets, or read from a folder.

    Raises:
        DataError: the files cannot be used, or no split has a row.
    """
    if targets:
        tables, skipped = _usable(read_targets(Path(targets), records), records, Path(targets))
    else:
        tables, skipped = make_targets(records, seed)
    for task, table in tables.items():
        for split in ("dev", "test"):
            if not frames.is_(table, "trace_split", split).any():
                why = ", ".join(f"{count:,} {what}" for what, count in (records.skipped + skipped).items())
                raise DataError(
                    f"{', '.join(records.sets)}: task{task} has no window in split '{split}'. "
                    f"{f'Left out: {why}. ' if why else ''}Evaluate on a set whose dev and test hold labelled arrivals"
                )
    traces = {task: find_traces(table, records, Path(targets or "targets") / f"task{task}.csv") for task, table in tables.items()}
    return Questions(tables, traces, skipped)


def _usable(tables: dict[str, pd.DataFrame], records: Records, folder: Path) -> tuple[dict[str, pd.DataFrame], Counter[str]]:
    """Rows of traces that can be scored, and how many are not; somebody else's targets do not know which these are."""
    kept: dict[str, pd.DataFrame] = {}
    skipped: Counter[str] = Counter()
    for task, table in tables.items():
        usable = records.usable[find_traces(table, records, folder / f"task{task}.csv")]
        kept[task] = frames.rows(table, usable).reset_index(drop=True)
        skipped["target windows of traces that are left out"] += int((~usable).sum())
    return kept, Counter({what: count for what, count in skipped.items() if count})


def evaluate(
    judge: Judge,
    records: Records,
    questions: Questions,
    out: Path,
    *,
    prediction_folder: str,
    how: Bootstrap,
    batch_size: int,
    advance: Advance,
) -> Result:
    """Answer, score, write.

    Args:
        judge: a picker or a classical line.
        records: the traces.
        questions: from :func:`ask`.
        out: the evaluation folder, which exists.
        prediction_folder: ``<experiment>/<version>``.
        how: intervals are made.
        batch_size: windows at a time.
        advance: told how far it is.
    """
    write_targets(questions.tables, out / "targets")
    answers = {}
    for task, table in questions.tables.items():
        step = _named(advance, f"task {task.replace('23', '2 and 3')}", len(table))
        answers[task] = predict(judge, records, table, questions.traces[task], batch_size=batch_size, advance=step)
    write_predictions(answers, out / "pred" / prediction_folder)
    result = Result(skipped=records.skipped + questions.skipped)
    damaged = int(sum((~np.isfinite(table["p_score"])).sum() for table in answers.values()))
    if damaged and isinstance(judge, PickerJudge):
        result.skipped["windows of damaged traces"] = damaged
    result.rows, result.thresholds = score_tasks(answers, how)
    rows, curves = calibrate(answers, how)
    result.rows += rows
    curves.to_csv(out / "calibration.csv", index=False)
    if isinstance(judge, PickerJudge):
        _picked(judge, records, questions, answers, result, out, how, advance)
    write_result(result, out)
    return result


def _picked(
    judge: PickerJudge,
    records: Records,
    questions: Questions,
    answers: dict[str, pd.DataFrame],
    result: Result,
    out: Path,
    how: Bootstrap,
    advance: Advance,
) -> None:
    """What only a model with probabilities has: thresholds of P and S, stability, examples."""
    peaks = dev_peaks(judge.picker, records, advance=_named(advance, "thresholds on dev", None))
    cuts, reached, result.undecided = choose_cuts(peaks)
    for phase, some in peaks.items():
        scored = Scored("picks", "dev", ALL, phase, some.event, "peaks within 0.5 s of labelled arrivals of dev")
        why = result.undecided.get(phase, "")
        result.rows += [
            scored.stated("threshold", cuts.get(phase, np.nan), why),
            scored.stated("f1", reached.get(phase, np.nan), why),
        ]
    result.thresholds |= cuts
    test = {task: frames.is_(table, "trace_split", "test") for task, table in answers.items()}
    seen = {task: frames.rows(answers[task], where).reset_index(drop=True) for task, where in test.items()}
    seen = {task: table.assign(row=questions.traces[task][test[task]]) for task, table in seen.items()}
    step = _named(advance, f"stability, {len(SHIFTS)} shifts", None)
    result.rows += stability(
        judge, records, seen["23"], frames.numbers(seen["23"], "row").astype(np.int64), cuts, how, advance=step
    )
    chosen, kinds = choose_examples(seen["1"], seen["23"], result.thresholds.get("detection"))
    write_examples(judge.picker, records, chosen, kinds, out / "examples.npz")


def _named(advance: Advance, what: str, total: int | None) -> Callable[[int], None]:
    def step(count: int) -> None:
        advance(what, count, total)

    return step


def write_result(result: Result, out: Path) -> None:
    """Write ``metrics.csv``, ``metrics.json`` and ``thresholds.json``; what is undefined is empty (null) with its note."""
    write_rows(result.rows, result.skipped, out)
    thresholds = {**result.thresholds, **({"undefined": result.undecided} if result.undecided else {})}
    (out / "thresholds.json").write_text(json.dumps(thresholds, indent=1) + "\n")


def write_rows(rows: Sequence[Row], skipped: Mapping[str, int], out: Path) -> None:
    """Write ``metrics.csv`` and ``metrics.json``."""
    table = as_table(list(rows))
    table.to_csv(out / "metrics.csv", index=False)
    plain = [{name: None if value != value else value for name, value in row.items()} for row in table.to_dict("records")]
    content = {"metrics": plain, "skipped": dict(skipped)}
    (out / "metrics.json").write_text(json.dumps(content, indent=1) + "\n")


def judge_of(picker: Picker | None, samples: int, rate: float) -> Judge:
    """What answers: a picker, or ``ar_pick`` where there is none."""
    return ClassicalJudge(samples, rate) if picker is None else PickerJudge(picker)
