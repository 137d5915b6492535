"""Checkpoint files that survive: a kill, a power cut or a full disk at any moment leaves only whole ones.

Beside ``last.ckpt`` lies ``last.ckpt.sha256``, as ``sha256sum`` writes and checks it. A file is whole if its sum is one of those
that its sum file names. This is how a file is renewed:

1. the new content goes to ``.last.ckpt.tmp``, beside the target: a rename is atomic within one file system only, so TMPDIR
   plays no part;
2. the sum file names the new content and the present one;
3. the temporary takes the target's name;
4. the sum file names the new content alone.

Each step is on the disk (fsync of file and folder) before the next begins. Whatever kills the process, the target is the old
file or the new one, each whole, and its sum file names it: both between 2 and 4, one of them before and after.

Where a predecessor is kept, the present file gets a second name after 1, a hard link, which takes the predecessor's name after
4, by the same steps. So there are two whole files at every moment, and they differ.
"""

import contextlib
import errno
import hashlib
import os
import re
import shutil
from pathlib import Path

from utils.errors import CheckpointError

LAST = "last.ckpt"
PREDECESSOR = "last-1.ckpt"
"""What :data:`LAST` was before it was renewed."""
SUFFIX = ".sha256"
"""Of a sum file."""
MARGIN = 2**20
"""Bytes that must be free besides those of a new file: for sum files, and for the blocks and folders of the file system."""
_SUM = re.compile(r"^[0-9a-f]{64}(?= )", re.MULTILINE)
_LOOKED_AT = 2**12
"""A sum file has a few lines; of anything longer only this many characters are looked at."""


def sum_file(file: Path) -> Path:
    """The sum file of a file."""
    return file.with_name(file.name + SUFFIX)


def digest(file: Path) -> str:
    """SHA-256 of a file's content, as 64 hexadecimal digits."""
    state = hashlib.sha256()
    with file.open("rb") as source:
        while chunk := source.read(2**22):
            state.update(chunk)
    return state.hexdigest()


def sums(file: Path) -> tuple[str, ...] | None:
    """What the sum file of a file names, one or two sums; none of a damaged one; None where there is no sum file."""
    try:
        with sum_file(file).open(encoding="ascii", errors="replace") as source:
            return tuple(_SUM.findall(source.read(_LOOKED_AT)))
    except FileNotFoundError:
        return None


def refusal(file: Path) -> str | None:
    """Why a file is not whole; None where it is, and where it has no sum file to tell.

    Sums are read before and after: a run may renew the file meanwhile.

    Raises:
        OSError: the file cannot be read.
    """
    named = sums(file)
    if named is None:
        return None
    found = digest(file)
    if found in named or found in (sums(file) or ()):
        return None
    if not named:
        return f"its sum file {sum_file(file).name} is damaged"
    return f"its SHA-256 is {found[:12]}…, not {' or '.join(f'{name[:12]}…' for name in named)} as {sum_file(file).name} says"


def write(target: Path, content: bytes | memoryview, predecessor: Path | None = None) -> None:
    """Write or renew a file, as the top of this file says.

    Args:
        target: the file; its folder is made where it is missing.
        content: all of it.
        predecessor: a name beside the target under which its present content is kept, if that is whole; None keeps nothing.

    Raises:
        CheckpointError: the disk is full, or cannot be written; names the errno. What was there is as it was.
    """
    try:
        _renew(target, content, predecessor)
    except OSError as error:
        raise CheckpointError(_told(target, len(content), error)) from error


def remove(file: Path) -> None:
    """Remove a file, then its sum file; a kill between the two leaves one for :func:`sweep`. Neither need be there."""
    file.unlink(missing_ok=True)
    sum_file(file).unlink(missing_ok=True)


def sweep(folder: Path) -> int:
    """Remove what a killed process left in a folder of checkpoints: temporaries, and sum files without a file.

    Returns:
        how many files.
    """
    alone = [file for file in folder.glob(f"*{SUFFIX}") if not file.with_suffix("").exists()]
    stale = [*folder.glob(".*.tmp"), *alone]
    for file in stale:
        file.unlink(missing_ok=True)
    return len(stale)


def _renew(target: Path, content: bytes | memoryview, predecessor: Path | None) -> None:
    """Steps 1 to 4; after an error, or Ctrl-C, no temporary is left."""
    fresh = _temporary(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _demand_space(target.parent, len(content))
        present = _sum_if_whole(target) if predecessor else None
        _spill(fresh, content)
        second = _second_name(target, predecessor) if predecessor and present else None
        _place(fresh, target, hashlib.sha256(content).hexdigest())
        if predecessor and present and second:
            _place(second, predecessor, present)
    finally:
        for file in (target, sum_file(target), predecessor or target, sum_file(predecessor or target)):
            with contextlib.suppress(OSError):  # it is not to hide what happened above; the next start sweeps
                _temporary(file).unlink(missing_ok=True)


def _temporary(target: Path) -> Path:
    """Its name ends otherwise than a checkpoint's: no search for checkpoints finds it."""
    return target.with_name(f".{target.name}.tmp")


def _demand_space(folder: Path, size: int) -> None:
    if shutil.disk_usage(folder).free < size + MARGIN:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _told(target: Path, size: int, error: OSError) -> str:
    said = f"checkpoint {target}: not written: errno {error.errno}, {error.strerror}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        free = shutil.disk_usage(next(folder for folder in target.absolute().parents if folder.is_dir())).free
        said += f" (it takes {size / 1e6:,.1f} MB and {MARGIN / 1e6:.0f} MB to spare, {free / 1e6:,.1f} MB are free)"
    return f"{said}. The checkpoints written before are as they were: make room, and resume from their folder {target.parent}."


def _spill(file: Path, content: bytes | memoryview) -> None:
    """Write a new file through to the disk. One of this name is unlinked first: it may be a second name of another file."""
    file.unlink(missing_ok=True)
    with file.open("xb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())


def _second_name(target: Path, predecessor: Path) -> Path:
    """A second name of the present file; a copy where the file system has no hard links."""
    second = _temporary(predecessor)
    second.unlink(missing_ok=True)
    try:
        os.link(target, second)
    except OSError:
        _spill(second, target.read_bytes())
    return second


def _sum_if_whole(file: Path) -> str | None:
    """The sum of a file that is there and whole, or has no sum file."""
    if not file.is_file():
        return None
    found, named = digest(file), sums(file)
    return found if named is None or found in named else None


def _place(temporary: Path, target: Path, new: str) -> None:
    """Steps 2 to 4. A target without a sum file, of an earlier version, gets its sum here, so that it is whole until replaced."""
    old = sums(target)
    if old is None:
        old = (digest(target),) if target.is_file() else ()
    _write_sums(target, new, *old)
    temporary.replace(target)
    _sync(target.parent)
    _write_sums(target, new)


def _write_sums(target: Path, *named: str) -> None:
    place = sum_file(target)
    lines = "".join(f"{name}  {target.name}\n" for name in dict.fromkeys(named))
    _spill(_temporary(place), lines.encode())
    _temporary(place).replace(place)
    _sync(place.parent)


def _sync(folder: Path) -> None:
    """Bring a rename to the disk, where the file system can sync a folder."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)
