"""What an evaluation says while it runs and when it is done."""

from typing import Any, final

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from evaluation.picking import Advance
from evaluation.scoring import Row
from utils.console import console


@final
class Bars:
    """Bars by name; used as ``with Bars() as advance``."""

    def __init__(self) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bars = Progress(*columns, console=console())
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> Advance:
        self._bars.start()
        return self._advance

    def __exit__(self, *about: object) -> None:
        for task in self._bars.tasks:
            if task.total is None:  # known now that it is done
                self._bars.update(task.id, total=task.completed)
        self._bars.stop()

    def _advance(self, what: str, count: int, total: int | None) -> None:
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(what, total=total)
        self._bars.advance(self._tasks[what], count)


SHOWN = (("task1", "auc"), ("task1", "f1"), ("task2", "mcc"), ("task3", "within_0.1"), ("task3", "within_0.5"), ("task3", "mae"))
"""Figures of the table on the screen; metrics.csv has all."""


def show(rows: list[Row], title: str) -> None:
    """The figures asked for first, on test; an undefined one says why."""
    table = Table(title=f"{title}: test split, 95 % intervals over events")
    for name, justify in (
        ("source", "left"),
        ("figure", "left"),
        ("value", "right"),
        ("interval", "right"),
        ("windows", "right"),
    ):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for row in rows:
        if row.split == "test" and (row.protocol, row.metric) in SHOWN:
            defined = row.value == row.value
            interval = f"{row.low:.3f} … {row.high:.3f}" if row.low == row.low else ""
            figure = f"{row.protocol} {row.phase} {row.metric}".replace("  ", " ")
            table.add_row(row.source, figure, f"{row.value:.3f}" if defined else row.note, interval, str(row.n))
    console().print(table)
