"""The mLSTM cell on one CPU thread: forward + backward a token, against xlstm's and mlstm_kernels' native forms, in one run.

    python -m benchmarks.cells_cpu [--lengths 64 256 1024 4096] [--tokens 4096] [--heads 4] [--width 64] [--rounds 15]

Every length gets the same number of tokens a call, as in a U-Net's stages, so shorter sequences come in larger batches;
``--tokens 0`` takes one sequence at a time. All candidates take turns within a round, so that whatever else the machine does
meets all of them. CPU seconds of the thread; ratios are taken round by round (median, 10 % and 90 % quantile over rounds).
Random data, no soft cap (the others have none), three rounds of warm-up.
"""

import argparse
import logging
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from models.xlstm.mlstm import mlstm

Run = Callable[..., Tensor]
QUADRATIC_LIMIT = 4096
"""Longest sequence given to quadratic forms: their matrices take H·T² floats each."""


@dataclass(frozen=True)
class Candidate:
    """A cell: q, k, v ``B H T D``, i, f ``B H T`` to h."""

    name: str
    run: Run
    quadratic: bool


def _xlstm() -> list[Candidate]:
    from xlstm.blocks.mlstm.backends import chunkwise_simple, parallel_stabilized_simple

    def parallel(q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor) -> Tensor:
        return parallel_stabilized_simple(q, k, v, i[..., None], f[..., None])

    def chunkwise(q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor) -> Tensor:
        return torch.as_tensor(chunkwise_simple(q, k, v, i, f, chunk_size=64))

    return [
        Candidate("xlstm parallel (its default)", parallel, True),
        Candidate("xlstm chunkwise_simple", chunkwise, False),
    ]


def _kernels() -> list[Candidate]:
    from mlstm_kernels.torch import get_available_mlstm_kernels

    names = [name for name in get_available_mlstm_kernels() if "triton" not in name and "siging" not in name]
    return [_of_kernels(name) for name in names]  # triton needs a GPU; siging is another gate, hence another cell


def _of_kernels(name: str) -> Candidate:
    from mlstm_kernels.torch import get_mlstm_kernel

    cell = get_mlstm_kernel(name)
    extra: dict = {"autocast_kernel_dtype": torch.float32} if "custbw" in name else {}
    if name.startswith("chunkwise"):
        extra["chunk_size"] = 64

    def run(q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor) -> Tensor:
        return cell(q=q, k=k, v=v, i=i, f=f, **extra)

    return Candidate(f"mlstm_kernels {name}", run, name.startswith("parallel"))


def seconds(run: Run, inputs: list[Tensor], pull: Tensor) -> float:
    """CPU seconds of forward and backward, once."""
    for x in inputs:
        x.grad = None
    start = time.process_time()
    run(*inputs).backward(pull)
    return time.process_time() - start


def compare(candidates: list[Candidate], T: int, args: argparse.Namespace) -> tuple[float, float]:
    """Print a table for one length; returns how much slower xlstm's default and the best of the others are than ours."""
    B, H, D = max(args.tokens // T, 1), args.heads, args.width
    gen = torch.Generator().manual_seed(T)
    inputs = [torch.randn(B, H, T, D, generator=gen).requires_grad_() for _ in range(3)]
    inputs += [torch.randn(B, H, T, generator=gen).requires_grad_(), (torch.randn(B, H, T, generator=gen) + 4.5).requires_grad_()]
    pull = torch.randn(B, H, T, D, generator=gen)
    running = [c for c in candidates if T <= QUADRATIC_LIMIT or not c.quadratic]
    expected = running[0].run(*inputs).detach()
    for c in running[1:]:
        worst = (c.run(*inputs).detach() - expected).norm() / expected.norm()
        if not worst < 1e-2:
            raise AssertionError(f"{c.name} computes something else at T {T}: relative difference {worst:.2e}")
    rounds = [[seconds(c.run, inputs, pull) for c in running] for _ in range(args.rounds + 3)][3:]
    print(f"\nT {T}, batch {B}, {H} heads of {D}, {args.rounds} rounds\n{'':45}µs a token     times ours (10 %, 90 %)")
    ratios = []
    for j, c in enumerate(running):
        micro = statistics.median(r[j] for r in rounds) / (B * T) * 1e6
        each = sorted(r[j] / r[0] for r in rounds)
        low, high = each[len(each) // 10], each[-1 - len(each) // 10]
        ratios.append(statistics.median(each))
        print(f"{c.name:45}{micro:11.1f}     {ratios[-1]:6.2f} ({low:.2f}, {high:.2f})")
    print(f"{'':45}xlstm's default {ratios[1]:.2f} ×, best of the others {min(ratios[1:]):.2f} ×")
    return ratios[1], min(ratios[1:])


def main() -> None:
    """Compare at every length, then say in one line what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[64, 256, 1024, 4096])
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    candidates = [Candidate("ours", partial(mlstm, soft_cap=None), False), *_xlstm(), *_kernels()]
    results = {T: compare(candidates, T, args) for T in args.lengths}
    print(f"\ntorch {torch.__version__}, one thread. Times ours, xlstm's default / best of the others:")
    print("; ".join(f"T {T}: {default:.1f} / {best:.2f}" for T, (default, best) in results.items()))


if __name__ == "__main__":
    main()
