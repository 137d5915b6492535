"""Files of continuous records: found, looked through, read a station at a time."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import final

import obspy
from obspy import Stream

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


def find_files(patterns: Sequence[str]) -> list[Path]:
    """The files that names and patterns (``*``, ``?``, ``**``) mean, each once, sorted; a folder means all files in it.

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
    return sorted(found)


def _matching(pattern: Path) -> Iterator[Path]:
    """Files that a pattern means, which may begin at a root or with ``..``."""
    plain = list(takewhile(lambda part: not set("*?[") & set(part), pattern.parts))
    rest = pattern.parts[len(plain) :]
    return Path(*plain).glob(str(Path(*rest))) if rest else iter(())


def survey(files: Sequence[Path]) -> Archive:
    """Which stations are in which files, from the files' headers alone."""
    stations, unreadable = defaultdict[str, list[Path]](list), list[tuple[str, str]]()
    for file in files:
        headers = _read(file, headonly=True)
        if isinstance(headers, str):
            unreadable.append((str(file), headers))
            continue
        for name in sorted({f"{trace.stats.network}.{trace.stats.station}" for trace in headers}):
            stations[name].append(file)
    return Archive(dict(sorted(stations.items())), unreadable)


def _read(file: Path, *, headonly: bool = False) -> Stream | str:
    """A file's traces, or why it cannot be read."""
    try:
        return obspy.read(str(file), headonly=headonly)
    except Exception as error:  # noqa: BLE001  ObsPy's readers raise bare Exceptions, and whatever damaged bytes lead to; it is told
        return f"cannot be read: {next(iter(str(error).splitlines()), type(error).__name__)}"


@final
class StationReader:
    """Reads the records of one station after the other; a file of many stations stays in memory until another is read."""

    def __init__(self) -> None:
        self._file = Path()
        self._content = Stream()

    def read(self, station: str, files: Sequence[Path]) -> tuple[Stream, list[tuple[str, str]]]:
        """All traces of a station, and (file, why) for files that turn out damaged."""
        network, _, code = station.partition(".")
        stream, damaged = Stream(), list[tuple[str, str]]()
        for file in files:
            content = self._content if file == self._file else _read(file)
            if isinstance(content, str):
                damaged.append((str(file), content))
                continue
            self._file, self._content = file, content
            stream += Stream([trace for trace in self._content if (trace.stats.network, trace.stats.station) == (network, code)])
        return stream, damaged
