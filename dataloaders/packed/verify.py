"""Whether the files of a packed set are still what was written."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from dataloaders.packed.files import MANIFEST, TRACES, Manifest, fingerprint, read_manifest
from utils.errors import DataError


def packed_sets(folder: Path) -> list[Path]:
    """The folder where it is a packed set, else those of its folders that are.

    Raises:
        DataError: there is none.
    """
    found = [folder] if (folder / MANIFEST).is_file() else sorted(path.parent for path in folder.glob(f"*/{MANIFEST}"))
    if not found:
        raise DataError(f"verify = {folder}: must be a packed set or a folder of such, with {MANIFEST}. Make one with set=…")
    return found


def damages(folder: Path, manifest: Manifest, workers: int, advance: Callable[[int], None]) -> list[str]:
    """Read every file whole; what is wrong, a text a file.

    Args:
        folder: of the set.
        manifest: of the set.
        workers: threads; computing checksums lets others run.
        advance: called with the bytes read since the last call, from any thread.
    """

    def wrong(name: str) -> str | None:
        path = folder / name
        try:
            found = fingerprint(path, advance)
        except OSError as error:
            return f"{path}: cannot be read ({error})"
        stated = manifest.files[name]
        if found["bytes"] != stated["bytes"]:
            return f"{path}: has {found['bytes']:,} bytes where the manifest says {stated['bytes']:,}"
        return None if found == stated else f"{path}: damaged, its SHA-256 is not the manifest's{_rows(folder, name)}"

    with ThreadPoolExecutor(workers) as pool:
        return [text for text in pool.map(wrong, manifest.files) if text]


def _rows(folder: Path, name: str) -> str:
    """Which traces a shard holds, in words."""
    if not name.startswith("shards/"):
        return ""
    try:
        mine = np.flatnonzero(np.load(folder / TRACES, mmap_mode="r", allow_pickle=False)["shard"] == int(Path(name).stem))
    except (OSError, ValueError, IndexError):
        return ""  # the table is damaged as well, which is said of it
    return f" (rows {mine[0]} to {mine[-1]} of the metadata)" if len(mine) else ""


def opened(folder: Path) -> tuple[Manifest, int]:
    """Manifest and bytes of a set.

    Raises:
        DataError: as :func:`~dataloaders.packed.files.read_manifest`.
    """
    manifest = read_manifest(folder)
    return manifest, sum(int(file["bytes"]) for file in manifest.files.values())
