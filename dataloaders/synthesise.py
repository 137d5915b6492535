"""Write simulated seismograms as a set in SeisBench's format: ``python -m dataloaders.synthesise path=… traces=…``."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dataloaders.contracts import Split
from dataloaders.sets.writing import BLOCK, FILES, FORMAT, new_files
from dataloaders.simulator import RATE, Simulator, SimulatorConfig, Traces
from dataloaders.sources.synthetic import FIRST_NUMBER
from utils import cli
from utils.console import console
from utils.errors import demand

_BATCH = 128
_SHARES = ((Split.train, 0.6), (Split.dev, 0.7), (Split.test, 1.0))
_START = np.datetime64("2001-01-01T00:00:00.000000")
_SPACING = np.timedelta64(120, "s")
"""Between the starts of successive traces."""


@dataclass(kw_only=True)
class Arguments(SimulatorConfig):
    """Arguments of the command: where, how many, and everything that may be chosen about the simulation."""

    path: str
    """Folder of the set; made if it is not there."""
    traces: int = 2000
    """Number of traces: 60 % train, 10 % dev, 30 % test."""
    seed: int = 0
    """Of the simulation. The same number as ``dataset.simulation_seed`` gives the traces of ``dataset=synthetic``."""
    overwrite: bool = False
    """Replace a set that is there already."""

    def __post_init__(self) -> None:
        super().__post_init__()
        demand(
            (bool(self.path), "path = '': must name a folder"),
            (self.traces >= 1, f"traces = {self.traces}: must be at least 1"),
        )


def write_set(
    path: str | Path,
    traces: int,
    *,
    seed: int = 0,
    overwrite: bool = False,
    settings: SimulatorConfig | None = None,
    advance: Callable[[int], None] | None = None,
) -> Path:
    """Write a simulated set: ``metadata.csv`` and ``waveforms.hdf5``, both or neither.

    Gaps and dead components are zeros, as in archives; arrivals inside a gap have no label.

    Args:
        path: its folder.
        traces: how many, of all splits together.
        seed: of the simulation.
        overwrite: replace a set that is there already; other files of the folder stay.
        settings: of the simulator, by default those of ``dataset=synthetic``.
        advance: called with the number of traces written since the last call.

    Returns:
        the folder.

    Raises:
        DataError: a set is there already, or the folder cannot be written.
    """
    folder = Path(path).expanduser()
    with new_files(folder, FILES, overwrite=overwrite) as (table, waveforms):
        simulator = Simulator(settings or SimulatorConfig(), seed)
        with h5py.File(waveforms, "w") as file:
            rows = _write_waveforms(file, simulator, traces, advance or (lambda count: None))
        rows.to_csv(table, index=False)
    return folder


def _write_waveforms(file: h5py.File, simulator: Simulator, traces: int, advance: Callable[[int], None]) -> pd.DataFrame:
    """The waveforms into a new file; returns the metadata."""
    group = file.create_group("data_format")
    for key, value in FORMAT.items():
        group.create_dataset(key, data=value)
    blocks, length = file.create_group("data"), simulator.cfg.trace_samples
    split, number = _numbers(traces)
    parts = []
    for low in range(0, traces, BLOCK):
        count = min(BLOCK, traces - low)
        block = blocks.create_dataset(f"bucket{low // BLOCK}", (count, 3, length), np.float32)
        for first in range(0, count, _BATCH):
            rows = np.arange(first, min(first + _BATCH, count))
            made = simulator(number[low + rows])
            block[rows[0] : rows[-1] + 1] = made.wave
            part = metadata(made, simulator)
            part["split"] = split[low + rows]
            part["trace_name"] = [f"bucket{low // BLOCK}${row},:3,:{length}" for row in rows]
            parts.append(part)
            advance(len(rows))
    return pd.concat(parts, ignore_index=True)


def _numbers(traces: int) -> tuple[np.ndarray, np.ndarray]:
    """(split ``N`` str, number in the simulator ``N``): those of ``dataset=synthetic``."""
    splits, numbers, done = [], [], 0
    for split, share in _SHARES:
        count = round(share * traces) - done
        splits += [split.value] * count
        numbers.append(FIRST_NUMBER[split] + np.arange(count))
        done += count
    return np.array(splits, dtype=object), np.concatenate(numbers)


def metadata(made: Traces, simulator: Simulator) -> pd.DataFrame:
    """What SeisBench's columns say about traces; a row each, without split and name.

    Args:
        made: the traces.
        simulator: that made them.
    """
    scene, quakes = made.scene, made.scene.quakes
    first = ~quakes.second
    row, count = quakes.row[first], len(scene.index)
    start = _START + _SPACING * (scene.index % (1 << 40))
    origin = np.full(count, np.datetime64("NaT"), dtype="datetime64[us]")
    origin[row] = start[row] + np.round(quakes.origin[first] * 1e6).astype("timedelta64[us]")
    quake = np.zeros(count, bool)
    quake[row] = True
    table: dict[str, object] = {
        "trace_start_time": [f"{time}Z" for time in start],
        "trace_sampling_rate_hz": RATE,
        "trace_npts": simulator.cfg.trace_samples,
        "trace_component_order": "ZNE",
        "trace_category": np.where(quake, "earthquake_local", "noise"),
        "station_network_code": "XX",
        "station_code": [f"S{station:04d}" for station in scene.station],
        "trace_channel": np.where(simulator.stations.sensor_hz[scene.station] < 0.5, "HH", "EH"),
        "source_id": [
            f"synthetic_{simulator.seed}_{number}" if is_quake else ""
            for number, is_quake in zip(scene.index, quake, strict=True)
        ],
        "source_origin_time": ["" if np.isnat(time) else f"{time}Z" for time in origin],
        "source_magnitude_type": np.where(quake, "Mw", ""),
    }
    values = {
        "source_magnitude": quakes.magnitude,
        "source_depth_km": quakes.depth,
        "source_stress_drop_pa": quakes.stress_drop,
        "path_ep_distance_km": quakes.distance,
        "path_back_azimuth_deg": (np.rad2deg(quakes.azimuth) + 180) % 360,
    }
    for name, value in values.items():
        column = np.full(count, np.nan)
        column[row] = value[first].round(4)
        table[name] = column
    for name, column in zip(("p", "s", "P1", "S1"), made.onsets.T, strict=True):
        table[f"trace_{name}_arrival_sample"] = np.where(column >= 0, column, np.nan)
    table["trace_dead_components"] = ["".join(np.array(list("ZNE"))[~live]) for live in made.live]
    table["trace_gap_samples"] = (~made.valid).sum(1)
    return pd.DataFrame(table)


def main(args: Arguments) -> None:
    """Write the set with a progress bar, say where it is and how to train on it."""
    settings = SimulatorConfig(**{field.name: getattr(args, field.name) for field in fields(SimulatorConfig)})
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    screen = console()
    with Progress(*columns, console=screen) as progress:
        task = progress.add_task("simulating", total=args.traces)
        folder = write_set(
            args.path,
            args.traces,
            seed=args.seed,
            overwrite=args.overwrite,
            settings=settings,
            advance=lambda count: progress.advance(task, count),
        )
    size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    screen.print(f"{args.traces} traces of {args.trace_samples / RATE:g} s, {size:.0f} MB: {folder}", soft_wrap=True)
    command = f"python train.py dataset=seisbench_auto_reg 'dataset.dataset_name=[{folder}]'"
    screen.print(f"Train on it: {command}", soft_wrap=True, markup=False)


if __name__ == "__main__":
    cli.run(main, Arguments, where="dataloaders.synthesise")
