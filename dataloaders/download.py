"""Download SeisBench sets into SeisBench's own cache: python -m dataloaders.download ETHZ STEAD

SeisBench does the work; this command checks the names first, says where the set goes and how large it is, and turns a missing
network, a full disk or a half-finished download into one screen and an exit code of 1.
"""

import argparse
import importlib
import shutil
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from dataloaders.sets.names import SIZES, cache_root, chunks_of, folder_of
from utils.errors import DataError, WaveError, did_you_mean


def main(arguments: Sequence[str] | None = None) -> int:
    """Download every set named.

    Args:
        arguments: of the command line; None reads them.

    Returns:
        Exit code: 0 where every set is there afterwards, else 1.
    """
    parser = argparse.ArgumentParser(prog="python -m dataloaders.download", description="Download SeisBench sets.")
    parser.add_argument("names", nargs="+", metavar="NAME", help=f"one of: {', '.join(SIZES)}")
    names = parser.parse_args(arguments).names
    say = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        for name in [known(name) for name in names]:
            say.print(f"{name}: {SIZES[name] or 'size not known'}, into {cache_root() / 'datasets' / name.lower()}", markup=False)
            download(name)
            say.print(f"{name}: complete. Use it with dataset.dataset_name=[{name}]", markup=False)
    except WaveError as error:
        say.print(str(error), markup=False)
        return 1
    return 0


def known(name: str) -> str:
    """The name as SeisBench spells it.

    Raises:
        DataError: SeisBench has no such set; suggests the nearest one.
    """
    spelled = {key.lower(): key for key in SIZES}.get(name.lower())
    if spelled is None:
        raise DataError(
            f"'{name}' is no SeisBench set that can be downloaded.{did_you_mean(name, SIZES)} Known: {', '.join(SIZES)}"
        )
    return spelled


def download(name: str) -> None:
    """Let SeisBench fetch one set, unless it is there already.

    Raises:
        DataError: no network, no room, or SeisBench could not finish; says what it said and where the remains are.
    """
    folder = cache_root() / "datasets" / name.lower()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sets = importlib.import_module("seisbench.data")
            getattr(sets, name)()
        chunks_of(folder_of(name))
    except (OSError, ValueError, RuntimeError, NotImplementedError, DataError) as error:
        free = shutil.disk_usage(_existing(folder)).free / 1e9
        raise DataError(
            f"{name} could not be downloaded: {type(error).__name__}: {str(error)[:300]}\n"
            f"Check the network (https://hifis-storage.desy.de) and the room: {free:.0f} GB are free for {folder}\n"
            f"Then run the same command again; if it stops at once, delete that folder first"
        ) from error


def _existing(folder: Path) -> Path:
    while not folder.exists():
        folder = folder.parent
    return folder


if __name__ == "__main__":
    sys.exit(main())
