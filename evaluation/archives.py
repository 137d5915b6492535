"""Files of continuous records: found, looked through, read a station at a time."""

import glob
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import final

import obspy
from obspy import Stream
from obspy.io.mseed import InternalMSEEDWarning

from utils.errors import DataError


@dataclass(frozen=True)
class Archive:
    """Files by station.

    Attributes:
        stations: files of each ``NET.STA``, in order of name.
        unreadable: (file, why).
    """

    stations: dict[str, list[Path]]
    unreadable: list[tuple[str, str]]


def find_files(patterns: Sequence[str], besides: Sequence[Path] = ()) -> list[Path]:
    """The files that names and patterns (``*``, ``?``, ``**``) mean, each once, sorted; a folder means all files in it.

    Args:
        patterns: names and patterns.
        besides: files and folders that are no records: what a run itself writes.

    Raises:
        DataError: a name or pattern that matches nothing.
    """
    found: set[Path] = set()
    for pattern in patterns:
        place = Path(pattern).expanduser()
        names = [place] if place.exists() else _matching(place)
        files = {file for name in names for file in (name.rglob("*") if name.is_dir() else [name]) if file.is_file()}
        if not files:
            raise DataError(f"input {pattern}: no such file. Give files, patterns (data/*.mseed) or folders.")
        found |= files
    own = {place.resolve() for place in besides}
    return sorted(file for file in found if not own & {file.resolve(), *file.resolve().parents})


def _matching(pattern: Path) -> Iterator[Path]:
    """Files that a pattern means, which may begin at a root or with ``..``."""
    plain = list(takewhile(lambda part: not set("*?[") & set(part), pattern.parts))
    rest = pattern.parts[len(plain) :]
    return Path(*plain).glob(str(Path(*rest))) if rest else iter(())


def survey(files: Sequence[Path]) -> Archive:
    """Which stations are in which files, from the files' headers alone."""
    stations, unreadable = defaultdict[str, list[Path]](list), list[tuple[str, str]]()
    for file in files:
        headers, warned = _read(file, headonly=True)
        if not headers:
            unreadable.append((str(file), warned))
            continue
        for name in sorted({f"{trace.stats.network}.{trace.stats.station}" for trace in headers}):
            stations[name].append(file)
    return Archive(dict(sorted(stations.items())), unreadable)


def _read(file: Path, *, headonly: bool = False) -> tuple[Stream, str]:
    """(a file's traces, why they are none or not all there are; empty where nothing is amiss)."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            content = obspy.read(glob.escape(str(file)), headonly=headonly)
        except Exception as error:  # noqa: BLE001  ObsPy's readers raise bare Exceptions, and whatever damaged bytes lead to; it is told
            return Stream(), f"cannot be read: {_first_line(error)}"
    told = [_first_line(each.message) for each in caught if issubclass(each.category, InternalMSEEDWarning)]
    if not content:
        return content, f"cannot be read: {told[0] if told else 'no records in it'}"
    return content, f"read in part: {told[0]}" if told else ""


def _first_line(error: Warning | Exception | str) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


@final
class StationReader:
    """Reads the records of one station after the other; a file of many stations stays in memory until another is read."""

    def __init__(self) -> None:
        self._file = Path()
        self._content, self._warned = Stream(), ""

    def read(self, station: str, files: Sequence[Path]) -> tuple[Stream, list[tuple[str, str]]]:
        """All traces of a station, and (file, why) for files that turn out damaged, wholly or in part."""
        network, _, code = station.partition(".")
        stream, damaged = Stream(), list[tuple[str, str]]()
        for file in files:
            if file != self._file:
                self._content, self._warned = _read(file)
                self._file = file
            if self._warned:
                damaged.append((str(file), self._warned))
            stream += Stream([trace for trace in self._content if (trace.stats.network, trace.stats.station) == (network, code)])
        return stream, damaged
