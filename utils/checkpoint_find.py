"""Which file a path means, and whether it is whole."""

import warnings
from collections.abc import Iterable
from pathlib import Path

from utils.checkpoint_files import LAST, PREDECESSOR, refusal, sum_file
from utils.errors import CheckpointError

AVERAGE = "average.ckpt"
"""Name of the mean of a run's checkpoints (:mod:`utils.averaging`): it must be named, a folder never means it."""


def find(path: str | Path) -> Path:
    """The checkpoint file a path means: the file itself, or the newest whole ``*.ckpt`` in or below a folder, averages left out.

    Whole is what its sum file says (:mod:`utils.checkpoint_files`), and what has none. A warning names what a folder's newest
    would have been, why it is refused, and what is used instead.

    Raises:
        CheckpointError: there is none; none is whole; the named file is not, and then the text says which one beside it is.
    """
    place = Path(path).expanduser()
    if place.is_file():
        return _demand_whole(place)
    if place.is_dir():
        return _newest(place)
    raise CheckpointError(
        f"checkpoint {place}: no such file or folder. Checkpoints are in runs/<experiment>/<run_id>/checkpoints/."
    )


def _demand_whole(file: Path) -> Path:
    reason = _refusal(file)
    if reason is None:
        return file
    others = (other for other in _newest_first(file.parent.glob("*.ckpt")) if other != file and _refusal(other) is None)
    other = next(others, None)
    beside = f"{other} beside it is whole: use that one" if other else "No other one beside it is whole"
    raise CheckpointError(
        f"checkpoint {file}: refused, {reason}. {beside}. If you changed the file on purpose, delete {sum_file(file).name}."
    )


def _newest(folder: Path) -> Path:
    refused: list[str] = []
    for file in _newest_first(folder.rglob("*.ckpt")):
        reason = _refusal(file)
        if reason is None:
            if refused:
                warnings.warn(
                    f"checkpoint {'; '.join(refused)}. Used instead: {file}", stacklevel=2
                )  # one place, so that one text is told once
            return file
        refused.append(f"{file}: refused, {reason}")
    if refused:
        raise CheckpointError(f"checkpoint {'; '.join(refused)}. No other one in {folder} is whole.")
    raise CheckpointError(f"checkpoint {folder}: the folder holds no *.ckpt. Give a checkpoint file or a run folder.")


def _refusal(file: Path) -> str | None:
    try:
        return refusal(file)
    except FileNotFoundError:
        return "a run removed it at this moment"
    except OSError as error:
        return f"it cannot be read (errno {error.errno}, {error.strerror})"


def _newest_first(files: Iterable[Path]) -> list[Path]:
    ages = {file: _time(file) for file in files if file.name != AVERAGE}
    return sorted(ages, key=lambda file: (ages[file], file.name), reverse=True)


def _time(file: Path) -> int:
    """When a checkpoint was written, in ns. A predecessor is older than its successor, whatever times a copy gave them."""
    try:
        own, successor = file.stat().st_mtime_ns, file.with_name(LAST)
        return min(own, successor.stat().st_mtime_ns - 1) if file.name == PREDECESSOR and successor.is_file() else own
    except FileNotFoundError:  # a run removed it at this moment
        return 0
