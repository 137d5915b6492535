"""A report people can read: ``python -m evaluation.report runs/…``.

One evaluation (its folder, or a run folder that holds one) becomes ``report.html`` in it: a single file with tables, intervals
and figures to zoom into, which needs no network. Several are compared, by model and over seeds: ``output=`` (a folder) then holds
``report.html``, ``comparison.csv``, ``differences.csv`` and the figures as PNG.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from evaluation.figures import pictures
from evaluation.reporting import comparing, comparison, page, pairs, single
from evaluation.reporting.comparison import Comparison, Model
from evaluation.reporting.folder import find, read
from utils import cli
from utils.console import console
from utils.curves import save
from utils.errors import ConfigError, demand, did_you_mean

REPORT, TABLE, DIFFERENCES = "report.html", "comparison.csv", "differences.csv"


@dataclass(kw_only=True)
class Arguments:
    """Arguments of the command."""

    runs: list[str] = field(default_factory=list)
    """Evaluation folders, or run folders: all evaluations in them."""
    output: str = "runs/comparison"
    """Folder of a comparison; made if it is not there. The report of a single evaluation goes into that evaluation's folder."""
    reference: str = ""
    """Model that the others are measured against, by its name in the report; empty is the first."""

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


def write_comparison(folders: Sequence[Path], output: Path, reference: str = "") -> Path:
    """Compare evaluations.

    Args:
        folders: of evaluations.
        output: where report, tables and figures go; made if it is not there.
        reference: name of the model that the others are measured against; "" is the first.

    Returns:
        Where the report is.

    Raises:
        DataError: a folder is no evaluation, or they cannot be compared.
        ConfigError: no model has the reference's name.
    """
    compared = comparison.compare([read(folder) for folder in folders])
    against = _reference(compared, reference)
    found, apart = pairs.differences(compared, against)
    made = comparing.page(compared, against, found, apart)
    output.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(comparison.table(compared)).to_csv(output / TABLE, index=False)
    pd.DataFrame(_lines(compared.names(), against, found)).to_csv(output / DIFFERENCES, index=False)
    _draw(compared, output / "figures")
    return page.save(made, output / REPORT)


def main(args: Arguments) -> None:
    """Write what was asked for, and say where it is."""
    folders = find(args.runs)
    if len(folders) == 1:
        console().print(f"report: {write(folders[0])}", soft_wrap=True)
        return
    where = write_comparison(folders, Path(args.output), args.reference)
    console().print(f"{len(folders)} evaluations compared: {where}\ntables: {where.parent / TABLE}", soft_wrap=True)


def _reference(compared: Comparison, name: str) -> Model:
    names = compared.names()
    if not name:
        return next(iter(names))
    for model, known in names.items():
        if name == known:
            return model
    known = ", ".join(f"'{other}'" for other in names.values())
    raise ConfigError([f"reference: no model '{name}'.{did_you_mean(name, names.values())} Known: {known}"])


def _lines(names: Mapping[Model, str], reference: Model, found: Sequence[pairs.Difference]) -> list[dict[str, str | float]]:
    return [
        {
            "model": names[item.model], "reference": names[reference], "protocol": item.protocol, "source": item.source,
            "phase": item.phase, "metric": item.metric, "difference": item.interval.value, "low": item.interval.low,
            "high": item.interval.high, "n": item.interval.n, "events": item.interval.events, "note": item.note,
        }
        for item in found
    ]  # fmt: skip


def _draw(compared: Comparison, folder: Path) -> None:
    """The figures as PNG, those for which there is something to draw."""
    if dots := comparing.dots(compared):
        save(pictures.dots(dots), folder / "models.png")
    if curves := comparing.curves(compared):
        save(pictures.curves(curves), folder / "labels.png")
    if crossings := comparing.crossings(compared):
        save(pictures.matrices(crossings), folder / "across.png")


if __name__ == "__main__":
    cli.run(main, Arguments, where="evaluation.report", words="runs")
