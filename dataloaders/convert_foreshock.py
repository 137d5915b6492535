"""Convert the published foreshock and aftershock tables: ``python -m dataloaders.convert_foreshock input=folder path=data/nrca``.

The tables are Python pickles (``dataframe_pre_NRCA.csv`` and so on, in spite of their ending), and unpickling a stranger's file
runs its code. They are read as inert records here: a global that data frames do not need is refused by name, nothing is
executed. Training reads only the set that is written: ``dataset=foreshock_aftershock dataset.path=data/nrca``.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

from dataloaders.foreshock import frames
from dataloaders.foreshock.classes import SEQUENCES
from dataloaders.foreshock.records import Gathered, find_files, gather
from dataloaders.foreshock.write import SKIPPED, write_set
from utils import cli
from utils.console import console
from utils.errors import demand


@dataclass(kw_only=True)
class Arguments:
    """Arguments of the command."""

    input: str
    """Folder of the published files."""
    path: str
    """Folder of the set to write; made if it is not there."""
    mainshock: str = "2016-10-30T07:40:17Z"
    """Origin time of the mainshock, UTC; the default is Norcia, M 6.5."""
    network: str = "IV"
    """Code of the station's network."""
    station: str = "NRCA"
    """Code of the station, also in the names of the files."""
    overwrite: bool = False
    """Replace a set that is there already."""

    def __post_init__(self) -> None:
        """State the ranges."""
        demand(
            (bool(self.path), "path = '': must name a folder"),
            (
                not np.isnat(frames.time(self.mainshock)),
                f"mainshock = '{self.mainshock}': must be a time such as 2016-10-30T07:40:17Z",
            ),
        )


def convert(args: Arguments) -> Gathered:
    """Read the tables, write the set, return what was used and what was not.

    Raises:
        DataError: see :func:`dataloaders.foreshock.records.gather` and :func:`dataloaders.foreshock.write.write_set`.
    """
    mainshock = frames.time(args.mainshock)
    gathered = gather(find_files(Path(args.input).expanduser(), args.station), mainshock)
    folder = Path(args.path).expanduser()
    options = {"mainshock": mainshock, "network": args.network, "station": args.station, "overwrite": args.overwrite}
    write_set(folder, gathered, **options)
    return gathered


def main(args: Arguments) -> None:
    """Write the set; say what is in it, what was left out and why, and how to train on it."""
    gathered, screen = convert(args), console()
    table = Table("part", "traces", "events", title=f"{args.station}, mainshock {args.mainshock}")
    for sequence in SEQUENCES:
        events = [record.event for record in gathered.records if record.sequence == sequence]
        table.add_row(sequence, f"{len(events):,}", f"{len(set(events)):,}")
    screen.print(table)
    for reason, count in Counter(reason for *_, reason in gathered.skipped).most_common():
        screen.print(f"left out: {count:,} {reason}", markup=False, soft_wrap=True)
    for reason, count in gathered.kept.items():
        screen.print(f"kept: {count:,} {reason}", markup=False, soft_wrap=True)
    if gathered.skipped:
        screen.print(f"each row left out is listed in {Path(args.path) / SKIPPED}", markup=False, soft_wrap=True)
    screen.print(f"Train on it: python train.py experiment=fore_aftershock/finetune_xlstm_unet dataset.path={args.path} "
                 "model.checkpoint_path=…", markup=False, soft_wrap=True)  # fmt: skip


if __name__ == "__main__":
    cli.run(main, Arguments, where="dataloaders.convert_foreshock")
