"""What a picking run has finished, station by station: small files beside the output, so that a run that was stopped goes on.

Each part says what it was made from. Parts of other settings or another checkpoint stop the run; a station whose files have
changed since is picked again, and that is said.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, final

import pandas as pd

from evaluation.picks import COLUMNS, PickedPhase, from_table, table
from utils.errors import DataError


@dataclass(frozen=True)
class Part:
    """The result of one station.

    Attributes:
        station: ``NET.STA``.
        picks: in order of time.
        seconds: of record that could be picked, all its instruments together.
        skipped: (what, why).
        counts: what was repaired, and how often.
    """

    station: str
    picks: Sequence[PickedPhase]
    seconds: float
    skipped: Sequence[tuple[str, str]] = ()
    counts: Mapping[str, int] = field(default_factory=dict[str, int])


def digest(value: Any) -> str:
    """A short fingerprint of plain builtins."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:20]


def digest_of_files(files: Sequence[Path]) -> str:
    """Fingerprint of files by path, size and time of change: their bytes would take longer than picking them."""
    return digest([[str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns] for file in files])


def digest_of_content(file: Path) -> str:
    """Fingerprint of a file's bytes."""
    seen = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            seen.update(block)
    return seen.hexdigest()[:20]


@final
class Parts:
    """The finished stations of a run.

    Args:
        folder: where they lie; made where it is missing.
        settings: everything besides the records that decides on picks, plain builtins.
        restart: throw away what is there.

    Raises:
        DataError: the folder holds parts of other settings, or cannot be written.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], *, restart: bool) -> None:
        self.folder = folder
        if restart and folder.exists():
            shutil.rmtree(folder)
        stated = folder / "settings.json"
        before = _read(stated)
        if before is None:
            for part in folder.glob("station.*.json"):  # of nobody knows which settings
                part.unlink()
        else:
            changed = [name for name in {**before, **settings} if before.get(name) != settings.get(name)]
            if changed:
                raise DataError(
                    f"{folder}: holds stations picked with another {', '.join(changed)}. Say restart=true to pick all again, or "
                    "give another output."
                )
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _write(stated, dict(settings))
        except OSError as error:
            raise DataError(f"{folder}: cannot be written ({error}). Give another output.") from error

    def _file(self, station: str) -> Path:
        return self.folder / f"station.{station}.json"

    def read(self, station: str, fingerprint: str) -> Part | None:
        """A finished station; None where it is not, or its files have changed (then its part is deleted)."""
        file = self._file(station)
        content = _read(file)
        if content is None or content.pop("fingerprint") != fingerprint:
            file.unlink(missing_ok=True)
            return None
        rows = from_table(pd.DataFrame(content.pop("picks"), columns=list(COLUMNS)))
        return Part(**{**content, "picks": rows, "skipped": [tuple(pair) for pair in content["skipped"]]})

    def has(self, station: str) -> bool:
        """Whether there is a part of a station, of whatever files."""
        return self._file(station).exists()

    def keep(self, part: Part, fingerprint: str) -> None:
        """Write a station, whole or not at all."""
        picks = table(part.picks).to_dict("records")
        content = {name: value for name, value in asdict(part).items() if name != "picks"}
        _write(self._file(part.station), {**content, "picks": picks, "fingerprint": fingerprint})

    def remove(self) -> None:
        """Delete all parts: the output is written."""
        shutil.rmtree(self.folder)


def _read(file: Path) -> dict[str, Any] | None:
    """What :func:`_write` wrote; None where there is nothing, or what a computer that went down left of it."""
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError):
        return None


def _write(file: Path, content: Mapping[str, Any]) -> None:
    unfinished = file.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(content))
    unfinished.replace(file)
