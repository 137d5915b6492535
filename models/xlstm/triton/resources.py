"""What the kernels would need of a GPU, found without one: launches are compiled for Hopper and the code read."""

import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget

from models.xlstm.triton import assembler, inner_launch
from models.xlstm.triton.launch import Call, Cell, backward_calls, forward_calls, stats_like
from models.xlstm.triton.slstm_launch import Scan, kept_like, partial_sums, slstm_backward_calls, slstm_forward_calls

TARGET = GPUTarget("cuda", 90, 32)
"""H100 and H200."""
_TOOL = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"


@dataclass(frozen=True)
class Usage:
    """Of one launch.

    Attributes:
        kernel: its name.
        warps: of a program.
        registers: of a thread.
        stack: bytes of local memory of a thread; 0 without spills.
        spills: stores to local memory in the machine code.
        shared: bytes of shared memory of a program.
        wgmma: matrix instructions of Hopper.
        older: matrix instructions of before, far slower.
        unset: instructions that read registers nobody set, see :func:`assembler.unset_registers`; none in sound code.
    """

    kernel: str
    warps: int
    registers: int
    stack: int
    spills: int
    shared: int
    wgmma: int
    older: int
    unset: tuple[str, ...]

    @property
    def programs(self) -> int:
        """Programs that fit a multiprocessor: 65,536 registers, 227 KiB of shared memory, 64 warps."""
        by_registers = 65536 // (32 * self.warps * -(-self.registers // 8) * 8)
        return min(by_registers, 227 * 1024 // max(self.shared + 1024, 1), 64 // self.warps)


class _Compiler:
    """A Triton driver that names a target and owns no device."""

    def get_current_device(self) -> int:
        """The only one."""
        return 0

    def get_current_stream(self, device: int) -> int:
        """None is ever used."""
        return device

    def get_current_target(self) -> GPUTarget:
        """What to compile for."""
        return TARGET


@contextmanager
def _without_a_gpu() -> Iterator[None]:
    config = triton.runtime.driver
    active = config._active
    config.set_active(_Compiler())  # pyright: ignore[reportArgumentType] - all that compiling asks of a driver
    try:
        yield
    finally:
        config._active = active


def usage(call: Call) -> Usage:
    """Compile one launch for :data:`TARGET`, run nothing."""
    assembler.settle(assembler.HOPPER)
    with _without_a_gpu():
        compiled: Any = call.kernel.warmup(*call.args, grid=(call.programs,), **call.options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(compiled.asm["cubin"])
        table, code = (
            subprocess.run([_TOOL, option, file.name], capture_output=True, text=True, check=True).stdout
            for option in ("-res-usage", "-sass")
        )
    found = re.search(r"REG:(\d+) STACK:(\d+)", table)
    if found is None:
        raise RuntimeError(f"cuobjdump tells no registers of {call.kernel.__name__}:\n{table}")
    stored, wgmma, older = (len(re.findall(pattern, code)) for pattern in (r"\bSTL", r"HGMMA", r"\bHMMA"))
    registers, stack = int(found[1]), int(found[2])
    return Usage(
        call.kernel.__name__,
        compiled.metadata.num_warps,
        registers,
        stack,
        stored,
        compiled.metadata.shared,
        wgmma,
        older,
        tuple(assembler.unset_registers(code)),
    )


def calls(width: int, tokens: int, dtype: torch.dtype = torch.bfloat16, soft_cap: float | None = 15.0) -> list[Call]:
    """All launches of forward and backward, for two directions of sequences in their natural layout ``P B T H D``."""
    q, k, v, h, dh, dq, dk, dv = (torch.zeros(2, 2, tokens, 4, width, dtype=dtype).transpose(2, 3) for _ in range(8))
    i, f, di, df = (torch.zeros(2, 2, 4, tokens) for _ in range(4))
    stats, cell = stats_like(q), Cell(1, soft_cap, 1e-6)
    forward = forward_calls(q, k, v, i, f, h, stats, cell)
    return forward + backward_calls((q, k, v, i, f), h, stats, dh, (dq, dk, dv, di, df), cell)


def inner_calls(
    inner: int,
    tokens: int,
    dtype: torch.dtype = torch.bfloat16,
    *,
    heads: int = 4,
    block: int = 4,
    taps: int = 4,
    batch: int = 64,
) -> list[Call]:
    """All launches around the cell of a block of two directions: what is before it, what is after it, both backwards.

    A batch as in training: a single tile a program would be compiled without its loop.
    """
    up, dup = (torch.zeros(2, batch, tokens, 2 * inner, dtype=dtype) for _ in range(2))
    c, q, k, v, h, y = (torch.zeros(2, batch, tokens, inner, dtype=dtype) for _ in range(6))
    shares = torch.zeros(inner // 64, 2, batch, 2 * heads, tokens)
    q_block, k_block, v_block = (torch.zeros(2, inner // block, block, block) for _ in range(3))
    gate_c, gate_m = (torch.zeros(2, 2 * heads, inner, dtype=dtype) for _ in range(2))
    bias, gain, skip = (torch.zeros(2, inner) for _ in range(3))
    conv, gate_bias = torch.zeros(2, taps, inner), torch.zeros(2, 2 * heads)
    weights = inner_launch.Weights(conv, bias, q_block, k_block, v_block, gate_c, gate_m, gate_bias, gain, skip)
    told = inner_launch.Inner(heads, 1, 1e-6)
    found = inner_launch.forward_calls(up, weights, (c, q, k, v, shares), told)
    found += inner_launch.exit_calls(up, c, h, weights, y, told)
    found += inner_launch.exit_backward_calls(up, c, h, weights, y, (h, c, dup), told)[0]
    return found + inner_launch.backward_calls(up, c, weights, (q, k, v, shares[0]), c, dup, told)[0]


def slstm_calls(
    width: int, tokens: int, dtype: torch.dtype = torch.bfloat16, batch: int = 64, *, training: bool = True
) -> list[Call]:
    """All launches of the sLSTM, for two directions of four heads: forward and backward, or a forward that keeps nothing."""
    x, dx = (torch.zeros(2, 4, batch, tokens, 4, width, dtype=dtype) for _ in range(2))
    h, dh = (torch.zeros(2, batch, tokens, 4, width, dtype=dtype).permute(0, 3, 1, 2, 4) for _ in range(2))
    recurrent, bias, scan = torch.zeros(2, 4, width, 4, width), torch.zeros(2, 4, 4, width), Scan(1, training)
    kept = kept_like(x)
    forward = slstm_forward_calls(x, recurrent, bias, h, kept, scan)
    if not training:
        return forward
    return forward + slstm_backward_calls(dh, recurrent, h, kept, dx, partial_sums(h), scan)
