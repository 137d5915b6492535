"""Write a simulated continuous record as miniSEED, with its true onsets: ``python -m dataloaders.record path=record.mseed``.

For trying a picker where every onset is known: an hour of one station's noise with earthquakes at random times.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from obspy import Stream, Trace, UTCDateTime

from dataloaders.simulator import RATE, Simulator, SimulatorConfig
from utils import cli
from utils.console import console
from utils.errors import DataError, demand
from utils.rng import uniform

_START = UTCDateTime(2001, 1, 1)
_PIECE, _FADE = 60_000, 2_000
"""Samples of noise simulated at once, and of the overlap in which one piece gives way to the next."""
_EVENT = 12_000
"""Samples of an earthquake with its coda."""
_SILENT = -20.0
"""A level of noise far below anything that float32 can hold: traces of an earthquake alone."""


@dataclass(kw_only=True)
class Arguments:
    """Arguments of the command."""

    path: str
    """File of the record; its true onsets are written beside it, as ….csv."""
    minutes: int = 20
    """Length of the record."""
    events: int = 12
    """Earthquakes in it, at random times."""
    station: int = 0
    """Number of the station, 0 … 199: soil, sensor, usual noise."""
    seed: int = 0
    """Of the simulation."""
    overwrite: bool = False
    """Replace files that are there already."""

    def __post_init__(self) -> None:
        """State the ranges."""
        demand(
            (bool(self.path), "path = '': must name a file"),
            (2 <= self.minutes <= 24 * 60, f"minutes = {self.minutes}: must be 2 … 1440"),
            (0 <= self.events <= 5 * self.minutes, f"events = {self.events}: must be 0 … 5 a minute"),
            (0 <= self.station < 200, f"station = {self.station}: must be 0 … 199"),
            (0 <= self.seed < 2**32, f"seed = {self.seed}: must be 0 … {2**32 - 1}"),
        )


def simulate(minutes: int, events: int, *, station: int = 0, seed: int = 0) -> tuple[Stream, pd.DataFrame]:
    """A record of one station.

    Args:
        minutes: its length.
        events: earthquakes, at times that are uniformly distributed.
        station: number of the station.
        seed: of the simulation.

    Returns:
        (three traces, counts at 100 Hz in channels HHZ, HHN, HHE; onsets with the columns ``trace_id, station, phase, time,
        magnitude, distance_km``, in time order).
    """
    samples = int(minutes * 60 * RATE)
    wave = _noise(samples, station, seed)
    onsets = _add_events(wave, events, station, seed)
    header = {"network": "XX", "station": f"S{station:04d}", "location": "", "sampling_rate": RATE, "starttime": _START}
    counts = np.rint(np.clip(wave, -(2.0**31) + 1, 2.0**31 - 1)).astype(np.int32)
    stream = Stream([Trace(data, {**header, "channel": f"HH{name}"}) for data, name in zip(counts, "ZNE", strict=True)])
    onsets.insert(0, "trace_id", f"XX.{header['station']}.")
    onsets.insert(1, "station", header["station"])
    onsets["time"] = [str(_START + sample / RATE) for sample in onsets.pop("sample")]
    return stream, onsets.sort_values("time", ignore_index=True)


def _noise(samples: int, station: int, seed: int) -> np.ndarray:
    """``3 L`` counts of noise: pieces of equal level that fade into each other at equal power."""
    simulator = Simulator(SimulatorConfig(trace_samples=_PIECE, noise_fraction=1.0), seed)
    step = _PIECE - _FADE
    pieces = max(1, -(-(samples - _FADE) // step))
    scene = simulator.draw(np.arange(pieces))
    levels = np.repeat(scene.levels[:1], pieces, 0)  # one station, one night
    scene = replace(scene, station=np.full(pieces, station), levels=levels)
    wave = np.zeros((3, pieces * step + _FADE), np.float64)
    turn = np.sin(0.5 * np.pi * (np.arange(_FADE) + 0.5) / _FADE)
    window = np.ones(_PIECE)
    for number in range(pieces):
        window[:_FADE] = turn if number else 1.0
        window[-_FADE:] = turn[::-1] if number < pieces - 1 else 1.0
        wave[:, number * step : number * step + _PIECE] += window * simulator.counts(scene.rows(number, number + 1))[0]
    return wave[:, :samples]


def _add_events(wave: np.ndarray, events: int, station: int, seed: int) -> pd.DataFrame:
    """Add earthquakes to ``3 L`` counts in place; their onsets in samples."""
    if not events:
        return pd.DataFrame({"phase": [], "sample": [], "magnitude": [], "distance_km": []})
    cfg = SimulatorConfig(
        trace_samples=_EVENT, noise_fraction=0.0, second_event_fraction=0.0, distance_max_km=100.0, magnitude_min=1.5
    )
    simulator = Simulator(cfg, seed)
    scene = simulator.draw(np.arange(events))
    scene = replace(scene, station=np.full(events, station), levels=np.full_like(scene.levels, _SILENT))
    made = simulator.counts(scene)
    onset = simulator.onsets(scene, np.ones((events, _EVENT), bool))
    room = wave.shape[1] - _EVENT // 2
    start = (room * uniform(seed, np.zeros(events, np.int64), np.arange(events), "record/start", 1)[:, 0]).astype(np.int64)
    rows = []
    for number, first in enumerate(start.tolist()):
        inside = min(_EVENT, wave.shape[1] - first)
        wave[:, first : first + inside] += made[number, :, :inside]
        size, distance = scene.quakes.magnitude[number], scene.quakes.distance[number]
        for phase, sample in zip("PS", onset[number, :2].tolist(), strict=True):
            if 0 <= sample < inside:
                rows.append((phase, first + sample, round(float(size), 2), round(float(distance), 1)))
    return pd.DataFrame(rows, columns=["phase", "sample", "magnitude", "distance_km"])


def main(args: Arguments) -> None:
    """Write record and onsets, say where they are and how to pick them."""
    path = Path(args.path).expanduser()
    truth = path.with_suffix(".csv")
    there = [file for file in (path, truth) if file.exists()]
    if there and not args.overwrite:
        raise DataError(f"{there[0]}: there already. Choose another path, or replace it with overwrite=true.")
    stream, onsets = simulate(args.minutes, args.events, station=args.station, seed=args.seed)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream.write(str(path), format="MSEED")
        onsets.to_csv(truth, index=False)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error}). Free space, or choose another path.") from error
    screen = console()
    screen.print(
        f"{args.minutes} min of station XX.S{args.station:04d}, {len(onsets)} onsets of {args.events} earthquakes: "
        f"{path}, {truth}",
        soft_wrap=True,
    )
    screen.print(
        f"Pick it: python -m evaluation.pick checkpoint=runs/quickstart_finetune input={path} output=picks.csv", soft_wrap=True
    )


if __name__ == "__main__":
    cli.run(main, Arguments, where="dataloaders.record")
