"""Inference over windows of 41 s to an hour: samples a second and memory against the length of the window.

    python -m benchmarks.long_windows [lengths=[4096,32768,360000]] [arms=[sequential,…]] [rounds=2] [threads=1]
                                      [device=auto|cpu|cuda] [d_model=32] [n_layers=4] [kernels=auto] [plot=file.png]

Arms, all in evaluation mode with random weights, encoder of stride 4 and a picker's head:

    sequential       n_layers bidirectional mLSTM blocks in a row, in pieces as Network.forward takes long windows
    sequential-once  the same with everything at once, which is what training does
    unet, unet-once  n_layers blocks at each stage of a U-Net of pools 4, 4
    one-way          the row of blocks in one direction, which can run on a live stream
    stream           the same fed a second at a time from state to state

Every arm and length is a process of its own: added memory is the rise of its peak above what it held before the first window
(resident set on a CPU, allocated on a GPU). CPU seconds of the process, on a GPU wall seconds: median of rounds, with the least
and the most; one window, or one station.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models import network as networks
from models import streaming
from models.contracts import BACKBONES, DECODERS, ENCODERS
from models.network import Network
from models.xlstm import stack
from utils import cli
from utils.errors import ConfigError
from utils.registry import import_parts

ARMS = ("sequential", "sequential-once", "unet", "unet-once", "one-way", "stream")
SECOND = 100
BELOW_ALL = 10**12


@dataclass(kw_only=True)
class Arguments:
    """See the top of the file."""

    lengths: list[int] = field(default_factory=lambda: [4096, 32_768, 360_000])
    """Samples of a window."""
    arms: list[str] = field(default_factory=lambda: list(ARMS))
    """What is measured."""
    rounds: int = 2
    """Repetitions; on a GPU after one to warm up."""
    threads: int = 1
    """On a CPU."""
    device: str = "auto"
    """auto, cpu or cuda."""
    d_model: int = 32
    """Features of a token."""
    n_layers: int = 4
    """Blocks in a row, or a stage of the U-Net."""
    kernels: str = "auto"
    """Backend of the mLSTM."""
    plot: str = ""
    """File of the figure."""
    child: str = ""
    """JSON of (arm, length): measure this alone and print it."""


def network(arm: str, args: Arguments) -> Network:
    """The network of an arm."""
    for room in ("encoders", "backbones", "decoders"):
        import_parts(f"models.{room}")
    torch.manual_seed(0)
    backbone = BACKBONES.build(
        {
            "_name_": "xlstm-unet", "d_model": args.d_model, "n_layers": args.n_layers, "residual": True, "pool": [4, 4],
            "use_unet": arm.startswith("unet"), "bidirectional": arm not in ("one-way", "stream"), "kernels": args.kernels,
        }
    )  # fmt: skip
    encoder = ENCODERS.build({"_name_": "bidir-autoreg-encoder"}, d_in=3, d_out=args.d_model)
    decoder = DECODERS.build({"_name_": "double-conv-phase-pick"}, d_in=args.d_model, d_out=3, stride=4, d_wave=3)
    return Network(encoder, backbone, decoder).eval()


def streamed(net: Network, wave: Tensor) -> tuple[int, ...]:
    """A second of samples at a time, whose predictions nobody keeps; the shape of all together."""
    state, given = net.start(wave), 0
    for piece in wave.split(SECOND, 1):
        y, state = net.step(piece, state)
        given += y.shape[1]
    y = net.finish(state)
    return len(y), given + y.shape[1], y.shape[2]


@torch.inference_mode()
def measured(arm: str, length: int, args: Arguments) -> dict[str, Any]:
    """Seconds of every round and added bytes, of one arm at one length, in this process."""
    torch.set_num_threads(args.threads)
    if arm.endswith("-once"):
        stack.PIECE = streaming.LONG = networks.LONG = BELOW_ALL
    device = torch.device("cuda" if args.device == "auto" and torch.cuda.is_available() else args.device.replace("auto", "cpu"))
    net = network(arm, args).to(device)
    run: Callable[[Tensor], tuple[int, ...]] = partial(streamed, net) if arm == "stream" else lambda wave: tuple(net(wave).shape)
    wave = torch.randn(1, length, 3, device=device)
    run(wave[:, :512])  # libraries are loaded
    before, on_gpu = peak(device), device.type == "cuda"
    clock = time.perf_counter if on_gpu else time.process_time
    times = []
    for _ in range(args.rounds + on_gpu):
        begin = clock()
        shape = run(wave)
        if on_gpu:
            torch.cuda.synchronize()
        times.append(clock() - begin)
        if shape != (1, length, 3):
            raise AssertionError(f"{arm} gave {shape} for {length} samples")
    return {"arm": arm, "length": length, "seconds": times[on_gpu:], "added": peak(device) - before, "device": device.type}


def peak(device: torch.device) -> int:
    """Bytes, so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def child(arm: str, length: int) -> dict[str, Any]:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.long_windows", *sys.argv[1:], f"child='{json.dumps([arm, length])}'"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{arm} at {length} samples failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def table(found: list[dict[str, Any]], args: Arguments) -> list[str]:
    """Rows of arms, a column a length."""
    lines = [f"{'':<17}" + "".join(f"{length:>24,}" for length in args.lengths) + "   samples"]
    for title, cell in (("1000 samples/s, median (least – most)", rate), ("added memory, MiB", memory)):
        lines.append(title)
        for arm in args.arms:
            by_length = {one["length"]: one for one in found if one["arm"] == arm}
            lines.append(f"  {arm:<15}" + "".join(f"{cell(by_length[length]):>24}" for length in args.lengths))
    return lines


def rate(one: dict[str, Any]) -> str:
    """Thousands of samples a second."""
    middle, most, least = (one["length"] / choose(one["seconds"]) / 1e3 for choose in (statistics.median, min, max))
    return f"{middle:.0f} ({least:.0f} – {most:.0f})"


def memory(one: dict[str, Any]) -> str:
    """Added MiB."""
    return f"{one['added'] / 2**20:.0f}"


def draw(found: list[dict[str, Any]], args: Arguments) -> None:
    """Throughput and added memory against the length of the window."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    colors = dict(zip(dict.fromkeys(arm.removesuffix("-once") for arm in args.arms), plt.cm.tab10.colors, strict=False))
    for arm in args.arms:
        rows = [one for one in found if one["arm"] == arm]
        style = {"color": colors[arm.removesuffix("-once")], "ls": "--" if arm.endswith("-once") else "-", "marker": "o", "ms": 4}
        lengths = [one["length"] for one in rows]
        left.plot(lengths, [one["length"] / statistics.median(one["seconds"]) for one in rows], **style)
        right.plot(lengths, [max(one["added"] / 2**20, 0.1) for one in rows], label=arm, **style)
    left.set(ylabel="samples a second", title="Throughput")
    right.set(ylabel="MiB above what the process held", title="Added memory")
    for axes in (left, right):
        axes.set(xscale="log", yscale="log", xlabel="samples of the window (100 Hz: 360,000 are an hour)")
        axes.grid(alpha=0.3)
    right.legend(fontsize=8)
    figure.suptitle(f"{args.n_layers} mLSTM blocks, D {args.d_model}, one window, {found[0]['device'].upper()}")
    figure.savefig(args.plot, dpi=150)


def main(args: Arguments) -> None:
    """Measure every arm at every length, and print the table last."""
    if args.child:
        arm, length = json.loads(args.child)
        print(json.dumps(measured(arm, length, args)))
        return
    unknown = [arm for arm in args.arms if arm not in ARMS]
    if unknown or min([*args.lengths, args.rounds]) < 1:
        raise ConfigError([f"arms = {args.arms}, lengths = {args.lengths}: arms are {', '.join(ARMS)}, lengths at least 1"])
    load = os.getloadavg()[0]
    found = []
    for length in args.lengths:
        for arm in args.arms:
            found.append(child(arm, length))
            print(f"{arm} {length}: {rate(found[-1])} thousand samples/s, {memory(found[-1])} MiB", flush=True)
    if args.plot:
        draw(found, args)
        print(f"figure: {Path(args.plot)}")
    loads = f"load {load:.1f} before, {os.getloadavg()[0]:.1f} after"
    parameters = {arm: sum(p.numel() for p in network(arm, args).parameters()) for arm in args.arms}
    print(f"\n{found[0]['device']}, {args.threads} thread(s), float32, {args.rounds} rounds; {loads}")
    print("parameters: " + ", ".join(f"{arm} {count:,}" for arm, count in parameters.items()))
    print("\n".join(table(found, args)))


if __name__ == "__main__":
    cli.run(main, Arguments, where="long_windows")
