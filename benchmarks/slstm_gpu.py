"""The sLSTM cell alone on a GPU, microseconds a token, forward and backward in bfloat16; every arm in a process of its own.

    python -m benchmarks.slstm_gpu [--shapes 4x4096x64 ...] [--arms triton native] [--repeats 10] [--json FILE]

Shapes are head width × tokens × sequences, always of four heads in two directions. Arms: our Triton kernels (``triton``) and our
PyTorch cell, eager (``native``), which launches some 28 kernels a token. A token after another is all that an sLSTM allows, so
microseconds a token are what counts, not bytes; ``GB/s`` says how far from them it is (gate inputs, h and what is kept, once
written and once read).

Times are CUDA events, medians; ``graph`` is forward + backward captured and replayed. ``error`` is against float64, forward and
the worst gradient, after the head norm, on the first eight sequences of 256 tokens.
"""

import argparse
import json
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.on_gpu import asked, captured, milliseconds
from models.xlstm.slstm_kernels import native

SHAPES = [
    "4x4096x64",
    "8x1024x64",
    "16x256x64",
    "16x4096x64",
    "32x1024x64",
    "64x256x64",
    "128x64x64",
    "16x1024x256",
    "64x256x256",
]
HEADS = 4
KEPT = 20
"""Bytes that the Triton forward keeps of a feature and token."""


def arm(name: str) -> Callable[..., Tensor]:
    """A cell: gate inputs ``P H B T 4 D``, recurrent matrix and bias to h; both run all directions forwards."""
    if name == "native":
        return native
    from models.xlstm.triton.slstm_op import slstm_triton

    return slstm_triton


def parsed(shape: str) -> tuple[int, int, int]:
    """Head width, tokens, sequences."""
    width, tokens, sequences = map(int, shape.split("x"))
    return width, tokens, sequences


def inputs(width: int, tokens: int, sequences: int) -> list[Tensor]:
    """Random gate inputs in bfloat16, weights in float32 (bfloat16's numbers), as leaves."""
    gen = torch.Generator("cuda").manual_seed(0)
    random = partial(torch.randn, generator=gen, device="cuda")
    recurrent = random(2, HEADS, width, 4, width) * (0.7 / width**0.5)
    bias = random(2, HEADS, 4, width)
    bias[:, :, 1] += 3.0
    x = random(2, HEADS, sequences, tokens, 4, width).bfloat16()
    return [a.requires_grad_() for a in (x, recurrent.bfloat16().float(), bias)]


def step(run: Callable[..., Tensor], x: list[Tensor], pull: Tensor) -> tuple[Tensor, ...]:
    """Forward and backward."""
    h = run(*x)
    return torch.autograd.grad(h, x, pull.to(h.dtype))


def errors(run: Callable[..., Tensor], x: list[Tensor]) -> tuple[float, float]:
    """Of h and of the worst gradient, after the head norm."""
    part = [x[0][:, :, :8, :256].detach(), *(a.detach() for a in x[1:])]
    results = []
    for cell, dtype in ((run, None), (native, torch.float64)):
        leaves = [a.to(dtype or a.dtype).requires_grad_() for a in part]
        h = cell(*leaves)
        h = F.layer_norm(h.to(dtype or torch.float32), h.shape[-1:], eps=1e-6)
        pull = torch.randn(h.shape, generator=torch.Generator("cuda").manual_seed(1), device="cuda").to(h)
        results.append([h, *torch.autograd.grad(h, leaves, pull)])
    found = [((a.double() - b).norm() / b.norm()).item() for a, b in zip(*results, strict=True)]
    return found[0], max(found[1:])


def measure(name: str, shape: str, repeats: int) -> dict:
    """Times of one arm at one shape, microseconds a token."""
    width, tokens, sequences = parsed(shape)
    x, run = inputs(width, tokens, sequences), arm(name)
    pull = torch.randn_like(x[0][..., 0, :])
    result: dict = {"arm": name, "shape": shape, "error": errors(run, x)}
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    result["both"] = milliseconds([partial(step, run, x, pull)], repeats)
    result["added_mib"] = (torch.cuda.max_memory_allocated() - before) / 2**20
    with torch.no_grad():
        result["forward"] = milliseconds([partial(run, *x)], repeats)
    if name == "triton":
        result["graph"] = milliseconds([captured(partial(step, run, x, pull))], repeats)
    return {key: [1e3 * ms / tokens for ms in a] if key in ("both", "forward", "graph") else a for key, a in result.items()}


def in_children(args: argparse.Namespace) -> list[dict]:
    """Every arm at every shape in a process of its own."""
    results = []
    for shape in args.shapes:
        for name in args.arms:
            repeats = str(args.repeats if name == "triton" else 3)
            words = ["--child", name, "--shapes", shape, "--repeats", repeats]
            results.append(asked("benchmarks.slstm_gpu", words, {"shape": shape, "arm": name}))
    return results


def table(results: list[dict]) -> None:
    """The short table, last."""
    print(f"\n{'D x T x B':14}{'arm':8}{'forward':>9}{'both':>9}{'graph':>9}{'GB/s':>7}{'MiB':>7}{'h':>9}{'gradient':>9}")
    for r in results:
        if "died" in r:
            print(f"{r['shape']:14}{r['arm']:8}died: {r['why'][:90]}")
            continue
        width, _, sequences = parsed(r["shape"])
        forward, both, graph = (statistics.median(r[key]) if key in r else float("nan") for key in ("forward", "both", "graph"))
        token = 2 * HEADS * width * sequences * (8 + 2 + KEPT + KEPT + 2 + 8)
        best = graph if "graph" in r else both
        print(
            f"{r['shape']:14}{r['arm']:8}{forward:9.2f}{both:9.2f}{graph:9.2f}{token / best / 1e3:7.0f}{r['added_mib']:7.0f}"
            f"{r['error'][0]:9.1e}{r['error'][1]:9.1e}"
        )
    print("microseconds a token")


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=SHAPES)
    parser.add_argument("--arms", nargs="+", default=["triton", "native"])
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(measure(args.child, args.shapes[0], args.repeats)))
        return
    print(f"torch {torch.__version__}, {torch.cuda.get_device_name()}, {2 * HEADS} rows a sequence (2 directions, {HEADS} heads)")
    results = in_children(args)
    if args.json:
        args.json.write_text(json.dumps(results))
    table(results)


if __name__ == "__main__":
    main()
