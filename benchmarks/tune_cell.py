"""Each mLSTM kernel alone on a GPU, by tile, warps, stages and registers: what to write into models/xlstm/triton/launch.py.

    python -m benchmarks.tune_cell [--shapes 64x1024 96x1024 128x256 256x64] [--rows 512] [--top 4] [--repeats 20] [--chunk 64]

Bfloat16, natural layout ``P B T H D``, two directions. For every kernel the launch that is in use, then the fastest others;
tiles that do not fit the shared memory are left out. A kernel's tiles are tried beside any of the others', so there are no more
launches than the longest list has tiles. ``GB/s`` counts what the kernel must move once.
"""

import argparse
import statistics
from itertools import product, zip_longest

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

KERNELS = {"forward_scan": "forward", "state_scan": "scan", "chunk_gradients": "gradients"}
"""Kernels that have a tile, by the name of their field in a launch."""
GATES = ("gates_forward", "gates_backward")


def passes(name: str, width: int, tokens: int, chunk: int) -> float:
    """Passes over q of a kernel: operands read and results written, states at the borders of chunks included."""
    chunks = -(-tokens // chunk)
    states = 2 * (chunks - 1) * width / tokens
    return {"forward_scan": 4, "state_scan": 5 + states, "chunk_gradients": 7 + (chunks == 1) + states}.get(name, 0)


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


def launches(width: int, chunk: int) -> list[Launch]:
    """All that might be worth trying, every kernel's tiles side by side."""
    widths = [w for w in (32, 64) if w <= padded(width)] or [padded(width)]
    wide = [w for w in (*widths, 128) if w <= padded(width)]
    forward = [Tile(w, 4, stages) for w, stages in product(widths, (1, 2, 3))]
    limits = (None, 128, 168) if width == padded(width) else (None,)
    scan = [Tile(w, 4, stages, chunk) for w, stages in product(widths, (2, 3, 4))]
    scan += [Tile(w, 4, 2, chunk, registers) for w, registers in product(widths, limits[1:])]
    four = [Tile(w, 4, 1, chunk, registers) for w, registers in product(wide, limits)]
    gradients = four + [Tile(w, 8, 1, chunk) for w in wide if w >= 64]
    sides = zip_longest(forward, scan, gradients)
    return [Launch(a or forward[0], b or scan[0], c or gradients[0]) for a, b, c in sides]


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
    parser.add_argument("--chunk", type=int, default=64, choices=[16, 32, 64])
    args = parser.parse_args()
    print(f"Triton {triton.__version__}, {torch.cuda.get_device_name()}, {args.rows} rows, others' chunks {args.chunk}")
    for shape in args.shapes:
        width, tokens = map(int, shape.split("x"))
        x = tensors(width, tokens, args.rows)
        used = launch_for(width, tokens, torch.bfloat16)
        in_use, others = tried(x, used, args.repeats), {name: {} for name in KERNELS}
        for launch in launches(width, args.chunk):
            for name, t in tried(x, launch, args.repeats).items():
                if name in KERNELS:
                    others[name].setdefault(getattr(launch, KERNELS[name]), t)
        print(f"\n{shape}", flush=True)
        for name in GATES:
            print(f"  {name:16}in use  {in_use[name]:8.3f} ms")
        for name, field in KERNELS.items():
            lines = [("in use", getattr(used, field), in_use.get(name, float("nan")))]
            lines += [("", tile, t) for tile, t in sorted(others[name].items(), key=lambda pair: pair[1])[: args.top]]
            for label, tile, t in lines if name in in_use or others[name] else ():
                rate = passes(name, width, tokens, tile.chunk) * x["q"].numel() * 2 / t / 1e6
                print(f"  {name:16}{label:8}{t:8.3f} ms {rate:7.0f} GB/s   {tile}")


if __name__ == "__main__":
    main()
