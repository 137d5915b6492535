"""Registers, spills, shared memory and matrix instructions of every mLSTM or sLSTM kernel on a Hopper GPU, without one.

    python -m benchmarks.kernel_resources [--shapes 64x1024 96x1024 128x256 256x64] [--dtype bfloat16] [--cell slstm]

Shapes are head width × tokens. ``fit`` is how many programs a multiprocessor holds at once.
"""

import argparse

import torch
import triton

from models.xlstm.triton.resources import calls, slstm_calls, usage


def main() -> None:
    """Compile and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=["64x1024", "96x1024", "128x256", "256x64"])
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--cell", default="mlstm", choices=["mlstm", "slstm"])
    args = parser.parse_args()
    print(f"Triton {triton.__version__}, sm_90, {args.dtype}")
    print(f"{'D x T':10}{'kernel':18}{'warps':>6}{'regs':>6}{'stack':>7}{'spills':>7}{'KiB':>6}{'wgmma':>7}{'hmma':>6}{'fit':>5}")
    for shape in args.shapes:
        width, tokens = map(int, shape.split("x"))
        for call in (calls if args.cell == "mlstm" else slstm_calls)(width, tokens, getattr(torch, args.dtype)):
            u = usage(call)
            numbers = (
                f"{u.warps:6}{u.registers:6}{u.stack:7}{u.spills:7}{u.shared / 1024:6.0f}{u.wgmma:7}{u.older:6}{u.programs:5}"
            )
            print(f"{shape:10}{u.kernel:18}{numbers}{'  reads unset registers' if u.unset else ''}", flush=True)


if __name__ == "__main__":
    main()
