"""Memory that the index of a packed set takes in each process, against its number of traces: python benchmarks/data_memory.py

The index is simulated: its tables are real, of 60 s traces with two arrivals each, its shards are holes in the file system.
Anonymous memory counts, which every rank has of its own; mapped tables are shared by all ranks of a machine. The peak is sampled
every 10 ms while the source opens. One process a line, and a worker that reads a batch would add nothing but its batch.
"""

import hashlib
import multiprocessing
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np

from dataloaders.contracts import Split
from dataloaders.packed.files import ARRIVALS, TRACE, TRACES, Manifest, shard_name, write_manifest
from dataloaders.packed.index import arrivals_dtype
from dataloaders.sources.phase_pick import PhasePick, PhasePickConfig
from dataloaders.sources.seisbench import SeisBench, SeisBenchConfig

TRACES_OF_SET = (300_000, 1_200_000, 5_000_000)
SAMPLES, SHARD = 6000, 4000
SOURCES = {"contrastive": (SeisBench, SeisBenchConfig), "picking": (PhasePick, PhasePickConfig)}


def simulate(folder: Path, traces: int) -> Path:
    """A packed set without samples."""
    (folder / "shards").mkdir(parents=True)
    number, rng = np.arange(traces), np.random.default_rng(0)
    table = np.zeros(traces, TRACE)
    table["shard"], table["first"], table["samples"], table["live"] = number // SHARD, number % SHARD * 3 * SAMPLES, SAMPLES, 7
    table["split"], table["named"], table["scale"] = rng.choice([0, 0, 0, 1, 2], traces), True, 1
    table["event"] = (number // 4) * 5 + table["split"]
    arrivals = np.zeros(traces, arrivals_dtype(2))
    arrivals["sample"], arrivals["name"] = [1500.0, 2300.0], [0, 1]
    np.save(folder / TRACES, table)
    np.save(folder / ARRIVALS, arrivals)
    for shard in range(-(-traces // SHARD)):
        with (folder / shard_name(shard)).open("wb") as file:
            file.truncate(SHARD * 3 * SAMPLES * 2)
    empty = hashlib.sha256().hexdigest()
    names = [str(path.relative_to(folder)) for path in folder.glob("**/*") if path.is_file()]
    files = {name: {"bytes": (folder / name).stat().st_size, "sha256": empty} for name in names}
    known = {"chunks": [""], "phases": ["P", "S"], "other": {}, "has_split": True, "has_events": True}
    write_manifest(folder, Manifest(source="simulated", origin={}, rate=100.0, traces=traces, left_out={}, files=files, **known))
    return folder


def anonymous() -> float:
    """Anonymous memory of this process in MB."""
    text = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) / 1e3 for line in text.splitlines() if line.startswith("RssAnon"))


def measure(folder: Path, kind: str, said: "multiprocessing.Queue[tuple[float, float, float]]") -> None:
    """Open the set as training does; report what stays, the peak, and seconds."""
    before, peak, done = anonymous(), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            peak[0] = max(peak[0], anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    begin = time.perf_counter()
    source, config = SOURCES[kind]
    opened = source(config(dataset_name=[str(folder)]), seed=0)
    parts = [opened.part(split) for split in (Split.train, Split.dev)]
    parts[0].__getitems__([(0, position) for position in range(32)])
    seconds = time.perf_counter() - begin
    done.set()
    watcher.join()
    said.put((anonymous() - before, peak[0] - before, seconds))


def main() -> None:
    print(f"{'traces':>10}  {'source':<12}{'stays, MB':>10}{'peak, MB':>10}{'opens, s':>10}")
    with tempfile.TemporaryDirectory() as root:
        for traces in TRACES_OF_SET:
            folder = simulate(Path(root) / str(traces), traces)
            for kind in SOURCES:
                context = multiprocessing.get_context("spawn")
                said = context.Queue()
                child = context.Process(target=measure, args=(folder, kind, said))
                child.start()
                stays, peak, seconds = said.get(timeout=600)
                child.join()
                print(f"{traces:>10,}  {kind:<12}{stays:>10.0f}{peak:>10.0f}{seconds:>10.1f}", flush=True)


if __name__ == "__main__":
    main()
