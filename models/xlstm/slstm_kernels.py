"""Which code computes the sLSTM over whole sequences: ours in PyTorch everywhere, our Triton kernels where they are asked for."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from models.xlstm.slstm import SLSTMState, slstm
from models.xlstm.triton.available import interpreted, too_wide, why_not
from utils.errors import ConfigError

SLSTMCell = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Gate inputs ``P H B T 4 D``, recurrent matrix ``P H D 4 D`` and bias ``P H 4 D`` to h ``P H B T D``, in any layout."""


def slstm_cell(name: str, width: int) -> SLSTMCell:
    """The cell that the backend called ``name`` brings: the Triton one for ``triton``, the native one for all others.

    Args:
        name: of a backend, see :mod:`models.xlstm.kernels`.
        width: features of a head.

    Raises:
        ConfigError: the Triton kernels were asked for and cannot run here, or not at this width.
    """
    if name != "triton":
        return native
    reason = why_not() or too_wide(width, torch.bfloat16)
    if reason is not None:
        raise ConfigError([f"kernels = 'triton': {reason}"])
    from models.xlstm.triton.slstm_op import slstm_triton  # only where there is Triton

    return slstm_triton


def settle_slstm(name: str, widths: Sequence[int], device: str, dtype: str) -> None:
    """Refuse what a run asks of the sLSTM cell and cannot have, before data is touched; see :func:`models.xlstm.kernels.settle`.

    Args:
        name: of a backend.
        widths: of the heads.
        device: ``cpu``, ``cuda`` or ``mps``.
        dtype: of the gate inputs: ``float32``, ``bfloat16`` or ``float16``.

    Raises:
        ConfigError: the Triton kernels were asked for and cannot run there, or not at these widths.
    """
    if name != "triton":
        return
    reason = why_not() or too_wide(max(widths), getattr(torch, dtype))
    if reason is None and device != "cuda" and not interpreted():
        reason = f"the run is on device '{device}' and these kernels need CUDA: trainer.accelerator, or kernels=native"
    if reason is not None:
        raise ConfigError([f"kernels = 'triton': {reason}"])


def native(x: Tensor, recurrent: Tensor, bias: Tensor) -> Tensor:
    """:func:`models.xlstm.slstm.slstm` with heads and directions as dimensions of their own; in memory ``T P·H B D``."""
    return after(None, x, recurrent, bias)[0]


def after(state: SLSTMState | None, x: Tensor, recurrent: Tensor, bias: Tensor) -> tuple[Tensor, SLSTMState]:
    """The same for the tokens that follow ``state`` (None at the start): h and the state after them."""
    P, H = recurrent.shape[:2]
    rows = x.permute(3, 0, 1, 2, 4, 5).flatten(1, 2)
    h, end = slstm(rows, recurrent.flatten(0, 1), bias.flatten(0, 1), state)
    return h.unflatten(1, (P, H)).permute(1, 2, 3, 0, 4), end
