"""Reading and preparing windows, from original and packed sets, against SeisBench in one run: python benchmarks/data_cpu.py

Writes a set of 3 × 6000 float32 traces with 40 metadata columns (as STEAD has) to a temporary folder with SeisBench's writer,
packs it, then measures side by side, in one process and one thread
  read     a crop of 4096 samples: ours (batches of 32) against ``WaveformDataset.get_sample`` and slicing
  window   a batch as training gets it, raw, against a sample of ``GenericGenerator`` (RandomWindow, Normalize,
           ProbabilisticLabeller): what a data process does on each side; ours leaves the rest to the device
  prepare  crop, demean and std normalisation, Gaussian labels on both sides, cut the same, so that outputs can be compared
The sides alternate within a run and CPU time is counted; the table gives medians and spreads of their ratios. Then, by the clock:
  warm     whole epochs through a DataLoader with 0, 1 and 2 workers
  cold     random windows of files that the system was asked to forget (``posix_fadvise``, which needs no privilege); the bytes
           that came from the disk are counted, and without them the line says that nothing was cold
Where litdata is installed (``pip install litdata``; no dependency of ours), it is measured in the same run over its own copy of
the set; it has no part in ``prepare``.
"""

import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

# In place of this folder, whose profile.py would hide Python's own from litdata.
sys.path[:1] = [str(Path(__file__).parent.parent), str(Path(__file__).parent.parent / "tests")]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from packing import packed  # noqa: E402
from seisbench_sets import Quirk, seisbench_quiet, write_set  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402

from benchmarks.peer_litdata import Litdata, installed  # noqa: E402
from dataloaders.contracts import Split  # noqa: E402
from dataloaders.labels import gaussian_labels  # noqa: E402
from dataloaders.normalise import prepare  # noqa: E402
from dataloaders.packed.encode import beyond  # noqa: E402
from dataloaders.packed.files import TRACES as TABLE  # noqa: E402
from dataloaders.sampler import TrainLoader  # noqa: E402
from dataloaders.sources.seisbench import SeisBench, SeisBenchConfig  # noqa: E402

TRACES, BATCH, ROUNDS = 1024, 32, 15
EPOCHS, COLD_ROUNDS, COLD = 3, 3, 256
SAMPLES, SIGMA = 4096, 20.0
START = (6000 - SAMPLES) // 2
ARRIVALS = {"trace_p_arrival_sample": "P", "trace_s_arrival_sample": "S"}


def timed(work, *args):
    """CPU seconds of this process (one thread), which other work on the machine disturbs least, and the result."""
    start = time.process_time()
    out = work(*args)
    return time.process_time() - start, out


class Ours:
    """Our reader over a set, original or packed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source = SeisBench(SeisBenchConfig(dataset_name=[str(folder)]), seed=0)
        self.part = self.source.part(Split.test)

    def read(self, traces):
        window = np.full(len(traces), START), np.full(len(traces), SAMPLES)
        return self.part.reader.read(traces, *window, SAMPLES)[0]

    def window(self, positions):
        return self.part.__getitems__([(0, position) for position in positions])

    def prepare(self, positions):
        batch, _ = prepare(self.window(positions), self.source.cfg)
        onsets = torch.tensor([[1500, 2300]]).expand(len(positions), 2) - START
        return batch, gaussian_labels(onsets, torch.tensor([[0, 1]]).expand_as(onsets), SAMPLES, SIGMA)

    def loader(self, workers: int) -> TrainLoader:
        return TrainLoader(self.part, BATCH, 0, num_workers=workers, persistent_workers=workers > 0)


class SeisBenchs:
    """SeisBench over the original set."""

    def __init__(self, folder: Path) -> None:
        import seisbench.data
        import seisbench.generate

        self.folder = folder
        self.dataset = seisbench.data.WaveformDataset(folder, component_order="ZNE", dimension_order="NCW")
        self.generator = seisbench.generate.GenericGenerator(self.dataset)
        self.generator.add_augmentations(
            [
                seisbench.generate.RandomWindow(low=START, high=START + SAMPLES, windowlen=SAMPLES),
                seisbench.generate.Normalize(demean_axis=-1, amp_norm_axis=-1, amp_norm_type="std"),
                seisbench.generate.ProbabilisticLabeller(label_columns=ARRIVALS, sigma=SIGMA, dim=0, model_labels="PSN"),
            ]
        )

    def read(self, traces):
        return [self.dataset.get_sample(int(trace))[0][:, START : START + SAMPLES] for trace in traces]

    def prepare(self, traces):
        return [self.generator[int(trace)] for trace in traces]

    window = prepare

    def loader(self, workers: int) -> DataLoader:
        return DataLoader(self.generator, BATCH, shuffle=True, num_workers=workers, drop_last=True)


def same(original: Ours, ours: Ours, theirs: SeisBenchs, peers: list[Litdata]) -> None:
    """What is compared is equal: bit by bit from the original set and litdata, within float16's bound from the packed one."""
    traces = np.arange(0, TRACES, 37)
    expect = np.stack(theirs.read(traces))
    for side in (original, *peers):
        np.testing.assert_array_equal(side.read(traces).transpose(0, 2, 1), expect)
    rows = np.load(ours.folder / TABLE)[traces]
    found = zip(expect, ours.read(traces).transpose(0, 2, 1), rows["scale"], rows["offset"], strict=True)
    assert not any(beyond(*each) for each in found)
    pieces = theirs.prepare(traces)
    for side, tolerance in ((original, 2e-4), (ours, 1e-2)):
        batch, labels = side.prepare(traces)
        np.testing.assert_allclose(batch.wave.transpose(1, 2), np.stack([piece["X"] for piece in pieces]), atol=tolerance)
        np.testing.assert_allclose(labels.transpose(1, 2), np.stack([piece["y"] for piece in pieces]), atol=1e-5)


def compare(what: str, sides: dict[str, Ours | Litdata], theirs: SeisBenchs, rng: np.random.Generator) -> list[str]:
    """A line a side: rates in samples per CPU-second, and the ratio."""
    works = {name: getattr(side, what) for name, side in sides.items()}
    slow, fast = getattr(theirs, what), {name: [] for name in sides}
    for _ in range(3):
        slow(np.arange(8)), [work(np.arange(BATCH)) for work in works.values()]
    slowly = []
    for _ in range(ROUNDS):
        chosen = rng.integers(0, TRACES, BATCH)
        for name, work in works.items():
            fast[name].append(statistics.median(timed(work, chosen)[0] for _ in range(5)) / BATCH)
        slowly.append(timed(slow, chosen)[0] / BATCH)
    return [line(f"{what}, {name}", times, slowly) for name, times in fast.items()]


def line(name: str, ours: list[float], theirs: list[float]) -> str:
    """Rates and ratios from seconds a sample."""
    ratios = sorted(b / a for a, b in zip(ours, theirs, strict=True))
    low, high = ratios[len(ratios) // 10], ratios[-1 - len(ratios) // 10]
    rates = 1 / statistics.median(ours), 1 / statistics.median(theirs)
    return f"{name:<22}{rates[0]:>12,.0f}{rates[1]:>14,.0f}{statistics.median(ratios):>9.1f} ×  ({low:.1f} – {high:.1f})"


def warm(sides: dict[str, Ours | Litdata], theirs: SeisBenchs, workers: int) -> list[str]:
    """A line a side: samples a second by the clock through a loader, epoch by epoch in turn."""
    loaders = {name: side.loader(workers) for name, side in sides.items()} | {"theirs": theirs.loader(workers)}
    seconds: dict[str, list[float]] = {name: [] for name in loaders}
    for epoch in range(EPOCHS + 1):
        for name, loader in loaders.items():
            begin = time.perf_counter()
            count = sum(1 for _ in loader)
            if epoch:  # the first one starts workers and opens files
                seconds[name].append((time.perf_counter() - begin) / count / BATCH)
    return [line(f"warm, {workers} workers, {name}", seconds[name], seconds["theirs"]) for name in sides]


def forget(folder: Path) -> None:
    """Ask the system to drop the files of a set from its page cache."""
    for path in folder.rglob("*"):
        if path.is_file():
            handle = os.open(path, os.O_RDONLY)
            os.fsync(handle)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)


def from_disk() -> int:
    """Bytes that this process made the system fetch from storage so far."""
    text = Path("/proc/self/io").read_text()
    return next(int(each.split()[1]) for each in text.splitlines() if each.startswith("read_bytes"))


def cold(sides: dict[str, Ours | Litdata], theirs: SeisBenchs, rng: np.random.Generator) -> list[str]:
    """A line a side: samples a second by the clock from files that are not in memory."""
    works: dict[str, tuple[Path, Callable]] = {name: (side.folder, side.window) for name, side in sides.items()}
    works["theirs"] = theirs.folder, theirs.window
    seconds: dict[str, list[float]] = {name: [] for name in works}
    fetched = dict.fromkeys(works, 0)
    for _ in range(COLD_ROUNDS):
        chosen = rng.permutation(TRACES)[:COLD]
        for name, (folder, work) in works.items():
            forget(folder)
            before, begin = from_disk(), time.perf_counter()
            for part in np.split(chosen, COLD // BATCH):
                work(part)
            seconds[name].append((time.perf_counter() - begin) / COLD)
            fetched[name] += from_disk() - before
    lines = []
    for name in sides:
        each = fetched[name] / COLD / COLD_ROUNDS / 1e3
        note = f"{each:.0f} kB a sample from the disk" if each > 5 else "not cold: the system kept the files"
        lines.append(f"{line(f'cold, {name}', seconds[name], seconds['theirs'])}  {note}")
    return lines


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as root, seisbench_quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        columns = {f"column_{number}": "value " for number in range(32)}
        folder = write_set(Path(root) / "original", Quirk(splits=("test",), extra=columns), traces=TRACES)
        sides = {"original": Ours(folder), "packed": Ours(packed(folder, Path(root) / "packed"))}
        theirs, rng = SeisBenchs(folder), np.random.default_rng(0)
        cut = {"traces": TRACES, "length": 6000, "start": START, "samples": SAMPLES, "batch": BATCH}
        peers = {"litdata": Litdata(folder, Path(root) / "litdata", **cut)} if installed() else {}
        same(*sides.values(), theirs, list(peers.values()))
        print(f"{TRACES} traces of 3 × 6000 float32, crops of {SAMPLES}; outputs equal, packed ones within float16")
        print(f"{'':<22}{'ours /s':>12}{'SeisBench /s':>14}{'ratio':>11}  (10 – 90 %)")
        for what in ("read", "window"):
            print("\n".join(compare(what, sides | peers, theirs, rng)), flush=True)
        print("\n".join(compare("prepare", sides, theirs, rng)), flush=True)
        for workers in (0, 1, 2):
            print("\n".join(warm(sides | peers, theirs, workers)), flush=True)
        print("\n".join(cold(sides | peers, theirs, rng)))


if __name__ == "__main__":
    main()
