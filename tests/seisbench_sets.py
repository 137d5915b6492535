"""Small sets in SeisBench's format, written by SeisBench itself, under the published names and each with a quirk."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

TRACES = 20
"""Traces of each set."""


@dataclass
class Quirk:
    """How one set differs from the plainest.

    Attributes:
        order: components of each trace in turn, as stored and as named in the metadata.
        dimensions: ``CW`` or ``WC``.
        chunks: names of its chunks.
        split, events, orders_in_metadata, rate_in_metadata: whether these columns exist.
        dtype: of the samples.
        bucket: traces a block; 0 stores each trace singly.
        lengths: samples of each trace in turn.
        rates: Hz of each trace in turn.
        splits: split of each trace in turn, where there is a column.
        extra: further columns, each with a prefix of its values, which number the events.
    """

    order: tuple[str, ...] = ("ZNE",)
    dimensions: str = "CW"
    chunks: tuple[str, ...] = ("",)
    split: bool = True
    events: bool = True
    orders_in_metadata: bool = True
    rate_in_metadata: bool = True
    dtype: str = "float32"
    bucket: int = 1024
    lengths: tuple[int, ...] = (6000,)
    rates: tuple[float, ...] = (100.0,)
    splits: tuple[str, ...] = ("train", "train", "train", "dev", "test")
    extra: dict[str, str] = field(default_factory=dict)


PUBLISHED = {
    "ETHZ": Quirk(lengths=(5000, 6000, 3000), bucket=4),
    "GEOFON": Quirk(split=False, order=("ZNE", "Z"), rates=(20.0, 50.0, 100.0, 200.0)),
    "STEAD": Quirk(order=("ENZ",), orders_in_metadata=False, rate_in_metadata=False),
    "InstanceCounts": Quirk(chunks=("_a", "_b"), dtype="float16"),
    "MLAAPDE": Quirk(dimensions="WC", bucket=7, rates=(40.0,)),
    "Iquique": Quirk(bucket=0, order=("ZNE", "Z12")),
    "PNW": Quirk(dtype="int32", order=("Z", "NE")),
    "OBST2024": Quirk(order=("Z12H",), split=False, events=False, extra={"event_id": "ev"}),
}
"""The eight sets of the published pretraining mixture."""


def waves(rng: np.random.Generator, components: int, samples: int) -> np.ndarray:
    """Coloured noise with an arrival: ``components samples`` in counts, with an offset."""
    noise = np.cumsum(rng.normal(size=(components, samples)), 1)
    noise -= np.linspace(0, 1, samples) * noise[:, -1:]
    onset = int(rng.integers(samples // 4, samples // 2))
    late = np.arange(samples - onset)
    burst = np.exp(-late / 300) * np.sin(2 * np.pi * rng.uniform(1, 8) * late / 100)
    noise[:, onset:] += 200 * rng.uniform(0.2, 1, (components, 1)) * burst
    return noise + rng.normal(size=(components, 1)) * 50


@contextmanager
def seisbench_quiet() -> Iterator[None]:
    """SeisBench's own warnings and log lines are not ours to heed."""
    logging.getLogger("seisbench").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def write_set(folder: Path, quirk: Quirk, *, seed: int = 0, traces: int = TRACES) -> Path:
    """Write one set with SeisBench's writer.

    Returns:
        ``folder``.
    """
    rng = np.random.default_rng(seed)
    with seisbench_quiet():
        for chunk in quirk.chunks:
            _write_chunk(folder, quirk, chunk, rng, traces // len(quirk.chunks))
    if len(quirk.chunks) > 1:
        (folder / "chunks").write_text("\n".join(quirk.chunks) + "\n")
    return folder


def _write_chunk(folder: Path, quirk: Quirk, chunk: str, rng: np.random.Generator, traces: int) -> None:
    from seisbench.data import Bucketer, WaveformDataWriter

    class Single(Bucketer):
        """A block for every trace (SeisBench 0.12.6 cannot write with ``bucketer = None``)."""

        def get_bucket(self, metadata, waveform):
            return metadata["trace_name"]

    with WaveformDataWriter(folder / f"metadata{chunk}.csv", folder / f"waveforms{chunk}.hdf5") as writer:
        if quirk.bucket:
            writer.bucket_size = quirk.bucket
            writer.bucketer.axis = -1 if quirk.dimensions == "CW" else 0
        else:
            writer.bucketer = Single()
        writer.data_format = {"dimension_order": quirk.dimensions, "measurement": "velocity", "unit": "counts"}
        if not quirk.orders_in_metadata:
            writer.data_format["component_order"] = quirk.order[0]
        if not quirk.rate_in_metadata:
            writer.data_format["sampling_rate"] = quirk.rates[0]
        writer._pbar = _Silent()
        for number in range(traces):
            writer.add_trace(*_trace(rng, quirk, number, f"{chunk}{number}"))


class _Silent:
    """Stands in for the writer's progress bar."""

    def update(self) -> None: ...

    def close(self) -> None: ...


def _trace(rng: np.random.Generator, quirk: Quirk, number: int, name: str) -> tuple[dict[str, object], np.ndarray]:
    order = quirk.order[number % len(quirk.order)]
    wave = waves(rng, len(order), quirk.lengths[number % len(quirk.lengths)]).astype(quirk.dtype)
    metadata: dict[str, object] = {"trace_name": f"trace{name}", "station_code": f"S{number % 5}", "trace_p_arrival_sample": 1500}
    metadata["trace_s_arrival_sample"] = 2300
    if quirk.split:
        metadata["split"] = quirk.splits[number % len(quirk.splits)]
    if quirk.events:
        metadata["source_id"] = f"{number // 2:03d}" if number % 10 else ""
    if quirk.orders_in_metadata:
        metadata["trace_component_order"] = order
    if quirk.rate_in_metadata:
        metadata["trace_sampling_rate_hz"] = quirk.rates[number % len(quirk.rates)]
    metadata |= {column: f"{prefix}{number // 2}" for column, prefix in quirk.extra.items()}
    return metadata, wave if quirk.dimensions == "CW" else wave.T


def damage(folder: Path, rows: list[int]) -> None:
    """Store the block compressed, one chunk a trace, and overwrite the chunks of these rows."""
    import h5py

    path = folder / "waveforms.hdf5"
    with h5py.File(path, "r+") as file:
        block = file["data/bucket0"][()]
        del file["data/bucket0"]
        made = file["data"].create_dataset(
            "bucket0", data=block, chunks=(1, *block.shape[1:]), compression="gzip", fletcher32=True
        )
        file.flush()
        spots = [made.id.get_chunk_info_by_coord((row, 0, 0)) for row in rows]
        offsets = [spot.byte_offset for spot in spots]
    with path.open("r+b") as file:
        for offset in offsets:
            file.seek(offset + 100)
            file.write(b"\0" * 200)


def write_published(cache_root: Path) -> Path:
    """Write the eight published sets where SeisBench would keep them, below ``cache_root``."""
    for number, (name, quirk) in enumerate(PUBLISHED.items()):
        write_set(cache_root / "datasets" / name.lower(), quirk, seed=number)
    return cache_root
