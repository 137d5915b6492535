"""Each sLSTM kernel alone on a GPU, by sequences a program, warps and stages: what goes into models/xlstm/triton/slstm_launch.py.

    python -m benchmarks.tune_slstm [--shapes 4x1024x64 16x1024x64 32x1024x64 64x256x64 128x64x64] [--top 3] [--repeats 10]

Shapes are head width × tokens × sequences, of four heads in two directions, bfloat16. For both scans the tile in use, then
the fastest others, microseconds a token; tiles that do not fit the shared memory are left out. A minute a shape, of compiling.
"""

import argparse
from itertools import product

import torch
import triton

from benchmarks.tune_cell import milliseconds
from models.xlstm.triton.launch import Call, padded
from models.xlstm.triton.slstm_launch import (
    Scan,
    ScanTile,
    kept_like,
    partial_sums,
    scan_tile,
    slstm_backward_calls,
    slstm_forward_calls,
    using,
)

HEADS = 4


def calls(width: int, tokens: int, sequences: int) -> list[Call]:
    """All kernels, in order."""
    x = torch.randn(2, HEADS, sequences, tokens, 4, width, device="cuda").bfloat16()
    h, dh = (torch.empty(2, sequences, tokens, HEADS, width, device="cuda").bfloat16().permute(0, 3, 1, 2, 4) for _ in range(2))
    dh.normal_()
    recurrent = torch.randn(2, HEADS, width, 4, width, device="cuda") * (0.7 / width**0.5)
    bias, back = torch.zeros(2, HEADS, 4, width, device="cuda"), recurrent.permute(0, 1, 3, 4, 2).contiguous()
    kept, scan = kept_like(x), Scan(1, True)
    forward = slstm_forward_calls(x, recurrent, bias, h, kept, scan)
    return forward + slstm_backward_calls(dh, back, h, kept, torch.empty_like(x), partial_sums(h), scan)


def tiles(width: int) -> list[ScanTile]:
    """All that might be worth trying."""
    most = max(1, padded(width) // 16)
    every = product((8, 16, 32), (1, 2, 4, 8), (2, 4, 6), (True, False))
    return [ScanTile(r, w, s, ahead) for r, w, s, ahead in every if most // 2 <= w <= most * r // 8]


def tried(shape: tuple[int, int, int], tile: ScanTile, repeats: int) -> dict[str, float]:
    """Microseconds a token of every kernel that fits."""
    times = {}
    with using(tile):
        for call in calls(*shape):
            try:
                times[call.kernel.__name__] = 1e3 * milliseconds(call, repeats) / shape[1]
            except (triton.runtime.errors.OutOfResources, triton.runtime.errors.PTXASError):
                break
    return times


def main() -> None:
    """Try, then print one table a shape."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=["4x1024x64", "16x1024x64", "32x1024x64", "64x256x64", "128x64x64"])
    parser.add_argument("--top", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=10)
    args = parser.parse_args()
    print(f"Triton {triton.__version__}, {torch.cuda.get_device_name()}, microseconds a token")
    for text in args.shapes:
        width, tokens, sequences = map(int, text.split("x"))
        shape = (width, tokens, sequences)
        used = tried(shape, scan_tile(width, torch.bfloat16), args.repeats)
        results = [(tile, tried(shape, tile, args.repeats)) for tile in tiles(width)]
        print(f"\n{text}", flush=True)
        for name in ("slstm_forward", "slstm_backward", "recurrent_gradient"):
            now = scan_tile(width, torch.bfloat16) if "slstm" in name else ""
            print(f"  {name:20}in use {used.get(name, float('nan')):8.3f}   {now}")
            ranked = sorted(((t[name], tile) for tile, t in results if name in t), key=lambda pair: pair[0])
            for best, tile in ranked[: args.top if "slstm" in name else 0]:
                print(f"  {'':26} {best:8.3f}   {tile}")


if __name__ == "__main__":
    main()
