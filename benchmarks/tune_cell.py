"""Each mLSTM kernel alone on a GPU, by tile, warps, stages and chunk: what to write into models/xlstm/triton/launch.py.

    python -m benchmarks.tune_cell [--shapes 64x1024 96x1024 128x256 256x64] [--rows 512] [--top 4] [--repeats 20]

Bfloat16, natural layout ``P B T H D``, two directions. For every kernel the launch that is in use, then the fastest others;
tiles that do not fit the shared memory are left out. Compiling takes most of the time, one or two minutes a shape: name one
shape a call where time is short. ``GB/s`` counts what the kernel must move once.
"""

import argparse
import statistics
from itertools import product

import torch
import triton

from models.xlstm.triton.launch import (
    Call,
    Cell,
    Launch,
    Tile,
    backward_calls,
    forward_calls,
    launch_for,
    padded,
    stats_like,
    using,
)
from models.xlstm.triton.op import run_calls

PASSES = {"forward_scan": 4, "query_scan": 6, "key_value_scan": 6, "gates_forward": 0, "gates_backward": 0}
"""Passes over q of every kernel: operands read and results written."""


def milliseconds(call: Call, repeats: int) -> float:
    """Median of a launch by events, after warm-up."""
    times = []
    device = torch.device("cuda")
    for j in range(repeats + 3):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run_calls([call], device)
        end.record()
        end.synchronize()
        if j >= 3:
            times.append(begin.elapsed_time(end))
    return statistics.median(times)


def launches(width: int, tokens: int) -> list[Launch]:
    """All that might be worth trying; every scan with the same tile."""
    widths = [w for w in (32, 64, 128, 256) if w <= padded(width)] or [padded(width)]
    tiles = [
        Tile(w, warps, stages, L) for w, warps, stages, L in product(widths, (4, 8), (1, 2), (32, 64)) if tokens >= L or L == 32
    ]
    return [Launch(tile, tile, tile) for tile in tiles]


def tensors(width: int, tokens: int, rows: int) -> dict[str, torch.Tensor]:
    """Random operands of two directions and four heads."""
    shape = (2, max(rows // 8, 1), tokens, 4, width)
    made = {
        name: torch.randn(shape, device="cuda").bfloat16().transpose(2, 3)
        for name in ("q", "k", "v", "h", "dh", "dq", "dk", "dv")
    }
    gates = {name: torch.randn(made["q"].shape[:-1], device="cuda") for name in ("i", "f", "di", "df")}
    gates["f"] += 4.5
    return {**made, **gates, "stats": stats_like(made["q"])}


def calls(x: dict[str, torch.Tensor]) -> list[Call]:
    """All kernels, in order."""
    cell = Cell(1, 15.0, 1e-6)
    before, after = (tuple(x[prefix + name] for name in "qkvif") for prefix in ("", "d"))
    forward = forward_calls(x["q"], x["k"], x["v"], x["i"], x["f"], x["h"], x["stats"], cell)
    return forward + backward_calls(before, x["h"], x["stats"], x["dh"], after, cell)


def tried(x: dict[str, torch.Tensor], launch: Launch, repeats: int) -> dict[str, float]:
    """Milliseconds of every kernel that fits."""
    times = {}
    with using(launch):
        for call in calls(x):
            try:
                times[call.kernel.__name__] = milliseconds(call, repeats)
            except (triton.runtime.errors.OutOfResources, triton.runtime.errors.PTXASError):
                continue
    return times


def main() -> None:
    """Try, then print one table a shape."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=["64x1024", "96x1024", "128x256", "256x64"])
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--top", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=20)
    args = parser.parse_args()
    print(f"Triton {triton.__version__}, {torch.cuda.get_device_name()}, {args.rows} rows")
    for shape in args.shapes:
        width, tokens = map(int, shape.split("x"))
        x = tensors(width, tokens, args.rows)
        used = launch_for(width, tokens, torch.bfloat16)
        results = [(launch, tried(x, launch, args.repeats)) for launch in [used, *launches(width, tokens)]]
        print(f"\n{shape}", flush=True)
        for name, passes in PASSES.items():
            ranked = sorted(((t[name], launch) for launch, t in results[1:] if name in t), key=lambda pair: pair[0])
            moved = passes * x["q"].numel() * 2
            lines = [("in use", results[0][1].get(name, float("nan")), used)]
            lines += [("", t, launch) for t, launch in ranked[: args.top if passes else 0]]
            for label, t, launch in lines:
                tile = {"forward_scan": launch.forward, "query_scan": launch.query}.get(name, launch.key_value)
                print(f"  {name:16}{label:8}{t:8.3f} ms {moved / t / 1e6 if passes else 0:7.0f} GB/s   {tile if passes else ''}")


if __name__ == "__main__":
    main()
