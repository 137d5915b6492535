"""A report people can read: ``python -m evaluation.report runs/…``.

One evaluation (its folder, or a run folder that holds one) becomes ``report.html`` in it: a single file with tables, intervals
and figures to zoom into, which needs no network. Several are compared: see :mod:`evaluation.reporting.comparison`.
"""

from dataclasses import dataclass, field
from pathlib import Path

from evaluation.reporting import page, single
from evaluation.reporting.folder import find, read
from utils import cli
from utils.console import console
from utils.errors import demand

REPORT = "report.html"


@dataclass(kw_only=True)
class Arguments:
    """Arguments of the command."""

    runs: list[str] = field(default_factory=list)
    """Evaluation folders, or run folders: all evaluations in them."""

    def __post_init__(self) -> None:
        """State the ranges."""
        demand((len(self.runs) >= 1, "runs = []: name at least one run folder: python -m evaluation.report runs/…"))


def write(folder: Path) -> Path:
    """Write the report of one evaluation into its folder.

    Args:
        folder: as ``evaluation.run`` leaves it.

    Returns:
        Where the report is.

    Raises:
        DataError: the folder is no evaluation, or a file in it lacks something.
    """
    return page.save(single.page(read(folder)), folder / REPORT)


def main(args: Arguments) -> None:
    """Write the report, and say where it is."""
    for folder in find(args.runs):
        console().print(f"report: {write(folder)}", soft_wrap=True)


if __name__ == "__main__":
    cli.run(main, Arguments, where="evaluation.report", words="runs")
