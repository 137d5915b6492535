"""The results table of a sweep (``python train.py -m …``): a line a run, told at its end and written as CSV.

The sweep's folder, ``runs/sweeps/<run_id>``::

    results.csv      a row a run: its settings, what became of it, its best metric, its folder
    multirun.yaml    the config that the runs share
    jobs/            what each run has said of itself; 3.json is of run 3
    slurm/           scripts and logs of the jobs of a SLURM array
"""

import csv
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, final

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

SWEEPS = Path("runs/sweeps")
RESULTS = "results.csv"
SHARED = "multirun.yaml"
"""Hydra writes it when a sweep starts."""
JOBS = "slurm"
"""Submitit's folder in that of a sweep, as ``configs/hydra/launcher/slurm.yaml`` has it."""
FINISHED, FAILED, RUNNING = "finished", "failed", "running"
"""States that runs give themselves; others are SLURM's words."""


class Best(NamedTuple):
    """Best value of the task's validation metric; what a run returns to Hydra."""

    metric: str
    value: float
    step: int


def best(metrics: Path, monitor: tuple[str, str]) -> Best | None:
    """The best value in a ``metrics.csv``; None where the metric was never finite.

    Args:
        metrics: the file.
        monitor: (metric, ``"min"`` or ``"max"``).
    """
    name, mode = monitor
    from utils.metrics_file import read  # here, as it brings Lightning, for which --help and refusals need not wait

    steps, values = read(metrics).get(name, ([], []))
    if not values:
        return None
    at = (min if mode == "min" else max)(range(len(values)), key=lambda number: values[number])
    return Best(name, values[at], steps[at])


class Row(NamedTuple):
    """A run of a sweep.

    Attributes:
        run: its number.
        settings: the command line's own words for it.
        state: finished, failed, running, or SLURM's word for what ended it.
        best: of its validation metric; None where it was never validated.
        folder: its run folder; "" where it never began.
        why: what went wrong, in a line.
    """

    run: int
    settings: tuple[str, ...]
    state: str
    best: Best | None = None
    folder: str = ""
    why: str = ""


@final
class Note(Callback):
    """Has every run of a sweep write down what becomes of it (Hydra calls this in the process that runs it)."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Where a sweep is started, not in its runs."""
        if "submitit" in config.hydra.launcher._target_:
            from utils.sweep_slurm import watch  # submitit is an extra

            watch()

    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        """It begins, perhaps not for the first time."""
        self._write(config, RUNNING)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        """It has come to its end, or to an error. One that a signal ended stays as it is: it may have another turn."""
        if job_return.status == JobStatus.COMPLETED:
            self._write(config, FINISHED, best=job_return.return_value)
        else:
            self._write(config, FAILED, why=str(job_return._return_value).strip())  # the property would raise it

    def _write(self, config: DictConfig, state: str, **more: Any) -> None:
        first = os.environ.get("SLURM_PROCID", "0") == "0" and os.environ.get("LOCAL_RANK", "0") == "0"
        if config.hydra.mode != RunMode.MULTIRUN or not first:
            return
        number = int(config.hydra.job.num)
        row = Row(number, tuple(config.hydra.overrides.task), state, folder=str(folder_of(config, number)), **more)
        place = SWEEPS / str(config.run_id) / "jobs" / f"{number}.json"
        place.parent.mkdir(parents=True, exist_ok=True)
        beside = place.with_suffix(".new")
        beside.write_text(json.dumps(row))
        beside.replace(place)


def run_id(sweep: str, number: int) -> str:
    """Name of a run of a sweep."""
    return f"{sweep}_{number}"


def folder_of(config: DictConfig, number: int) -> Path:
    """Folder of a run, as :func:`utils.runlog.folder` has it."""
    return Path("runs") / str(config.experiment_name) / run_id(str(config.run_id), number)


def rows_of(sweep: Path) -> dict[int, Row]:
    """What runs have said of themselves, by number."""
    found = {}
    for file in (sweep / "jobs").glob("*.json"):
        number, settings, state, of_best, *rest = json.loads(file.read_text())
        found[number] = Row(number, tuple(settings), state, Best(*of_best) if of_best else None, *rest)
    return found


def tell(name: str) -> None:
    """At the end of a sweep, write and show its table; nothing where there was none.

    Args:
        name: of the sweep, the run_id its runs share.

    Raises:
        SystemExit: 1 where a run has not finished.
    """
    sweep = SWEEPS / name
    if not (sweep / SHARED).is_file():
        return
    if (sweep / JOBS).is_dir():
        from utils.sweep_slurm import told_by_slurm  # submitit is an extra

        rows = told_by_slurm(sweep / JOBS)
    else:
        rows = rows_of(sweep)
    ordered = [rows[number] for number in sorted(rows)]
    _write(sweep / RESULTS, ordered)
    _show(sweep / RESULTS, ordered)
    if any(row.state != FINISHED for row in ordered):
        sys.exit(1)


def own_words(rows: Sequence[Row]) -> list[str]:
    """The settings of each run in which runs differ; all of them where there is one run."""
    shared = set.intersection(*(set(row.settings) for row in rows)) if len(rows) > 1 else set()
    return [" ".join(word.lstrip("+") for word in row.settings if word not in shared) for row in rows]


def _write(path: Path, rows: Sequence[Row]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("run", "settings", "state", "metric", "best", "step", "folder", "why"))
        for row, words in zip(rows, own_words(rows), strict=True):
            writer.writerow((row.run, words, row.state, *(row.best or ("", "", "")), row.folder, row.why))


def _show(path: Path, rows: Sequence[Row]) -> None:
    from rich.table import Table
    from rich.text import Text

    from utils.console import console

    done = sum(row.state == FINISHED for row in rows)
    table = Table(title=f"Sweep: {done} of {len(rows)} runs finished", title_justify="left")
    for column in ("run", "settings", "state", "best", "run folder"):
        table.add_column(column, overflow="fold")
    for row, words in zip(rows, own_words(rows), strict=True):
        of_best = f"{row.best.metric} {row.best.value:.4f} at step {row.best.step}" if row.best else ""
        state = Text(row.state, style="green" if row.state == FINISHED else "bold red")
        table.add_row(str(row.run), Text(words), state, Text(of_best or _line(row.why)), Text(row.folder))
    out = console()
    out.print(table)
    out.print(Text(f"Written to {path}"), soft_wrap=True)


def _line(text: str) -> str:
    """An error's text in a line."""
    words = " ".join(text.split())
    return words if len(words) <= 160 else f"{words[:159]}…"
