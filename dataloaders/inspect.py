"""What is in a set: ``python -m dataloaders.inspect STEAD`` or ``python -m dataloaders.inspect path/to/folder plot=traces.png``.

Shows splits, rates, lengths, components, labels, and whether every trace can be read; ends with 1 where the set cannot be used.
"""

import csv
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

from dataloaders.sets.catalogue import Catalogue, open_sets
from dataloaders.sets.names import chunks_of, folder_of
from dataloaders.sets.reader import Reader
from dataloaders.sets.splits import SPLITS
from dataloaders.sources.seisbench import SeisBenchConfig, choose
from utils import cli
from utils.console import console
from utils.errors import DataError, demand

_TRIED = 2000
"""Traces that are read to look for damage; spread evenly over a larger set."""


@dataclass(kw_only=True)
class Arguments:
    """Arguments of the command."""

    names: list[str]
    """SeisBench names, or folders in SeisBench's format."""
    plot: str = ""
    """PNG file into which three example traces are drawn; empty: none."""

    def __post_init__(self) -> None:
        demand(
            (len(self.names) > 0, "names = []: must name at least one set or folder"),
            (not self.plot or len(self.names) == 1, f"plot = {self.plot}: takes one set, not {len(self.names)}"),
        )


def main(args: Arguments) -> None:
    """Show sets, one after the other.

    Raises:
        DataError: a set cannot be used, or traces of it are damaged; the others are shown all the same.
    """
    faults = []
    for name in args.names:
        try:
            faults += show(name, args.plot)
        except DataError as error:
            faults.append(str(error))
    if faults:
        raise DataError("\n".join(faults))


def show(name: str, picture: str) -> list[str]:
    """Print what is in a set, draw it where asked; returns what is wrong with it."""
    screen = console()
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        catalogue = open_sets([name], 0)
        damaged, wrong = try_traces(catalogue)
        refusal = why_refused(catalogue)
    screen.print(summary(catalogue, damaged, arrival_columns(name)))
    for note in notes:
        screen.print(str(note.message), markup=False, soft_wrap=True)
    if picture:
        plot(catalogue, Path(picture))
        screen.print(f"three traces: {picture}", markup=False, soft_wrap=True)
    return [f"{name}: {text}" for text in ([f"{damaged:,} damaged traces"] if damaged else []) + wrong] + refusal


def why_refused(catalogue: Catalogue) -> list[str]:
    """What training with the default settings would say against the set; empty where it would take it."""
    try:
        choose(catalogue.at_100_hz(), SeisBenchConfig(dataset_name=list(catalogue.names)))
    except DataError as error:
        return [str(error)]
    return []


def try_traces(catalogue: Catalogue) -> tuple[int, list[str]]:
    """Read traces spread over the set: (damaged ones, other findings in words)."""
    chosen = np.unique(np.linspace(0, len(catalogue) - 1, _TRIED).astype(np.int64))
    reader = Reader(catalogue, np.inf)
    flat = spoilt = 0
    for batch in np.array_split(chosen, -(-len(chosen) // 64)):
        count = np.minimum(catalogue.length[batch], 4096).astype(np.int64)
        wave, _ = reader.read(batch, np.zeros_like(count), count, int(max(count.max(), 1)))
        spoilt += int((~np.isfinite(wave)).any((1, 2)).sum())
        flat += int((np.ptp(np.nan_to_num(wave), axis=1).max(1) == 0).sum())
    flat -= len(reader.damaged)
    wrong = [f"{flat} of {len(chosen)} traces tried are flat"] if flat else []
    wrong += [f"{spoilt} of {len(chosen)} traces tried hold samples that are not finite"] if spoilt else []
    return len(reader.damaged), wrong


def arrival_columns(name: str) -> dict[str, int]:
    """Arrival columns of the metadata (``trace_*_arrival_sample``), each with its number of filled rows."""
    filled: Counter[str] = Counter()
    for _, metadata, _ in chunks_of(folder_of(name)):
        with metadata.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                for column, value in row.items():
                    if column and column.endswith("_arrival_sample"):
                        filled[column] += value not in ("", "nan", None)
    return dict(filled)


def summary(catalogue: Catalogue, damaged: int, arrivals: dict[str, int]) -> Table:
    """The set as a table of two columns."""
    table = Table("", f"{catalogue.names[0]}: {len(catalogue):,} traces", title_justify="left")
    split = {name: int((catalogue.split == number).sum()) for number, name in enumerate(SPLITS)}
    table.add_row("split", _counted(split | {"none": int((catalogue.split < 0).sum())}))
    table.add_row("events", f"{len(np.unique(catalogue.event)):,}")
    table.add_row("rate, Hz", _counted(Counter("unknown" if np.isnan(rate) else f"{rate:g}" for rate in catalogue.rate.tolist())))
    quantiles = np.percentile(catalogue.length, [0, 50, 100]).astype(int).tolist()
    table.add_row("samples", "shortest {:,}, median {:,}, longest {:,}".format(*quantiles))
    words = [
        "".join(np.array(list("ZNE"))[np.array(row)]) or "none" for row in catalogue.live(np.arange(len(catalogue))).tolist()
    ]
    table.add_row("components", _counted(Counter(words)))
    table.add_row("arrivals", _counted(arrivals) or "no column trace_*_arrival_sample")
    table.add_row("files", f"{len(catalogue.files)}, {len(catalogue.blocks):,} blocks")
    table.add_row("damaged", f"{damaged} of {min(len(catalogue), _TRIED):,} tried")
    return table


def _counted(counts: dict[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {count:,}" for name, count in ordered if count)


def plot(catalogue: Catalogue, path: Path) -> None:
    """Draw the first, the middle and the last trace, each component divided by its peak."""
    from matplotlib.figure import Figure

    chosen = np.array([0, len(catalogue) // 2, len(catalogue) - 1])
    length = catalogue.length[chosen].astype(np.int64)
    wave, _ = Reader(catalogue, np.inf).read(chosen, np.zeros(3, np.int64), length, int(length.max()))
    wave = wave - wave.mean(1, keepdims=True)
    figure = Figure(figsize=(10, 6), layout="constrained")
    for axes, trace, number, count in zip(figure.subplots(3, 1), wave, chosen.tolist(), length.tolist(), strict=True):
        seconds = np.arange(count) / float(catalogue.rate[number])
        for component, name in enumerate("ZNE"):
            shown = trace[:count, component]
            axes.plot(seconds, shown / max(float(np.abs(shown).max()), 1e-30) - 2 * component, linewidth=0.5, label=name)
        axes.set_title(catalogue.trace_name(number), fontsize=8)
        axes.set_yticks([0, -2, -4], list("ZNE"))
    axes.set_xlabel("time (s)")
    try:
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        raise DataError(f"plot = {path}: cannot be written ({error}). Give a file name that ends in .png") from error


if __name__ == "__main__":
    cli.run(main, Arguments, where="dataloaders.inspect", words="names")
