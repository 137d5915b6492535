"""The mLSTM cell alone on a GPU, forward + backward in bfloat16, by length and head width; every arm in processes of its own.

    python -m benchmarks.cell_gpu [--shapes 64x1024 ...] [--rows N] [--arms triton native compiled ...] [--json FILE]

Shapes are head width × tokens; a row is one head of one sequence in one direction. Arms: ours (``triton``), our PyTorch form
eager and compiled, and the chunk kernels of mlstm_kernels where it is installed (head widths that are powers of two, lengths
of whole chunks: others they compute wrongly or refuse). An arm that dies at a shape loses that shape only.

Times are CUDA events around forward and backward, on inputs that rotate and together do not fit the cache; ``graph`` is the
same captured and replayed, which is how a training step runs it. ``floor`` is the larger of counted bytes (each operand and
gradient once: 12 passes over q, and the gates) at 4.3 TB/s and counted products at 790 TFLOP/s, as measured on an H200.
``error`` is against float64 on two rows, forward, after the head norm. No soft cap (mlstm_kernels has none; ours costs the same).
"""

import argparse
import json
import statistics
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.on_gpu import asked, captured, milliseconds
from models.xlstm.mlstm import mlstm

BYTES, FLOPS = 4.3e12, 790e12
SHAPES = ["64x64", "64x256", "64x1024", "64x4096", "64x16384", "96x1024", "128x64", "128x256", "128x1024", "256x64", "256x1024"]
PEERS = ["chunkwise--triton_xl_chunk", "chunkwise--triton_limit_chunk"]
Run = Callable[..., Tensor]


def arm(name: str) -> Run:
    """A cell: q, k, v ``B H T D``, i, f ``B H T`` to h."""
    if name == "triton":
        from models.xlstm.triton.op import mlstm_triton

        return partial(mlstm_triton, soft_cap=None)
    if name in ("native", "compiled"):
        run = partial(mlstm, soft_cap=None)
        return torch.compile(run) if name == "compiled" else run
    from mlstm_kernels.torch import get_mlstm_kernel

    cell = get_mlstm_kernel(name)

    def peer(q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor) -> Tensor:
        return cell(q=q, k=k, v=v, i=i, f=f, chunk_size=64, eps=1e-6, autocast_kernel_dtype=torch.bfloat16)

    return peer


def parsed(shape: str) -> tuple[int, int]:
    """Head width and tokens."""
    width, tokens = map(int, shape.split("x"))
    return width, tokens


def rows_of(tokens: int, asked: int) -> int:
    """As many as the large experiments have, at least enough to fill a GPU while memory allows."""
    return asked or max(32, min(1024, 2**19 // tokens))


def floor(width: int, tokens: int, rows: int) -> tuple[float, str]:
    """Seconds that counted bytes or products need, and which decides."""
    every = rows * tokens
    length = min(64, tokens)
    past = 14 * width * width if tokens > 64 else 0
    moved = every * (12 * width * 2 + 4 * 6) / BYTES
    multiplied = every * (14 * length * width + past) / FLOPS
    return (moved, "bytes") if moved > multiplied else (multiplied, "products")


def inputs(width: int, tokens: int, rows: int, seed: int) -> list[Tensor]:
    """Random q, k, v in bfloat16, gates in float32 with forget gates mostly open, as leaves."""
    gen = torch.Generator("cuda").manual_seed(seed)
    heads = 4 if rows % 4 == 0 else 1
    shape = (rows // heads, heads, tokens)
    qkv = [torch.randn(*shape, width, generator=gen, device="cuda").bfloat16() for _ in range(3)]
    gates = [torch.randn(shape, generator=gen, device="cuda") + shift for shift in (0.0, 4.5)]
    return [x.requires_grad_() for x in (*qkv, *gates)]


def step(run: Run, x: list[Tensor], pull: Tensor) -> tuple[Tensor, ...]:
    """Forward and backward."""
    return torch.autograd.grad(run(*x), x, pull)


def error(run: Run, x: list[Tensor]) -> float:
    """Relative error of the first sequence after the head norm."""
    h = run(*x)[:1].double()
    expected = mlstm(*(a[:1].detach().double() for a in x), soft_cap=None)
    got, expected = (F.layer_norm(a, a.shape[-1:], eps=1e-6) for a in (h, expected))
    return ((got - expected).norm() / expected.norm()).item()


def measure(name: str, shape: str, args: argparse.Namespace) -> dict:
    """Times of one arm at one shape."""
    width, tokens = parsed(shape)
    rows = rows_of(tokens, args.rows)
    sets = max(2, min(8, -(-(2**28) // (rows * tokens * width * 8))))
    batches = [inputs(width, tokens, rows, seed) for seed in range(sets)]
    pull, run = torch.randn_like(batches[0][2]), arm(name)
    result = {"arm": name, "shape": shape, "rows": rows, "error": error(run, batches[0])}
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work: list[Callable[[], object]] = [partial(step, run, x, pull) for x in batches]
    result["eager"] = milliseconds(work, args.repeats)
    result["added_mib"] = (torch.cuda.max_memory_allocated() - before) / 2**20
    with torch.no_grad():
        result["forward"] = milliseconds([partial(run, *x) for x in batches], args.repeats)
    try:
        result["graph"] = milliseconds([captured(one) for one in work], args.repeats)
    except RuntimeError as reason:  # an arm that synchronises cannot be captured
        result["no_graph"] = str(reason).splitlines()[0]
    return result


def in_children(args: argparse.Namespace) -> list[dict]:
    """Every arm at every shape in a process of its own."""
    results = []
    for shape in args.shapes:
        for name in args.arms:
            width, tokens = parsed(shape)
            if name in PEERS and (width & (width - 1) or tokens % 64):
                continue
            words = ["--child", name, "--shapes", shape, "--rows", str(args.rows), "--repeats", str(args.repeats)]
            extra = {"DISABLE_LLVM_OPT": "1"} if name in PEERS else {}  # else their compilation aborts on Triton 3.6
            results.append(asked("benchmarks.cell_gpu", words, {"shape": shape, "arm": name}, extra))
            if args.json:  # again after every arm: a run cut short keeps what it measured
                args.json.write_text(json.dumps(results))
    return results


def table(results: list[dict]) -> None:
    """The short table, last."""
    times = f"{'forward':>9}{'eager':>9}{'graph':>9}{'10 %':>8}{'90 %':>8}{'floor':>8}{'share':>7}"
    print(f"\n{'D x T':10}{'rows':>6} {'arm':32}{times}{'MiB':>7}{'error':>9}")
    for r in results:
        if "died" in r:
            print(f"{r['shape']:10}{'':6} {r['arm']:32}died: {r['why'][:80]}")
            continue
        best = sorted(r.get("graph", r["eager"]))
        low, high = best[len(best) // 10], best[-1 - len(best) // 10]
        forward, eager, graph = (statistics.median(r[key]) if key in r else float("nan") for key in ("forward", "eager", "graph"))
        least, _ = floor(*parsed(r["shape"]), r["rows"])
        share = 1e3 * least / statistics.median(best)
        print(
            f"{r['shape']:10}{r['rows']:6} {r['arm']:32}{forward:9.3f}{eager:9.3f}{graph:9.3f}{low:8.3f}{high:8.3f}"
            f"{1e3 * least:8.3f}{share:7.0%}{r['added_mib']:7.0f}{r['error']:9.1e}"
        )
    print("milliseconds; share of the floor by graph where there is one, else eager")


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=SHAPES)
    parser.add_argument("--rows", type=int, default=0, help="0: as the large experiments have, by length")
    parser.add_argument("--arms", nargs="+", default=["triton", "native", "compiled", *PEERS])
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(measure(args.child, args.shapes[0], args)))
        return
    if find_spec("mlstm_kernels") is None:
        args.arms = [name for name in args.arms if name not in PEERS]
        print("mlstm_kernels is not installed: its arms are left out")
    print(f"torch {torch.__version__}, {torch.cuda.get_device_name()}")
    table(in_children(args))


if __name__ == "__main__":
    main()
