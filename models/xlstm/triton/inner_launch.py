"""How the kernels of inner_kernels.py and exit_kernels.py are launched: spans, tiles, buffers; nothing is timed or tuned here.

Tensors lie as ``P B T I`` without gaps, m and z as ``P B T 2I``; gates as ``P B 2H T`` in float32.
"""

from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from models.xlstm.triton.exit_kernels import exit_backward, exit_forward
from models.xlstm.triton.inner_kernels import FEATURES, inner_backward, inner_forward, inner_inputs_backward
from models.xlstm.triton.launch import Call

PROGRAMS = 1024
"""Programs a launch is cut into, at least where there are so many tiles: a few for every multiprocessor."""


class Tuned(NamedTuple):
    """How a kernel is launched.

    Attributes:
        tokens: of a tile; after the cell, of a tile of heads of 64 features, fewer of wider heads.
        warps: of a program.
        stages: tiles in flight, the one that is worked on included; before the cell, of what goes into products.
        registers: of a thread, at most; None for what the compiler takes.
    """

    tokens: int
    warps: int
    stages: int
    registers: int | None = None

    def options(self) -> dict[str, Any]:
        """For a launch."""
        return {"num_warps": self.warps, "num_stages": self.stages, "maxnreg": self.registers}


TUNED: dict[str, Tuned] = {
    "inner_forward": Tuned(64, 4, 3),
    "exit_forward": Tuned(16, 4, 3),
    "exit_backward": Tuned(32, 4, 1),
    "inner_backward": Tuned(64, 4, 3),
    "inner_inputs_backward": Tuned(64, 4, 1),
}
"""By kernel, as timed on an H200 (benchmarks/NOTES.md); both inner_backward kernels have tiles of the same tokens."""
WIDE = 16
"""Tokens of a tile in float32, whose products are no matter of tensor cores."""


class Weights(NamedTuple):
    """Parameters of a block between its two projections; P directions, I inner features, H heads.

    Attributes:
        conv, conv_bias: ``P K I`` (last tap on the token itself), ``P I``.
        q, k, v: blocks, ``P I/s s s`` (out, in).
        gate_c, gate_m: what the pre-activations of both gates read of c and of m, ``P 2H I``.
        gate_bias: ``P 2H``.
        gain, skip: ``P I``.
    """

    conv: Tensor
    conv_bias: Tensor
    q: Tensor
    k: Tensor
    v: Tensor
    gate_c: Tensor
    gate_m: Tensor
    gate_bias: Tensor
    gain: Tensor
    skip: Tensor


class Inner(NamedTuple):
    """What the kernels around the cell are told.

    Attributes:
        heads: H.
        reversed_from: directions from this one on run backwards in time.
        norm_eps: of the head norm.
    """

    heads: int
    reversed_from: int
    norm_eps: float


def forward_calls(up: Tensor, w: Weights, made: tuple[Tensor, Tensor, Tensor, Tensor, Tensor], told: Inner) -> list[Call]:
    """Fill c, q, k, v ``P B T I`` and shares of the gates ``I/64 P B 2H T``."""
    options = _options(up, w, "inner_forward")
    tiles, span = _spans(up, options["BT"], options["INNER"] // FEATURES.value)
    args = (up, w.conv, w.conv_bias, w.q, w.k, w.v, w.gate_c, w.gate_m, w.gate_bias, *made)
    sizes = (up.shape[1], up.shape[2], span, up.shape[0], told.reversed_from, w.gate_bias.shape[1])
    return [Call(inner_forward, tiles, (*args, *sizes), options)]


def exit_calls(up: Tensor, c: Tensor, h: Tensor, w: Weights, y: Tensor, told: Inner) -> list[Call]:
    """Fill y ``P B T I``, which the projection down takes."""
    options = _head_options(up, told, "exit_forward")
    tiles, span = _spans(up, options["BT"], told.heads)
    args = (up, c, h, w.gain, w.skip, y, up.shape[1], up.shape[2], span, told.norm_eps)
    return [Call(exit_forward, tiles, args, options)]


def exit_backward_calls(
    up: Tensor, c: Tensor, h: Tensor, w: Weights, dy: Tensor, grads: tuple[Tensor, Tensor, Tensor], told: Inner
) -> tuple[list[Call], Tensor]:
    """Fill the gradients of h, c ``P B T I`` and of z (second half of ``P B T 2I``); sums ``spans P 2 I`` for gain and skip."""
    options = _head_options(up, told, "exit_backward")
    tiles, span = _spans(up, options["BT"], told.heads)
    sums = up.new_empty(tiles // (told.heads * up.shape[0]), up.shape[0], 2, options["INNER"], dtype=torch.float32)
    args = (up, c, h, w.gain, w.skip, dy, *grads, sums, up.shape[1], up.shape[2], span, up.shape[0], told.norm_eps)
    return [Call(exit_backward, tiles, args, options | {"ROWS": min(16, options["BT"])})], sums


def backward_calls(
    up: Tensor, c: Tensor, w: Weights, grads: tuple[Tensor, Tensor, Tensor, Tensor], dc: Tensor, dup: Tensor, told: Inner
) -> tuple[list[Call], Tensor]:
    """Fill the gradient of m (first half of ``dup``); sums ``spans P I X`` for the weights, X as in :func:`inner_backward`.

    Args:
        up, c, w: of the forward pass.
        grads: of q, k, v, and of the pre-activations ``P B 2H T``.
        dc: of c by the skip; holds something else afterwards.
        dup: of ``up``.
        told: see :class:`Inner`.
    """
    options, gates = _options(up, w, "inner_backward"), w.gate_bias.shape[1]
    programs, span = _spans(up, options["BT"], options["INNER"] // FEATURES.value)
    P, inner, taps = up.shape[0], options["INNER"], options["TAPS"]
    columns = 3 * options["S"] + 2 * gates + taps + 1
    sums = up.new_empty(programs // (P * (inner // FEATURES.value)), P, inner, columns, dtype=torch.float32)
    dq, dk, dv, dpre = grads
    sizes = (up.shape[1], up.shape[2], span, P, told.reversed_from, gates)
    args = (up, w.conv, w.conv_bias, w.q, w.k, w.gate_c, c, dq, dk, dpre, dc, sums, *sizes)
    first = Call(inner_backward, programs, args, options)
    args = (up, dc, dv, dpre, w.conv, w.v, w.gate_m, dup, sums, *sizes)
    more = {"ROWS": min(16, options["BT"])}
    second = Call(inner_inputs_backward, programs, args, options | more | TUNED["inner_inputs_backward"].options())
    return [first, second], sums


def _options(up: Tensor, w: Weights, kernel: str) -> dict[str, Any]:
    tokens = WIDE if up.dtype is torch.float32 else TUNED[kernel].tokens
    return {
        "INNER": up.shape[-1] // 2,
        "S": w.q.shape[-1],
        "HP": max(16, triton.next_power_of_2(w.gate_bias.shape[1])),
        "TAPS": w.conv.shape[1],
        "BT": min(tokens, max(16, triton.next_power_of_2(up.shape[2]))),
        "DOT": "ieee",
        **TUNED[kernel].options(),
    }


def _head_options(up: Tensor, told: Inner, kernel: str) -> dict[str, Any]:
    inner, tuned = up.shape[-1] // 2, TUNED[kernel]
    width = triton.next_power_of_2(inner // told.heads)
    tokens = max(16, tuned.tokens * FEATURES.value // max(width, 16))
    sizes = {"INNER": inner, "E": inner // told.heads, "EP": width, "BT": tokens, "STAGES": tuned.stages}
    return {**sizes, **tuned.options()}


def _spans(up: Tensor, tile: int, parts: int) -> tuple[int, int]:
    """Programs of a launch, and tiles each of them goes over."""
    P, B, T = up.shape[:3]
    tiles = B * triton.cdiv(T, tile)
    span = max(1, P * parts * tiles // PROGRAMS)
    return P * parts * triton.cdiv(tiles, span), span
