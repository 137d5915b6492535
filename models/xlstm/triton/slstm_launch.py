"""How the sLSTM kernels are launched: warps by head width, grids and arguments; nothing is timed or tuned here.

Gate inputs are ``P H B T 4 D`` (directions, heads, sequences, tokens, gates, features) with any strides but those of the last two
dimensions, which lie side by side; h is ``P H B T D``. What is kept for the backward pass is ``programs T planes
D·rows`` in float32: each program reads what it wrote.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from models.xlstm.triton.launch import Call, padded
from models.xlstm.triton.slstm_backward import recurrent_gradient, slstm_backward
from models.xlstm.triton.slstm_forward import slstm_forward
from models.xlstm.triton.slstm_parts import PLANES


@dataclass(frozen=True)
class ScanTile:
    """A scan over tokens.

    Attributes:
        rows: sequences of a program.
        warps: of a program; 16 features of all gates each.
        stages: tokens in flight, the one that is worked on included.
        ahead: make what a token needs and no other token decides while the one before is worked on: for registers.
    """

    rows: int
    warps: int
    stages: int
    ahead: bool = True


HALF: dict[int, ScanTile] = {
    16: ScanTile(8, 1, 6),
    32: ScanTile(8, 2, 5),
    64: ScanTile(8, 4, 4),
    128: ScanTile(8, 8, 4, ahead=False),
}
"""16-bit operands: padded head width to tiles, chosen for no spills (benchmarks/NOTES.md)."""

WIDE: dict[int, ScanTile] = {width: ScanTile(8, max(1, width // 16), 4, ahead=False) for width in (16, 32, 64)}
"""float32 operands. Not ahead: the compiler of Triton 3.9 aborts on it (an assertion of LLVM's SLPVectorizer)."""

TOGETHER = 64
"""Pairs of sequence and token that the product for the recurrent matrix's gradient takes at once."""

_override: list[ScanTile] = []


@contextmanager
def using(tile: ScanTile) -> Iterator[None]:
    """Within this context every scan is launched as ``tile`` says, forward and backward alike: for benchmarks."""
    _override.append(tile)
    try:
        yield
    finally:
        _override.pop()


def scan_tile(width: int, dtype: torch.dtype) -> ScanTile:
    """Of a head width and the dtype of its gate inputs."""
    if _override:
        return _override[-1]
    return (WIDE if dtype is torch.float32 else HALF)[padded(width)]


class Scan(NamedTuple):
    """What all kernels of one cell are told.

    Attributes:
        reversed_from: directions from this one on run backwards in time.
        keep: whether the forward keeps what the backward pass wants.
    """

    reversed_from: int
    keep: bool


def kept_like(x: Tensor) -> Tensor:
    """Room for what is kept of tokens, for gate inputs ``x``."""
    P, H, B, T, _, D = x.shape
    rows = scan_tile(D, x.dtype).rows
    return x.new_empty(P * H * -(-B // rows), T, PLANES.value, D * rows, dtype=torch.float32)


def partial_sums(h: Tensor) -> tuple[Tensor, Tensor]:
    """Room for the gradients of recurrent matrix and bias slice by slice: ``slices P H 4 D D`` and ``slices P H 4 D``."""
    P, H, B, T, D = h.shape
    slices = max(1, min(-(-1024 // (4 * P * H)), -(-B * T // (8 * TOGETHER))))
    room = h.new_empty(slices, P, H, 4, D, D, dtype=torch.float32)
    return room, room.new_empty(slices, P, H, 4, D)


def slstm_forward_calls(x: Tensor, recurrent: Tensor, bias: Tensor, h: Tensor, kept: Tensor, scan: Scan) -> list[Call]:
    """Fill ``h`` and ``kept``."""
    options = _options(h, "KEEP", scan.keep, x, h)
    args = (x, recurrent, bias, h, kept, _strides(x), _strides(h), *_told(h, scan))
    return [Call(slstm_forward, _programs(h), args, options)]


def slstm_backward_calls(
    dh: Tensor, recurrent: Tensor, h: Tensor, kept: Tensor, dx: Tensor, sums: tuple[Tensor, Tensor], scan: Scan
) -> list[Call]:
    """Fill ``dx``, then ``sums`` (see :func:`partial_sums`); recurrent is ``P H 4 D D`` (gate, its feature, previous output)."""
    P, H, _, _, D = h.shape
    args = (dh, recurrent, kept, dx, _strides(dh), _strides(dx), *_told(h, scan))
    back = Call(slstm_backward, _programs(h), args, _options(h, None, False, dh, dx))
    slices, wide = sums[0].shape[0], padded(D)
    product = Call(
        recurrent_gradient,
        4 * slices * P * H,
        (h, dx, *sums, _strides(h), _strides(dx), *_told(h, scan)),
        {"D": D, "BD": wide, "N": TOGETHER, "SLICES": slices, "DOT": "ieee", "num_warps": 4 if wide < 128 else 8},
    )
    return [back, product]


def _told(h: Tensor, scan: Scan) -> tuple[int, int, int, int]:
    """Sequences, heads, tokens, first reversed direction."""
    return h.shape[2], h.shape[1], h.shape[3], scan.reversed_from


def _programs(h: Tensor) -> int:
    P, H, B, _, D = h.shape
    return P * H * -(-B // scan_tile(D, h.dtype).rows)


def _strides(x: Tensor) -> tuple[int, int, int, int]:
    """Of direction, sequence, head and token."""
    direction, head, sequence, token = x.stride()[:4]
    return direction, sequence, head, token


def _options(h: Tensor, flag: str | None, value: bool, *streams: Tensor) -> dict[str, Any]:
    D = h.shape[-1]
    tile = scan_tile(D, h.dtype)
    unit = math.gcd(16, *(step for x in streams for step in _strides(x)))
    options: dict[str, Any] = {
        "D": D,
        "W": padded(D) // 16,
        "BR": tile.rows,
        "UNIT": unit,
        "DOT": "ieee",
        "STAGES": tile.stages,
        "AHEAD": tile.ahead,
    }
    if flag is not None:
        options[flag] = value
    return {**options, "num_warps": tile.warps}
