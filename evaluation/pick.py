"""Pick files of continuous records: ``python -m evaluation.pick checkpoint=… input=*.mseed output=picks.csv``.

Any format ObsPy reads, any number of files, stations and sampling rates; files and patterns may also follow as plain words. Picks
are written as CSV (``trace_id,station,phase,time,probability,start,end,instrument``) or, to ``picks.xml``, as QuakeML. A run that
was stopped goes on where it was: finished stations lie beside the output until it is written. What cannot be used is listed.
``plot=2019-07-04T17:00`` draws that hour of each station, also where the picks are written already.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from obspy import UTCDateTime
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from dataloaders.sets.resample import RATE
from evaluation import picks as picks_of
from evaluation.archives import Archive, StationReader, find_files, survey
from evaluation.export import Thresholds, bridge, evaluated, merged
from evaluation.pick_parts import Part, Parts, digest_of_content, digest_of_files
from evaluation.pick_plot import picture
from evaluation.picker import Picker
from evaluation.picks import PickedPhase, format_of
from evaluation.seisbench_model import WaveXLSTMPicker, picks_on
from utils import checkpoint, cli
from utils.console import console, duration
from utils.errors import DataError, demand


@dataclass(kw_only=True)
class Arguments:
    """Arguments of the command."""

    checkpoint: str
    """A checkpoint file of a picker, or a run folder: its newest."""
    input: list[str]
    """Files, patterns or folders of records."""
    output: str
    """Where the picks go: .csv, or .xml for QuakeML."""
    thresholds: str | None = None
    """A thresholds.json of an evaluation, or the folder of one; null is that of the run, if exactly one is of this checkpoint."""
    p_threshold: float | None = None
    """Probability from which P is picked; over what a file says."""
    s_threshold: float | None = None
    """Probability from which S is picked; over what a file says."""
    overlap: float = 0.5
    """Share of a window that the next one repeats; 0.25 is a third faster, and a little less sure."""
    batch_size: int | None = None
    """Windows at a time; null chooses by device."""
    device: str = "auto"
    """cpu, cuda or auto."""
    restart: bool = False
    """Begin anew: overwrite the output, forget finished stations."""
    plot: str | None = None
    """Draw the stretch that begins at this time (UTC), for each station."""
    plot_minutes: float = 60.0
    """Length of that stretch."""
    plot_output: str | None = None
    """Picture; null is the output with .png. With several instruments their names are put before the suffix."""

    def __post_init__(self) -> None:
        """State the ranges."""
        given = {"p_threshold": self.p_threshold, "s_threshold": self.s_threshold}
        demand(
            *((value is None or 0 < value <= 1, f"{key} = {value}: must be above 0, at most 1") for key, value in given.items()),
            (0 <= self.overlap < 1, f"overlap = {self.overlap}: must be 0 … below 1"),
            (self.batch_size is None or self.batch_size >= 1, f"batch_size = {self.batch_size}: must be at least 1"),
            (self.device in ("auto", "cpu", "cuda"), f"device = '{self.device}': must be auto, cpu or cuda"),
            (0 < self.plot_minutes <= 1440, f"plot_minutes = {self.plot_minutes}: must be above 0, at most 1440"),
            (
                self.plot_output is None or Path(self.plot_output).suffix in (".png", ".pdf", ".svg"),
                f"plot_output = '{self.plot_output}': must end in .png, .pdf or .svg",
            ),
            (self.plot is None or _time(self.plot) is not None, f"plot = '{self.plot}': must be a time like 2019-07-04T17:00"),
        )


def _time(text: str) -> UTCDateTime | None:
    try:
        return UTCDateTime(text)
    except (ValueError, TypeError):
        return None


@dataclass(frozen=True)
class Run:
    """What one run works with."""

    args: Arguments
    model: WaveXLSTMPicker
    archive: Archive
    thresholds: Thresholds
    reader: StationReader

    def given(self) -> dict[str, Any]:
        """What the model is told."""
        return {"overlap": self.args.overlap, "batch_size": self.args.batch_size}


def main(args: Arguments) -> None:
    """Pick, write, say what was found and what was not used.

    Raises:
        WaveError: no picker, no readable file, nothing usable, or an output that exists.
    """
    output = Path(args.output).expanduser()
    kind = format_of(output)
    only_draw = output.exists() and not args.restart
    if only_draw and args.plot is None:
        raise DataError(f"output {output}: exists. Give another one, or say restart=true to overwrite it.")
    run, stated = _prepare(args)
    out = console()
    out.print(f"thresholds: {run.thresholds.told}", markup=False)
    if only_draw:
        out.print(f"{output} exists and stays as it is: only the picture is made", markup=False, soft_wrap=True)
        _draw(run, None)
        return
    parts = Parts(_parts_of(output), stated, restart=args.restart)
    done = _pick_all(run, parts)
    skipped = list(dict.fromkeys([*run.archive.unreadable, *(each for part in done for each in part.skipped)]))
    if not any(part.seconds for part in done):
        listed = "\n".join(f"  - {what}: {why}" for what, why in skipped[:20])
        raise DataError(f"no record could be used. Skipped:\n{listed}")
    found = sorted(pick for part in done for pick in part.picks)
    picks_of.write(found, output, model=f"{run.model.name} {stated['checkpoint']}")
    parts.remove()
    _tell(done, skipped)
    out.print(f"{len(found)} picks as {kind} in {output}", markup=False, soft_wrap=True)
    if args.plot is not None:
        _draw(run, found)


def _parts_of(output: Path) -> Path:
    """Where finished stations lie until the output is written."""
    return output.with_name(f"{output.name}.parts")


def _prepare(args: Arguments) -> tuple[Run, dict[str, Any]]:
    """Open model and files; also the settings that decide on picks."""
    output = Path(args.output).expanduser()
    archive = survey(find_files(args.input, besides=[output, _parts_of(output)]))
    if not archive.stations:
        listed = "\n".join(f"  - {what}: {why}" for what, why in archive.unreadable[:20])
        raise DataError(f"input: no file could be read.\n{listed}")
    file = checkpoint.find(args.checkpoint)
    picker = Picker.load(str(file))
    chosen, otherwise = evaluated(file, args.thresholds)
    thresholds = merged(chosen, {"P": args.p_threshold, "S": args.s_threshold}, otherwise)
    device = "cuda" if args.device != "cpu" and torch.cuda.is_available() else "cpu"
    if args.device == "cuda" and device == "cpu":
        raise DataError("device = cuda: no CUDA device here. Say device=cpu")
    model = bridge(picker.module, thresholds.values).to(device)
    stated = {"checkpoint": digest_of_content(file), "thresholds": thresholds.values, "overlap": args.overlap}
    return Run(args, model, archive, thresholds, StationReader()), stated


def _pick_all(run: Run, parts: Parts) -> list[Part]:
    """Every station, those finished before read from their parts."""
    done, again, before = [], 0, 0
    out = console()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("stations"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=out, disable=not out.is_terminal) as bar:
        task = bar.add_task("picking", total=len(run.archive.stations))
        for station, files in run.archive.stations.items():
            bar.update(task, description=station)
            fingerprint = digest_of_files(files)
            was_there = parts.has(station)
            part = parts.read(station, fingerprint)
            before += part is not None
            again += part is None and was_there
            if part is None:
                part = _pick_station(run, station, files)
                parts.keep(part, fingerprint)
            done.append(part)
            bar.advance(task)
    if before or again:
        out.print(f"{before} stations were finished before, {again} picked again since their files changed", markup=False)
    return done


def _pick_station(run: Run, station: str, files: Sequence[Path]) -> Part:
    """One station, all its files together, so that records go on from one file to the next."""
    stream, damaged = run.reader.read(station, files)
    found, findings = run.model.picks(stream, **run.given())
    return Part(station, found, findings.seconds, [*damaged, *findings.skipped], dict(findings.counts))


def _tell(done: Sequence[Part], skipped: Sequence[tuple[str, str]]) -> None:
    """A table of stations, then everything that was repaired or not used."""
    table = Table("station", "record", "P", "S", box=None)
    for part in done:
        phases = Counter(pick.phase for pick in part.picks)
        table.add_row(part.station, duration(part.seconds), str(phases["P"]), str(phases["S"]))
    out = console()
    out.print(table)
    counts: Counter[str] = sum((Counter(part.counts) for part in done), Counter())
    for what, number in sorted(counts.items()):
        if number:
            out.print(f"{number} {what}", markup=False)
    if skipped:
        out.print(f"not used, or not wholly ({len(skipped)}):", markup=False)
    for what, why in skipped:
        out.print(f"  {what}: {why}", markup=False, soft_wrap=True)


def _draw(run: Run, found: Sequence[PickedPhase] | None) -> None:
    """Draw the stretch that was asked for, a picture an instrument, and say where.

    Args:
        run: the run.
        found: its picks; None picks that stretch.
    """
    for file in _plot(run, found):
        console().print(f"picture: {file}", markup=False, soft_wrap=True)


def _plot(run: Run, found: Sequence[PickedPhase] | None) -> list[Path]:
    """Pictures; the model sees a window more on each side."""
    start = UTCDateTime(run.args.plot)
    end = start + 60 * run.args.plot_minutes
    context = run.model.window / RATE
    pictures = {}
    for station, files in run.archive.stations.items():
        stream, _ = run.reader.read(station, files)
        curves, _ = run.model.curves(stream.slice(start - context, end + context), **run.given())
        for segment, curve in curves:
            if segment.start < end and segment.start + len(curve) / RATE > start:
                name = f"{segment.trace_id}.{segment.instrument}"
                pictures.setdefault(name, []).append((segment, curve))
    if not pictures:
        raise DataError(f"plot = {run.args.plot}: no record there.{'' if found is None else ' The picks are written.'}")
    base = Path(run.args.plot_output or Path(run.args.output).with_suffix(".png")).expanduser()
    written = []
    for name, curves in pictures.items():
        made = [pick for segment, curve in curves for pick in picks_on(segment, curve, run.thresholds.values)]
        mine = made if found is None else [pick for pick in found if f"{pick.trace_id}.{pick.instrument}" == name]
        title = f"{name}   {start.strftime('%Y-%m-%d %H:%M')} UTC, {run.args.plot_minutes:g} minutes   thresholds {_short(run)}"
        drawn = {"components": run.model.letters, "title": title, "thresholds": run.thresholds.values}
        figure = picture(curves, mine, start, end, **drawn)
        file = base if len(pictures) == 1 else base.with_name(f"{base.stem}.{name}{base.suffix}")
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file, dpi=130)
        written.append(file)
    return written


def _short(run: Run) -> str:
    return ", ".join(f"{phase} {value:.2g}" for phase, value in run.thresholds.values.items())


if __name__ == "__main__":
    cli.run(main, Arguments, where="evaluation.pick", words="input")
