"""Which folder a set's name means: SeisBench's cache layout, read without importing SeisBench."""

import os
from pathlib import Path

from dataloaders.packed.files import MANIFEST, is_packed, read_manifest
from utils.errors import DataError, did_you_mean

SIZES = {
    "AQ2009Counts": "", "AQ2009GM": "", "BohemiaSaxony": "", "CEED": "", "CREW": "", "CWA": "", "CWANoise": "",
    "EQSDenoiserEvents": "", "EQSDenoiserNoise": "", "ETHZ": "about 22 GB", "GEOFON": "some 25 GB",
    "ISC_EHB_DepthPhases": "", "InstanceCounts": "about 160 GB", "InstanceGM": "about 160 GB", "InstanceNoise": "about 20 GB",
    "Iquique": "about 5 GB", "LFEStacksCascadiaBostock2015": "", "LFEStacksMexicoFrank2014": "",
    "LFEStacksSanAndreasShelly2017": "", "LenDB": "", "MLAAPDE": "", "Meier2019JGR": "",
    "NEIC": "about 75 GB", "OBS": "", "OBST2024": "", "PNW": "tens of GB", "PNWAccelerometers": "",
    "PNWExotic": "", "PNWNoise": "", "PiSDL": "", "Ross2018GPD": "", "Ross2018JGRFM": "", "Ross2018JGRPick": "",
    "SCEDC": "about 660 GB", "STEAD": "about 85 GB", "TXED": "", "VCSEIS": "",
}  # fmt: skip
"""Waveform sets of SeisBench that this project can read, each with its rough size on disk (empty: not known)."""

COMBINED = {
    "InstanceCountsCombined": ["InstanceCounts", "InstanceNoise"],
    "EQSDenoiserCombined": ["EQSDenoiserEvents", "EQSDenoiserNoise"],
}
"""Names that SeisBench gives to several sets together."""


def cache_root() -> Path:
    """Where SeisBench keeps its files: ``SEISBENCH_CACHE_ROOT``, else ``~/.seisbench``."""
    return Path(os.environ.get("SEISBENCH_CACHE_ROOT") or Path.home() / ".seisbench")


def folder_of(name: str) -> Path:
    """The folder of a set, by SeisBench name (in any case) or by path.

    Raises:
        DataError: neither a known name nor a folder in SeisBench's format, or a known set that is not there yet: says which
            command downloads it, how large it is and where it goes.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return _checked(path)
    cached = cache_root() / "datasets" / name.lower()
    if os.sep not in name and cached.is_dir() and (is_packed(cached) or any(cached.glob("metadata*.csv"))):
        return _checked(cached)
    known = {key.lower(): key for key in SIZES}
    if name.lower() in known:
        raise _missing(known[name.lower()], cached)
    together = {key.lower(): parts for key, parts in COMBINED.items()}
    if name.lower() in together:
        raise DataError(f"dataset '{name}' is two sets in SeisBench: name them both, dataset_name={together[name.lower()]}")
    if os.sep in name:
        raise DataError(
            f"dataset '{name}': there is no such folder. dataset_name takes folders in SeisBench's format and SeisBench names"
        )
    raise DataError(
        f"dataset '{name}': no SeisBench set has that name.{did_you_mean(name, SIZES)}\n"
        f"A folder in SeisBench's format (metadata.csv, waveforms.hdf5) can be given instead: dataset_name=[path/to/folder]"
    )


def _missing(name: str, folder: Path) -> DataError:
    size = f" ({SIZES[name]})" if SIZES[name] else ""
    return DataError(
        f"dataset '{name}' is not on this machine: nothing in {folder}\n"
        f"Download it{size} with: python -m dataloaders.download {name}\n"
        f"It goes to {folder}; SEISBENCH_CACHE_ROOT moves that."
    )


def _checked(folder: Path) -> Path:
    if is_packed(folder):
        return folder
    if not any(folder.glob("metadata*.csv")) or not any(folder.glob("waveforms*.hdf5")):
        raise DataError(f"{folder} is no set in SeisBench's format: it needs metadata.csv and waveforms.hdf5")
    return folder


def chunks_of(folder: Path) -> list[tuple[str, Path, Path]]:
    """The (chunk, metadata file, waveform file) triples of a set, sorted by chunk; the chunk of an undivided set is ``""``.

    The waveforms of a packed set are all behind its manifest.

    Raises:
        DataError: a chunk without its metadata or without its waveforms.
    """
    if is_packed(folder):
        return [(chunk, folder / f"metadata{chunk}.csv", folder / MANIFEST) for chunk in read_manifest(folder).chunks]
    listed = folder / "chunks"
    chunks = listed.read_text().split() if listed.is_file() else []
    if not chunks:
        chunks = [""] if (folder / "waveforms.hdf5").is_file() else []
    if not chunks:
        chunks = [path.stem.removeprefix("waveforms") for path in folder.glob("waveforms*.hdf5")]
        chunks += [path.stem.removeprefix("metadata") for path in folder.glob("metadata*.csv")]
    triples = [(chunk, folder / f"metadata{chunk}.csv", folder / f"waveforms{chunk}.hdf5") for chunk in sorted(set(chunks))]
    gone = [path for _, *paths in triples for path in paths if not path.is_file()]
    if gone:
        raise DataError(f"{folder}: incomplete, {', '.join(path.name for path in gone)} missing. Download it again")
    return triples
