"""An hour of three components at 100 Hz through ``classify``: ours against SeisBench's PhaseNet and EQTransformer.

    python -m benchmarks.pick_continuous [--ours xlstm/small quickstart_finetune] [--checkpoint runs/…] [--batch 16]
                                         [--overlap 0.5] [--rounds 3] [--threads 1] [--device cpu|cuda|both]
                                         [--override model.d_model=16 …]

Ours are the networks of experiments (or checkpoints) as :mod:`evaluation.export` exports them; the others SeisBench's own
classes. Weights are random unless a checkpoint is given: they do not change what is computed, and thresholds of 0.9 keep the
number of picks, which are cut out of the probabilities on the CPU, small on every side. All get the same stream, the same overlap
(a share of the window: every sample is computed equally often), the same batch size and no blinding, in one process. The sides
take turns and the order rotates, so that whatever else the machine does meets all. The record is real where
WAVEXLSTM_REAL_DATA has ``continuous/``, otherwise noise: both cost the same.

CPU and wall seconds: medians over rounds; ratios are taken round by round: how many times more the other side costs.
"""

import argparse
import logging
import os
import statistics
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

RATE, HOUR = 100.0, 360_000
RECORD = "CI.CLC.20190704T17.mseed"
THRESHOLD = 0.9
SAMPLES = 4096
"""Window of our networks where no checkpoint says otherwise."""


class Cost(NamedTuple):
    """Of one hour, in seconds."""

    cpu: float
    wall: float


class Side(NamedTuple):
    """One model.

    Attributes:
        model: with SeisBench's ``classify``.
        given: arguments only it takes.
        costs: a round each.
    """

    model: Any
    given: dict[str, Any]
    costs: list[Cost]


def hour() -> tuple[Any, str]:
    """(an hour of three components as an ObsPy stream, what it is)."""
    import obspy

    root = os.environ.get("WAVEXLSTM_REAL_DATA")
    if root and (file := Path(root) / "continuous" / RECORD).is_file():
        stream = obspy.read(str(file))
        start = max(trace.stats.starttime for trace in stream)
        return stream.slice(start, start + (HOUR - 1) / RATE), RECORD
    generator = np.random.default_rng(0)
    header = {"network": "XX", "station": "SIM", "sampling_rate": RATE}
    traces = [
        obspy.Trace(generator.standard_normal(HOUR).astype(np.float32), {**header, "channel": f"HH{component}"})
        for component in "ZNE"
    ]
    return obspy.Stream(traces), "white noise"


def ours(experiment: str, overrides: list[str]) -> Any:
    """The exported model of an experiment with these overrides, with fresh weights."""
    from hydra import compose, initialize_config_dir

    from dataloaders.batch import PICK_CLASSES, DataSpec, Target
    from evaluation.export import bridge
    from tasks import build
    from utils.config import CONFIGS, plain
    from utils.overrides import lenient

    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = plain(compose("config", lenient([f"experiment={experiment}", *overrides])))
    build.check(config)
    return bridge(build.build_module(config, DataSpec(samples=SAMPLES, target=Target.picks, classes=PICK_CLASSES)))


def sides(args: argparse.Namespace) -> dict[str, Side]:
    """Every model by name; ours first."""
    import seisbench.models as theirs

    from evaluation.export import open_picker

    thresholds = {"P_threshold": THRESHOLD, "S_threshold": THRESHOLD}
    models = {name: ours(name, args.override) for name in args.ours} | {path: open_picker(path) for path in args.checkpoint}
    found = {name: Side(model, thresholds, []) for name, model in models.items()}
    found["PhaseNet"] = Side(theirs.PhaseNet(phases="PSN"), thresholds, [])
    found["EQTransformer"] = Side(theirs.EQTransformer(), {**thresholds, "detection_threshold": THRESHOLD}, [])
    return found


def once(side: Side, stream: Any, args: argparse.Namespace) -> Cost:
    """Pick the hour."""
    cpu, wall = time.process_time(), time.perf_counter()
    side.model.classify(stream, batch_size=args.batch, overlap=args.overlap, blinding=(0, 0), **side.given)
    return Cost(time.process_time() - cpu, time.perf_counter() - wall)


def demand_whole(side: Side, name: str, stream: Any, args: argparse.Namespace) -> None:
    """Raises AssertionError where a model does not annotate the whole hour: a side must not win by leaving some of it out.

    This is also what warms it up.
    """
    annotated = side.model.annotate(stream, batch_size=args.batch, overlap=args.overlap, blinding=(0, 0))
    for phase in "PS":
        samples = sum(np.isfinite(trace.data).sum() for trace in annotated.select(channel=f"*_{phase}"))
        if samples < 0.999 * len(stream[0]):
            raise AssertionError(f"{name} annotated {samples} of {len(stream[0])} samples with {phase}")


def compare(device: str, stream: Any, args: argparse.Namespace) -> list[str]:
    """Measure all sides in turns on a device; lines of its table."""
    running = sides(args)
    for name, side in running.items():
        side.model.to(device).eval()
        demand_whole(side, name, stream, args)
    names = list(running)
    for number in range(args.rounds):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            running[name].costs.append(once(running[name], stream, args))
    return [row for name in names for row in rows(device, name, running)]


def rows(device: str, name: str, running: dict[str, Side]) -> list[str]:
    """Costs of a model, and for ours how many times more the others cost."""
    side = running[name]
    parameters = sum(p.numel() for p in side.model.parameters())
    cpu, wall = (statistics.median(cost[column] for cost in side.costs) for column in (0, 1))
    least, most = (choose(cost.wall for cost in side.costs) for choose in (min, max))
    lines = [
        f"{device:<6}{name:<34}{parameters:>9,}{side.model.in_samples:>7}{cpu:>8.2f}{wall:>8.2f}  ({least:.2f} – {most:.2f})"
    ]
    if name in ("PhaseNet", "EQTransformer"):
        return lines
    for other in ("PhaseNet", "EQTransformer"):
        pairs = list(zip(side.costs, running[other].costs, strict=True))
        on_cpu, on_wall = (sorted(theirs[i] / mine[i] for mine, theirs in pairs) for i in (0, 1))
        middle = (statistics.median(ratios) for ratios in (on_cpu, on_wall))
        text = "".join(f"{ratio:>6.2f} ×" for ratio in middle) + f"  ({on_wall[0]:.2f} – {on_wall[-1]:.2f})"
        lines.append(f"{device:<6}  {other + ' costs':<50}{text}")
    return lines


def main() -> None:
    """Measure on the CPU and on a GPU where there is one, and print the table last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", nargs="*", default=["xlstm/small", "quickstart_finetune"], help="experiments")
    parser.add_argument("--override", nargs="*", default=[], help="settings of these experiments")
    parser.add_argument("--checkpoint", nargs="*", default=[], help="checkpoints, run folders or exports")
    parser.add_argument("--batch", type=int, default=16, help="windows at a time, on every side")
    parser.add_argument("--overlap", type=float, default=0.5, help="share of the window")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=["cpu", "cuda", "both"], default="both")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    stream, what = hour()
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])] if args.device == "both" else [args.device]
    load = os.getloadavg()[0]
    lines = [line for device in devices for line in compare(device, stream, args)]
    print(
        f"an hour of 3 × {RATE:g} Hz ({what}), overlap {args.overlap:g}, batch {args.batch}, {args.threads} thread(s), float32,"
    )
    print(f"{args.rounds} rounds after one to warm up; load {load:.1f} before, {os.getloadavg()[0]:.1f} after")
    print(f"{'':<6}{'':<34}{'weights':>9}{'window':>7}{'CPU s':>8}{'wall s':>8}  (least – most)")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
