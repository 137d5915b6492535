"""Where the weights of a run's parts come from, and whether they move: told at the start, kept in the run folder."""

import csv
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import pytorch_lightning as pl
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from utils.console import count

STARTS = "starts.csv"


@dataclass(frozen=True)
class PartStart:
    """One part.

    Attributes:
        part: encoder, backbone, decoder or task.
        name: as typed: ``linear``.
        parameters: how many numbers.
        origin: where its weights come from, in words: ``checkpoint``, ``new``, ``new; the checkpoint has task 'contrastive'``.
        source: that checkpoint and its step; empty where the weights are not from one.
        frozen: it does not move, or not before ``thaw_epoch``.
        thaw_epoch: epoch, counted from 0, at whose start it begins to move; None: never, where ``frozen``.
        lr_factors: lowest and highest factor of the learning rate.
    """

    part: str
    name: str
    parameters: int
    origin: str
    source: str
    frozen: bool
    thaw_epoch: int | None
    lr_factors: tuple[float, float]

    @property
    def moves(self) -> str:
        """Whether it trains, in words."""
        if not self.frozen:
            return "trains"
        return "frozen" if self.thaw_epoch is None else f"frozen until epoch {self.thaw_epoch}"

    @property
    def rate(self) -> str:
        """Factor of the learning rate, in words; empty where it never moves."""
        if self.frozen and self.thaw_epoch is None:
            return ""
        low, high = (f"{factor:.3g}" for factor in self.lr_factors)
        return low if low == high else f"{low} … {high}"


def table(starts: Sequence[PartStart]) -> RenderableType:
    """As shown in a run's greeting: columns that say the same of a plain run are left out."""
    plain = all(not start.frozen and start.rate == "1" for start in starts)
    grid = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for name in ("part", "name", "parameters", "weights", *(() if plain else ("moves", "lr ×"))):
        grid.add_column(name, justify="right" if name == "parameters" else "left", no_wrap=name != "weights")
    for start in starts:
        more = () if plain else (start.moves, start.rate)
        grid.add_row(start.part, start.name, count(start.parameters), start.origin, *more)
    lines = [f"{count(sum(start.parameters for start in starts))} parameters"]
    lines += [f"checkpoint: {source}" for source in dict.fromkeys(start.source for start in starts) if source]
    return Group(Text("\n".join(lines)), grid)


@final
class KeepStarts(pl.Callback):
    """Writes ``starts.csv`` into the run folder when training is about to start.

    Args:
        starts: the parts.
        folder: the run folder.
    """

    def __init__(self, starts: Sequence[PartStart], folder: Path) -> None:
        self.starts = tuple(starts)
        self.path = folder / STARTS

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Rank 0 writes; not a trial run, nor one resumed in its own folder, whose file says more."""
        if not trainer.is_global_zero or trainer.fast_dev_run or self.path.is_file():  # type: ignore[attr-defined]
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("w", newline="") as file:
            names = ["part", "name", "parameters", "origin", "source", "moves", "lr_factor"]
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            for start in self.starts:
                row = dataclasses.asdict(start) | {"moves": start.moves, "lr_factor": start.rate}
                writer.writerow({name: row[name] for name in names})
