"""``metrics.csv``: the curves of a run, written as they come, kept when a run is resumed in its folder."""

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from lightning_fabric.utilities.rank_zero import rank_zero_only
from pytorch_lightning.loggers.logger import Logger

FIRST = ("step", "epoch")


@final
class MetricsFile(Logger):
    """One row each time something is logged; columns in the order of their first value, after ``step`` and ``epoch``.

    ``step`` counts finished optimizer steps, as the names of checkpoints do. Lightning's own CSVLogger deletes the file of a
    folder it finds: here a resumed run appends, and rows from its first step on, which an interrupted run wrote after its
    last checkpoint, are replaced.

    Args:
        path: the file; its folder is made.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._columns: list[str] | None = None

    @property
    def name(self) -> str:
        """Name of the run folder."""
        return self.path.parent.name

    @property
    def version(self) -> str:
        """None: there is one file a folder."""
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        """Nothing: the resolved config lies beside the file."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append a row; Lightning counts steps from 0 and calls this once a step is finished.

        Args:
            metrics: values by name.
            step: index of the last finished step.
        """
        row: dict[str, Any] = {"step": 0 if step is None else step + 1}
        row |= {name: f"{float(value):.7g}" for name, value in metrics.items()}
        if self._columns is None:
            self._open(row)
        assert self._columns is not None
        new = [name for name in row if name not in self._columns]
        if new:
            rows = _rows(self.path)
            self._columns = [*FIRST, *(name for name in [*self._columns, *new] if name not in FIRST)]
            self._rewrite(rows)
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self._columns).writerow(row)

    def _open(self, new: Mapping[str, Any]) -> None:
        """Take over a file that exists, up to the step of the first new row.

        Of that step, the training row stays before that of a validation: a run may have been stopped within it.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        first, again = int(new["step"]), {*new} - {*FIRST}
        validates = any(name.startswith("val/") for name in new)
        rows = [
            row
            for row in _rows(self.path)
            if row.get("step", "").isdigit()
            and (int(row["step"]) < first or (validates and int(row["step"]) == first and not again & {n for n in row if row[n]}))
        ]
        self._columns = list(rows[0]) if rows else []
        self._rewrite(rows)

    def _rewrite(self, rows: list[dict[str, str]]) -> None:
        """Replace the file in one move, so that a reader or a crash never sees half of it."""
        assert self._columns is not None
        beside = self.path.with_suffix(".csv.new")
        with beside.open("w", newline="") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(rows)
        beside.replace(self.path)


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [{name: value for name, value in row.items() if name and value is not None} for row in csv.DictReader(file)]


def read(path: Path) -> dict[str, tuple[list[int], list[float]]]:
    """The curves of a ``metrics.csv``: steps and finite values by column; empty where there is no file.

    Args:
        path: the file.
    """
    curves: dict[str, tuple[list[int], list[float]]] = {}
    for row in _rows(path):
        if not row.get("step", "").isdigit():
            continue
        for name, text in row.items():
            value = _number(text)
            if name != "step" and math.isfinite(value):
                steps, values = curves.setdefault(name, ([], []))
                steps.append(int(row["step"]))
                values.append(value)
    return curves


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
