"""Download SeisBench sets into SeisBench's own cache: ``python -m dataloaders.download ETHZ STEAD`` (or ``names=[ETHZ,STEAD]``).

SeisBench does the work; this command checks the names first, says where the set goes and how large it is, and turns a missing
network, a full disk or a half-finished download into one screen and an exit code of 1.
"""

import importlib
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path

from dataloaders.sets.names import SIZES, cache_root, chunks_of, folder_of
from utils import cli
from utils.console import console
from utils.errors import DataError, demand, did_you_mean


@dataclass(kw_only=True)
class Arguments:
    """Arguments of the command."""

    names: list[str]
    """SeisBench names, in any case."""

    def __post_init__(self) -> None:
        demand((len(self.names) > 0, f"names = []: must name at least one of {', '.join(SIZES)}"))


def main(args: Arguments) -> None:
    """Download every set named, in the order given; nothing is begun where one of the names is wrong.

    Raises:
        DataError: an unknown name, or a set that could not be downloaded.
    """
    screen = console()
    for name in [known(name) for name in args.names]:
        into = f"{name}: {SIZES[name] or 'size not known'}, into {cache_root() / 'datasets' / name.lower()}"
        screen.print(into, markup=False, soft_wrap=True)
        download(name)
        screen.print(f"{name}: complete. Use it with dataset.dataset_name=[{name}]", markup=False, soft_wrap=True)


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
    cli.run(main, Arguments, where="dataloaders.download", words="names")
