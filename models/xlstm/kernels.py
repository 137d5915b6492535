"""Which code computes the mLSTM: the choice, and one line that says what was chosen and why."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from models.xlstm.mlstm import QUADRATIC_UP_TO, Form, mlstm
from models.xlstm.triton.available import why_not
from utils.errors import ConfigError, did_you_mean

Cell = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
"""q, k, v ``B H T D`` and gate pre-activations i, f ``B H T`` to h ``B H T D``."""


@dataclass(frozen=True)
class Kernel:
    """A backend, ready to be called.

    Attributes:
        name: what was asked for.
        cell: computes a sequence.
        chosen: one line: what runs, and why.
    """

    name: str
    cell: Cell
    chosen: str


Maker = Callable[[int, float | None, float], Kernel]
"""(chunk, soft_cap, eps) to a kernel; raises ConfigError where it cannot work on this machine."""


def _native(name: str, form: Form, why: str) -> Maker:
    def make(chunk: int, soft_cap: float | None, eps: float) -> Kernel:
        cell = partial(mlstm, form=form, chunk=chunk, soft_cap=soft_cap, eps=eps)
        return Kernel(name, cell, f"kernels={name}: {why.format(chunk=chunk, short=QUADRATIC_UP_TO)}")

    return make


def _triton(chunk: int, soft_cap: float | None, eps: float) -> Kernel:
    reason = why_not()
    if reason is not None:
        raise ConfigError([f"kernels = 'triton': {reason}"])
    from models.xlstm.triton.op import mlstm_triton  # only where there is Triton

    cell = partial(mlstm_triton, soft_cap=soft_cap, eps=eps)
    return Kernel("triton", cell, "kernels=triton: our Triton kernels, as asked; chunks of up to 64")


KERNELS: dict[str, Maker] = {
    "auto": _native(
        "auto",
        Form.auto,
        "native (PyTorch), quadratic up to {short} tokens, chunks of {chunk} beyond (narrow heads: shorter); on every device",
    ),
    "native": _native(
        "native",
        Form.auto,
        "native (PyTorch), quadratic up to {short} tokens, chunks of {chunk} beyond (narrow heads: shorter), as asked",
    ),
    "parallel": _native("parallel", Form.quadratic, "native quadratic form at every length, as asked; cost grows with T²"),
    "chunkwise": _native("chunkwise", Form.chunkwise, "native chunkwise form, chunks of {chunk}, as asked"),
    "triton": _triton,
    "recurrent": _native("recurrent", Form.recurrent, "native recurrence token by token, as asked; slow, for checking"),
}
"""Backends by the name a person types. A family of names ends in a colon and is looked up up to it (``mlstm_kernels:…``)."""


def unknown_kernel(name: str) -> list[str]:
    """What is wrong with a name: one text, or none."""
    if name in KERNELS:
        return []
    return [f"kernels = '{name}': no such backend.{did_you_mean(name, KERNELS)} Known: {', '.join(KERNELS)}"]


def kernel(name: str, *, chunk: int, soft_cap: float | None, eps: float) -> Kernel:
    """The backend called ``name``.

    Raises:
        ConfigError: no such backend; lists those there are.
    """
    if unknown_kernel(name):
        raise ConfigError(unknown_kernel(name))
    return KERNELS[name](chunk, soft_cap, eps)


def chosen(name: str, chunk: int) -> str:
    """The line about the backend called ``name``, for the start of a run."""
    return kernel(name, chunk=chunk, soft_cap=None, eps=0.0).chosen
