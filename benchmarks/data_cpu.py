"""Reading and preparing windows against SeisBench, in one process, with equal outputs: python benchmarks/data_cpu.py

Writes a set of 3 × 6000 float32 traces with 40 metadata columns (as STEAD has) to a temporary folder with SeisBench's writer,
then measures side by side
  read     a crop of 4096 samples: ours (batches of 32) against ``WaveformDataset.get_sample`` and slicing
  prepare  crop, demean and std normalisation, Gaussian labels: ours on the batch against ``GenericGenerator``'s pipeline
           (RandomWindow, Normalize, ProbabilisticLabeller); both cut the same window, so that outputs can be compared
The two sides alternate within a run and CPU time is counted; the table gives medians and spreads of their ratios.
"""

import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent.parent / "tests")]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from seisbench_sets import Quirk, seisbench_quiet, write_set  # noqa: E402

from dataloaders.contracts import Split  # noqa: E402
from dataloaders.labels import gaussian_labels  # noqa: E402
from dataloaders.normalise import prepare  # noqa: E402
from dataloaders.sources.seisbench import SeisBench, SeisBenchConfig  # noqa: E402

TRACES, BATCH, ROUNDS = 1024, 32, 21
SAMPLES, SIGMA = 4096, 20.0
START = (6000 - SAMPLES) // 2
ARRIVALS = {"trace_p_arrival_sample": "P", "trace_s_arrival_sample": "S"}


def timed(work, *args):
    """CPU seconds of this process (one thread), which other work on the machine disturbs least, and the result."""
    start = time.process_time()
    out = work(*args)
    return time.process_time() - start, out


class Sides:
    """Both readers over the same set."""

    def __init__(self, folder: Path) -> None:
        import seisbench.data
        import seisbench.generate

        self.source = SeisBench(SeisBenchConfig(dataset_name=[str(folder)]), seed=0)
        self.part = self.source.part(Split.test)
        self.theirs = seisbench.data.WaveformDataset(folder, component_order="ZNE", dimension_order="NCW")
        self.generator = seisbench.generate.GenericGenerator(self.theirs)
        self.generator.add_augmentations(
            [
                seisbench.generate.RandomWindow(low=START, high=START + SAMPLES, windowlen=SAMPLES),
                seisbench.generate.Normalize(demean_axis=-1, amp_norm_axis=-1, amp_norm_type="std"),
                seisbench.generate.ProbabilisticLabeller(label_columns=ARRIVALS, sigma=SIGMA, dim=0, model_labels="PSN"),
            ]
        )

    def read_ours(self, traces):
        window = np.full(len(traces), START), np.full(len(traces), SAMPLES)
        return self.part.reader.read(traces, *window, SAMPLES)[0]

    def read_theirs(self, traces):
        return [self.theirs.get_sample(int(trace))[0][:, START : START + SAMPLES] for trace in traces]

    def prepare_ours(self, positions):
        batch, _ = prepare(self.part.__getitems__([(0, position) for position in positions]), self.source.cfg)
        onsets = torch.tensor([[1500, 2300]]).expand(len(positions), 2) - START
        return batch, gaussian_labels(onsets, torch.tensor([[0, 1]]).expand_as(onsets), SAMPLES, SIGMA)

    def prepare_theirs(self, traces):
        return [self.generator[int(trace)] for trace in traces]


def compare(name: str, ours, theirs, rng: np.random.Generator) -> str:
    for _ in range(3):
        ours(np.arange(BATCH)), theirs(np.arange(8))
    fast, slow = [], []
    for _ in range(ROUNDS):
        chosen = rng.integers(0, TRACES, BATCH)
        fast.append(statistics.median(timed(ours, chosen)[0] for _ in range(5)) / BATCH)
        slow.append(timed(theirs, chosen)[0] / BATCH)
    ratios = sorted(b / a for a, b in zip(fast, slow, strict=True))
    low, high = ratios[len(ratios) // 10], ratios[-1 - len(ratios) // 10]
    ours_rate, theirs_rate = 1 / statistics.median(fast), 1 / statistics.median(slow)
    return f"{name:<10}{ours_rate:>12,.0f}{theirs_rate:>14,.0f}{statistics.median(ratios):>9.1f} ×  ({low:.1f} – {high:.1f})"


def same(sides: Sides) -> None:
    traces = np.arange(0, TRACES, 37)
    expect = np.stack(sides.read_theirs(traces))
    np.testing.assert_array_equal(sides.read_ours(traces).transpose(0, 2, 1), expect)
    batch, labels = sides.prepare_ours(traces)
    pieces = sides.prepare_theirs(traces)
    np.testing.assert_allclose(batch.wave.transpose(1, 2), np.stack([piece["X"] for piece in pieces]), atol=2e-4)
    np.testing.assert_allclose(labels.transpose(1, 2), np.stack([piece["y"] for piece in pieces]), atol=1e-5)


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, seisbench_quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sides = Sides(
            write_set(
                Path(folder), Quirk(splits=("test",), extra={f"column_{number}": "value " for number in range(32)}), traces=TRACES
            )
        )
        same(sides)
        rng = np.random.default_rng(0)
        lines = [
            compare("read", sides.read_ours, sides.read_theirs, rng),
            compare("prepare", sides.prepare_ours, sides.prepare_theirs, rng),
        ]
    print(f"{TRACES} traces of 3 × 6000 float32, crops of {SAMPLES}, one process, one thread; outputs equal; {ROUNDS} rounds")
    print(f"{'':<10}{'ours /s':>12}{'SeisBench /s':>14}{'ratio':>11}  (10 – 90 %)")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
