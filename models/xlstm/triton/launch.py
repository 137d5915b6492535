"""How the kernels are launched: tile sizes by head width, grids and arguments; nothing is timed or tuned here.

Tensors are ``P X H T D`` (directions, sequences, heads, tokens, features), with any strides but that of the features, which
is 1: so both ``P X H T D`` and a view of ``P X T H D`` are read where they
lie. Gates are ``P X H T``; parts.py says how statistics lie.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from models.xlstm.triton.backward_kernels import chunk_gradients, state_scan
from models.xlstm.triton.forward_kernel import forward_scan
from models.xlstm.triton.gate_kernels import gates_backward, gates_forward
from models.xlstm.triton.parts import PAD, PLANES

GATE_BLOCK = 1024
"""Tokens of a row that a gate kernel has in registers at once."""


@dataclass(frozen=True)
class Tile:
    """One kernel of tokens × features.

    Attributes:
        width: features a program owns; the padded head width for all of them.
        warps: of a program.
        stages: chunks of a scan in flight, the one that is worked on included.
        chunk: L, tokens a step of a scan or a program, 16, 32 or 64.
        registers: at most so many a thread where neither tokens nor features are masked, which takes more; None for as many as
            the compiler likes.
    """

    width: int
    warps: int
    stages: int
    chunk: int = 64
    registers: int | None = None


@dataclass(frozen=True)
class Launch:
    """All kernels of one head width; chunks of ``scan`` and ``gradients`` are the same.

    Attributes:
        forward: tile of the values.
        scan: tile of the keys of a memory and of its gradient, which are programs of their own.
        gradients: tile of the features of dq, dk and dv.
        dot: precision of products of float32: ``ieee``, ``tf32x3`` or ``tf32``.
    """

    forward: Tile
    scan: Tile
    gradients: Tile
    dot: str = "ieee"


def _even(width: int, warps: int, stages: int, chunk: int = 64) -> Launch:
    tile = Tile(width, warps, stages, chunk)
    return Launch(tile, tile, tile)


HALF: dict[tuple[int, bool], Launch] = {
    (16, True): _even(16, 4, 1),
    (16, False): Launch(Tile(16, 4, 2), Tile(16, 4, 3), Tile(16, 4, 1)),
    (32, True): _even(32, 4, 1),
    (32, False): Launch(Tile(32, 4, 2), Tile(32, 4, 3), Tile(32, 4, 1)),
    (64, True): _even(64, 4, 1),
    (64, False): Launch(Tile(64, 4, 3), Tile(64, 4, 2, registers=128), Tile(64, 4, 1, registers=128)),
    (96, False): Launch(Tile(64, 4, 2), Tile(64, 4, 3), Tile(32, 4, 1)),
    (128, True): _even(64, 4, 1),
    (128, False): Launch(Tile(64, 4, 2), Tile(64, 4, 2), Tile(64, 4, 1)),
    (256, True): Launch(Tile(64, 4, 1), Tile(64, 4, 1), Tile(128, 4, 1)),
    (256, False): Launch(Tile(32, 8, 1), Tile(32, 4, 2), Tile(64, 4, 1)),
}
"""16-bit operands: (head width, else as padded; at most 64 tokens) to launches, as timed on an H200 at 64 × 1024, 96 × 1024,
128 × 256 and 256 × 64 (benchmarks/NOTES.md); ``scan`` and ``gradients`` of other shapes by registers and spills alone."""

WIDE: dict[tuple[int, bool], Launch] = {
    (width, one): _even(tile, 8, 1, 16)
    for width, tile in ((16, 16), (32, 32), (64, 64), (128, 32), (256, 16))
    for one in (True, False)
}
"""float32 operands, multiplied without tensor cores (IEEE): chunks are short, as longer ones overflow the registers by far."""

PIECE = 128
"""Features that are multiplied at once where a kernel sums over all of a head's."""

_override: list[Launch] = []


@contextmanager
def using(launch: Launch) -> Iterator[None]:
    """Within this context every head width is launched as ``launch`` says: for benchmarks."""
    _override.append(launch)
    try:
        yield
    finally:
        _override.pop()


def padded(width: int) -> int:
    """The power of two a head is padded to on chip, at least 16."""
    return max(16, triton.next_power_of_2(width))


def launch_for(width: int, tokens: int, dtype: torch.dtype) -> Launch:
    """Tiles for a head width, a length and a dtype of q, k, v."""
    if _override:
        return _override[-1]
    table, one = WIDE if dtype is torch.float32 else HALF, tokens <= PAD.value
    return table.get((width, one)) or table[padded(width), one]


class Call(NamedTuple):
    """One kernel launch, not yet made.

    Attributes:
        kernel: a ``triton.jit`` function.
        programs: how many.
        args: positional arguments.
        options: compile-time arguments, warps and stages.
    """

    kernel: Any
    programs: int
    args: tuple[Any, ...]
    options: dict[str, Any]

    def run(self) -> None:
        """Launch."""
        self.kernel[(self.programs,)](*self.args, **self.options)


class Cell(NamedTuple):
    """What all kernels of one cell are told.

    Attributes:
        reversed_from: directions from this one on run backwards in time.
        soft_cap: bound of both pre-activations; None for none.
        eps: added to the normaliser.
    """

    reversed_from: int
    soft_cap: float | None
    eps: float


def stats_like(q: Tensor) -> Tensor:
    """Room for what is kept of every token for the backward pass: ``R T'/64 5 64``, float32 (parts.py)."""
    P, X, H, T, _ = q.shape
    return q.new_empty(P * X * H, -(-T // PAD.value), PLANES.value, PAD.value, dtype=torch.float32)


def forward_calls(q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, h: Tensor, stats: Tensor, cell: Cell) -> list[Call]:
    """Fill ``h`` and ``stats`` (see :func:`stats_like`): the gates, then the scan."""
    launch, shape, rows = _about(q)
    D, T, tile = q.shape[-1], q.shape[-2], launch.forward
    gates = Call(
        gates_forward,
        rows,
        (i, f, stats, _strides(i), _strides(f), *shape, cell.reversed_from, cell.soft_cap or 1.0),
        {"CAPPED": cell.soft_cap is not None, "BLOCK": _gate_block(T), "num_warps": 4},
    )
    tiles = triton.cdiv(D, tile.width)
    scan = Call(
        forward_scan,
        rows * tiles,
        (q, k, v, h, stats, *map(_strides, (q, k, v, h)), *shape, cell.reversed_from, -0.5 * math.log2(D), cell.eps),
        {"D": D, "BD": padded(D), "BV": tile.width, "TILES": tiles, "STAGES": tile.stages, **_scan_options(launch, tile, D, T)},
    )
    return [gates, scan]


def backward_calls(
    inputs: tuple[Tensor, ...], h: Tensor, stats: Tensor, dh: Tensor, grads: tuple[Tensor, ...], cell: Cell
) -> list[Call]:
    """Fill the gradients of ``inputs`` (q, k, v, i, f): states at all borders of chunks, then all chunks, then the gates."""
    (q, k, v, i, f), (dq, dk, dv, di, df) = inputs, grads
    launch, shape, rows = _about(q)
    D, T, told = q.shape[-1], q.shape[-2], (*shape, cell.reversed_from)
    scan, options = _scan_options(launch, launch.scan, D, T), _scan_options(launch, launch.gradients, D, T)
    if scan["L"] != options["L"]:
        raise ValueError(f"chunks of {scan['L']} and {options['L']} tokens: must be the same in all backward kernels")
    one, chunks = options["ONE"], triton.cdiv(T, options["L"])
    keys, tiles = triton.cdiv(D, launch.scan.width), triton.cdiv(D, launch.gradients.width)
    pull, rho, kappa = (stats.new_empty(n, rows, stats.shape[1] * PAD.value) for n in (1, tiles, 2 * tiles))
    memories, slopes = (q.new_empty(rows, chunks - 1, D, D) for _ in range(2))
    sums, slope_sums = (stats.new_empty(rows, chunks - 1, D) for _ in range(2))
    passing = stats.new_empty(tiles, rows, chunks)
    states = (memories, sums, slopes, slope_sums)
    before = Call(
        state_scan,
        2 * rows * keys,
        (q, k, v, h, dh, stats, pull, *states, *map(_strides, (q, k, v, h, dh)), *told),
        {"D": D, "BD": padded(D), "BK": launch.scan.width, "TILES": keys, "STAGES": scan["num_stages"]}
        | {name: scan[name] for name in scan if name != "ONE"},
    )
    x = (q, k, v, h, dh, dq, dk, dv)
    gradients = Call(
        chunk_gradients,
        rows * chunks * tiles,
        (*x, stats, pull, rho, kappa, *states, passing, *map(_strides, x), *told),
        {
            "D": D,
            "BD": padded(D),
            "BP": min(padded(D), PIECE),
            "BW": launch.gradients.width,
            "TILES": tiles,
            **options,
        },
    )
    last = (-0.5 * math.log2(D), cell.soft_cap or 1.0, cell.eps)
    gates = Call(
        gates_backward,
        rows,
        (i, f, stats, pull, rho, kappa, passing, di, df, *map(_strides, (i, f, di, df)), *told, *last),
        {
            "CAPPED": cell.soft_cap is not None,
            "TILES": tiles,
            "L": options["L"],
            "ONE": one,
            "BLOCK": _gate_block(T),
            "num_warps": 8,
        },
    )
    return [gradients, gates] if one else [before, gradients, gates]


def _about(q: Tensor) -> tuple[Launch, tuple[int, int, int, int], int]:
    """Launch; sequences, heads, rows and tokens; rows."""
    P, X, H, T, D = q.shape
    return launch_for(D, T, q.dtype), (X, H, P * X * H, T), P * X * H


def _strides(x: Tensor) -> tuple[int, ...]:
    """Of direction, sequence, head and token."""
    return x.stride()[:4]


def _gate_block(tokens: int) -> int:
    return max(PAD.value, min(GATE_BLOCK, triton.next_power_of_2(tokens)))


def _scan_options(launch: Launch, tile: Tile, width: int, tokens: int) -> dict[str, Any]:
    chunk = min(tile.chunk, max(16, triton.next_power_of_2(tokens)))
    even = tokens % chunk == 0
    registers = tile.registers if even and width == padded(width) else None
    built = {"DOT": launch.dot, "num_warps": tile.warps, "num_stages": tile.stages, "maxnreg": registers}
    return {"L": chunk, "ONE": tokens <= chunk, "EVEN": even, **built}
