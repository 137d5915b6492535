"""Pack sets for training: ``python -m dataloaders.pack set=STEAD output=packed/stead`` (or ``set=[ETHZ,GEOFON] output=packed``).

Any SeisBench set, of any sampling rate, becomes 100 Hz in float16 with a scale for each trace and component, in checksummed
shards: half the size of float32, a start without parsing, half the bytes from the disk. Train on it with the folder for a name:
``dataset.dataset_name=[packed/stead]``. Splits, labels, windows and order stay what they were.

A killed run goes on where it was when the same command is given again. Traces that cannot be read are left out, counted, and
listed in ``skipped.csv``. ``python -m dataloaders.pack verify=packed/stead`` looks for damage later.
"""

import os
import shutil
import sys
import warnings
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dataloaders.packed.files import SKIPPED, UNFINISHED, Manifest, is_packed, shard_name, write_manifest
from dataloaders.packed.finish import Origin, compare, write_tables
from dataloaders.packed.plan import NO_RATIO, alone, begin, identity, plan
from dataloaders.packed.verify import damages, opened, packed_sets
from dataloaders.packed.write import Job, Written, finished, write_shards
from dataloaders.sets.arrivals import Arrivals, read_arrivals
from dataloaders.sets.catalogue import join, pieces_of
from dataloaders.sets.names import folder_of
from dataloaders.sources.seisbench import OtherRates, other_rates
from utils import cli
from utils.console import console
from utils.errors import DataError, demand

_MIB = 1 << 20


@dataclass(kw_only=True)
class Arguments:
    """Arguments of the command."""

    set: list[str] = field(default_factory=list)
    """SeisBench names, or folders in SeisBench's format."""
    output: str = ""
    """Folder of the packed set; with several sets each gets a folder of its name in it."""
    verify: str = ""
    """Packed set, or folder of such, whose files are read whole and compared with their checksums; instead of packing."""
    workers: int = 0
    """Processes; 0: as many as there are cores."""
    shard_mib: int = 128
    """Size of a shard in MiB: what a killed run loses at most in each process."""
    compare: int = 1000
    """Traces that are read from both sets in the end and compared."""
    max_damaged_fraction: float = 0.01
    """Share of the traces that may be damaged before packing stops."""

    def __post_init__(self) -> None:
        demand(
            (bool(self.set) != bool(self.verify), "set, verify: one of them must be given"),
            (bool(self.set) == bool(self.output), "set, output: belong together: what is packed, and where to"),
            (len(set(self.set)) == len(self.set), f"set = {self.set}: names a set twice"),
            (self.workers >= 0, f"workers = {self.workers}: must be 0 (as many as cores) or more"),
            (1 <= self.shard_mib <= 1024, f"shard_mib = {self.shard_mib}: must be 1 … 1024"),
            (self.compare >= 1, f"compare = {self.compare}: must be at least 1"),
            (0 <= self.max_damaged_fraction <= 1, f"max_damaged_fraction = {self.max_damaged_fraction}: must be 0 … 1"),
        )

    def processes(self) -> int:
        """How many work at once."""
        return self.workers or (len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1)


def main(args: Arguments) -> None:
    """Pack the sets one after the other, or verify packed ones.

    Raises:
        DataError: see :func:`pack` and :func:`verify`.
    """
    if args.verify:
        verify(args)
        return
    sources = [(name, folder_of(name)) for name in args.set]
    output = Path(args.output).expanduser()
    for name, source in sources:
        if is_packed(source):
            raise DataError(f"set = {name}: is packed already. Name the set that it was made from")
    for name, source in sources:
        pack(name, output / source.name if len(sources) > 1 else output, args)


def pack(name: str, folder: Path, args: Arguments) -> None:
    """Pack one set.

    Raises:
        DataError: the set cannot be used, too many of its traces are damaged, or the folder is taken, full, or not writable.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"output = {folder}: cannot be written ({error}). Give another output") from error
    with alone(folder):
        _pack(name, folder, args)


def _pack(name: str, folder: Path, args: Arguments) -> None:
    """:func:`pack`, in a folder that nobody else packs into."""
    screen, stated = console(), identity(folder_of(name), args.shard_mib)
    try:
        wanted = begin(folder, stated)
    except OSError as error:
        raise DataError(f"output = {folder}: cannot be written ({error}). Give another output") from error
    if wanted:
        job, origin = _prepared(name, folder, stated, args, screen)
        shards = _pack_shards(job, args, screen)
        worst = _finish(job, origin, shards, args, screen)
        screen.print(f"compared with the source: largest error {worst:.1e} of the largest amplitude", soft_wrap=True)
    manifest, size = opened(folder)
    _say(folder, manifest, size, screen)


def _prepared(name: str, folder: Path, stated: dict[str, object], args: Arguments, screen: Console) -> tuple[Job, Origin]:
    """The source indexed, and what is to be done with it."""
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        pieces = pieces_of(0, name)
        flags = any(piece.has_split for piece in pieces), any(piece.has_events for piece in pieces)
        catalogue = join([name], pieces).at_100_hz()
        other_rates(catalogue, OtherRates.resample)
        arrivals = _arrivals(name, screen)
    for note in notes:
        screen.print(str(note.message), markup=False, soft_wrap=True)
    job = Job(catalogue, plan(catalogue, args.shard_mib * _MIB // 2), folder)
    return job, Origin(name, stated, *flags, arrivals)


def _arrivals(name: str, screen: Console) -> Arrivals | None:
    try:
        return read_arrivals([name])
    except DataError as error:
        screen.print(f"packed without arrivals, so that no picker can be trained on it: {error}", markup=False, soft_wrap=True)
        return None


def _pack_shards(job: Job, args: Arguments, screen: Console) -> list[Written]:
    """Write the shards that are not finished yet; returns all of them."""
    _demand_room(job)
    limit = args.max_damaged_fraction * len(job.catalogue)
    with _bar(screen) as progress:
        task = progress.add_task("packing traces", total=len(job.catalogue))
        found = [finished(job, shard) for shard in range(job.plan.shards())]
        done = {shard.shard: shard for shard in found if shard}
        progress.advance(task, sum(len(job.plan.rows(shard)) for shard in done))
        if done:
            screen.print(f"goes on: {len(done)} of {len(found)} shards are there", soft_wrap=True)
        _demand_sound(job, done, limit)
        for shard in write_shards(job, [at for at, shard in enumerate(found) if shard is None], args.processes()):
            written = finished(job, shard)
            if written is None:
                raise DataError(
                    f"{job.folder / shard_name(shard)}: vanished while the set was packed. Run the same command again"
                )
            done[shard] = written
            _demand_sound(job, done, limit)
            progress.update(task, advance=len(job.plan.rows(shard)), refresh=True)
    return [done[shard] for shard in sorted(done)]


def _bar(screen: Console) -> Progress:
    """A bar that no thread draws, so that processes fork undisturbed."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=screen, auto_refresh=False)


def _demand_room(job: Job) -> None:
    there = sum(path.stat().st_size for path in (job.folder / "shards").iterdir())
    wanted, free = job.plan.bytes() - there, shutil.disk_usage(job.folder).free
    if wanted > free:
        raise DataError(f"{job.folder}: {wanted / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free. Give another output")


def _demand_sound(job: Job, done: dict[int, Written], limit: float) -> None:
    """Stop where too many traces are damaged; names the last of them."""
    if sum(shard.damaged() for shard in done.values()) > limit:
        row, reason = next(each for shard in reversed(done.values()) for each in reversed(shard.skipped) if each[1] != NO_RATIO)
        raise DataError(
            f"{sum(shard.damaged() for shard in done.values())} of {len(job.catalogue)} traces are damaged, more than "
            f"{limit:g}; the last is {job.catalogue.trace_name(row)}: {reason}. Download or write the set again, delete "
            f"{job.folder} and pack it again, or tolerate more with max_damaged_fraction"
        )


def _finish(job: Job, origin: Origin, shards: list[Written], args: Arguments, screen: Console) -> float:
    """Tables, comparison with the source, and last the manifest, which makes the set complete."""
    try:
        manifest = write_tables(job, origin, shards)
        with _bar(screen) as progress:
            task = progress.add_task("comparing traces", total=min(args.compare, len(job.catalogue)))
            worst = compare(job, manifest, args.compare, lambda count: progress.update(task, advance=count, refresh=True))
        write_manifest(job.folder, manifest)
        shutil.rmtree(job.folder / UNFINISHED)
    except OSError as error:
        raise DataError(
            f"{job.folder}: cannot be written ({error}). Free space, then run the same command: it goes on"
        ) from error
    return worst


def _say(folder: Path, manifest: Manifest, size: int, screen: Console) -> None:
    """What the set is, what was left out, and how to train on it."""
    out = sum(manifest.left_out.values())
    screen.print(f"{folder}: {manifest.traces - out:,} traces, {size / 1e9:.2f} GB, {manifest.shards()} shards", soft_wrap=True)
    for reason, count in manifest.left_out.items():
        screen.print(f"left out: {count:,} {reason}; each is listed in {folder / SKIPPED}", markup=False, soft_wrap=True)
    screen.print(f"Train on it: python train.py … 'dataset.dataset_name=[{folder}]'", markup=False, soft_wrap=True)


def verify(args: Arguments) -> None:
    """Read packed sets whole, all of them, and name every file that is not what was written.

    Raises:
        DataError: something is damaged.
    """
    screen, wrong = console(), []
    for folder in packed_sets(Path(args.verify).expanduser()):
        try:
            manifest, size = opened(folder)
        except DataError as error:
            wrong.append(str(error))
            continue
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        with Progress(*columns, console=screen) as progress:
            task = progress.add_task(folder.name, total=size)
            found = damages(folder, manifest, args.processes(), lambda count, task=task: progress.advance(task, count))
        screen.print(f"{folder}: {len(found)} of {len(manifest.files)} files damaged", markup=False, soft_wrap=True)
        wrong += found
    if wrong:
        raise DataError("\n".join([*wrong, "Copy these files again, or delete the folder and pack the set again"]))


if __name__ == "__main__":
    cli.run(main, Arguments, where="dataloaders.pack", words="set")
