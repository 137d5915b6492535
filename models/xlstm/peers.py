"""The mLSTM kernels of NX-AI's ``mlstm_kernels`` 2.0 as backends, under the names they have in published configs.

They are called for comparison and to run published recipes as they were; what they need is imported when one is asked for.
Licence: NXAI Community License.

What was found out about them (2.0.6): every kernel with a backward pass of its own (``custbw`` and all of Triton) holds the
normaliser constant in it. The gradients of q, k and the gates are then off by as much as they are large; behind a norm that loses
the scale of every token, which the head norm of a block is, the error is 2e-6 (float64). Triton kernels read heads whose width is
no power of two as wider ones and write past their buffers: a data race. None knows a soft cap; it is applied before.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from models.xlstm.gates import soft_capped
from models.xlstm.triton.available import interpreted

PREFIX = "mlstm_kernels:"
"""In front of a name: the same backend."""
_CONSTANT = "its backward holds the normaliser constant, which the head norm behind it makes good"
_REMEDIES = {
    "SIGABRT": "where Triton 3.6 aborts while it compiles, DISABLE_LLVM_OPT=1 in the environment helps",
    "block_ptr": "these kernels are written for a Triton before 3.9",
    "block pointers": "these kernels are written for a Triton before 3.9",
}
"""What helps, by words of what went wrong."""


@dataclass(frozen=True)
class Peer:
    """One kernel of ``mlstm_kernels``.

    Attributes:
        name: in its registry.
        compiles: in Triton, for CUDA devices.
        constant: its backward holds the normaliser constant.
        padded: it takes lengths that are multiples of the chunk only.
        widest: head it takes, 0 for any.
    """

    name: str
    compiles: bool = False
    constant: bool = False
    padded: bool = False
    widest: int = 0


PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        Peer("chunkwise--triton_xl_chunk", compiles=True, constant=True, padded=True),
        Peer("chunkwise--triton_limit_chunk", compiles=True, constant=True, padded=True),
        Peer("chunkwise--native_autograd", padded=True),
        Peer("chunkwise--native_custbw", constant=True, padded=True),
        Peer("parallel--native_autograd"),
        Peer("parallel--native_custbw", constant=True),
        Peer("parallel--native_stablef_autograd"),
        Peer("parallel--native_stablef_custbw", constant=True),
        Peer("parallel--triton_limit_headdim", compiles=True, constant=True, padded=True, widest=256),
    )
}
"""By name."""
OTHERS: dict[str, Peer] = {
    name: Peer(name)
    for name in ("chunkwise--triton_xl_chunk_siging", "parallel--native_siging_autograd", "parallel--native_siging_custbw")
}
"""Kernels of another cell, whose input gate is a sigmoid: known by name, and refused."""


def named(name: str) -> Peer | None:
    """The kernel of a name as typed, with or without the prefix; None where there is none."""
    return (PEERS | OTHERS).get(name.removeprefix(PREFIX))


def cannot(peer: Peer, widths: Sequence[int], chunk: int) -> list[str]:
    """What a kernel cannot compute on any machine, one text each.

    Args:
        peer: from :func:`named`.
        widths: of heads.
        chunk: longest chunk.
    """
    if peer.name in OTHERS:
        return ["its input gate is a sigmoid: another cell than the mLSTM of these models (exponential input gate)"]
    if not peer.compiles:
        return []
    wrong = []
    odd = [str(width) for width in widths if width & (width - 1) or width < 16]
    if odd:
        wrong.append(
            f"heads are {', '.join(odd)} wide: these kernels take powers of two from 16 on, and at other widths they write past "
            "their buffers. Choose mlstm_num_heads to suit, or kernels=native|triton"
        )
    elif peer.widest and max(widths, default=0) > peer.widest:
        wrong.append(f"heads are {max(widths)} wide: this kernel takes {peer.widest} at most. Choose kernels=native|triton")
    if chunk & (chunk - 1) or chunk < 16:
        wrong.append(f"chunk_size = {chunk}: chunks of these kernels are powers of two, at least 16")
    return wrong


def why_not(peer: Peer) -> str | None:
    """What is missing on this machine, with its remedy; None where nothing is."""
    if find_spec("mlstm_kernels") is None:
        return "mlstm_kernels is not installed: pip install 'mlstm_kernels>=2.0.2,<2.1' (Linux), or kernels=native"
    if not peer.compiles:
        return None
    if find_spec("triton") is None:
        return "Triton is not installed here (it comes with PyTorch for CUDA on Linux); kernels=native runs everywhere"
    if not torch.cuda.is_available() and not interpreted():
        return "no CUDA device is found; kernels=native runs everywhere"
    return None


def remedy(found: str) -> str:
    """What to do where a probe found this."""
    known = next((text for words, text in _REMEDIES.items() if words in found or words.capitalize() in found), "")
    return f"{known}; kernels=native runs everywhere" if known else "kernels=native runs everywhere"


def line(peer: Peer) -> str:
    """Why it runs, and what is to be known of it."""
    return f"mlstm_kernels, as asked{f'; {_CONSTANT}' if peer.constant else ''}"


@final
@dataclass(frozen=True)
class PeerCell:
    """A kernel as one of our cells: any length, soft-capped gates, gates in float32 under autocast.

    Attributes:
        kernel: of mlstm_kernels.
        peer: what is known of it.
        chunk: longest chunk.
        soft_cap: bound of both gate pre-activations; None for none.
        eps: added to the normaliser.
    """

    kernel: Callable[..., Tensor]
    peer: Peer
    chunk: int
    soft_cap: float | None
    eps: float

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor) -> Tensor:
        """q, k, v ``B H T D`` and gate pre-activations ``B H T`` to h ``B H T D``.

        Tokens behind the last do not reach back, so any padding makes a length a multiple of the chunk.
        """
        T, dtype = v.shape[2], v.dtype
        spare = -T % self.chunk if self.peer.padded else 0
        with torch.autocast(q.device.type, enabled=False):  # it would round the gates to bfloat16
            i, f = (F.pad(soft_capped(x, self.soft_cap), (0, spare)).contiguous() for x in (i, f))
            wide = dtype if self.peer.compiles else i.dtype  # native ones cannot mix dtypes
            q, k, v = (F.pad(x, (0, 0, 0, spare)).contiguous().to(wide) for x in (q, k, v))
            return self.kernel(q=q, k=k, v=v, i=i, f=f, chunk_size=self.chunk, eps=self.eps)[:, :, :T].to(dtype)


def cell(peer: Peer, chunk: int, soft_cap: float | None, eps: float) -> PeerCell:
    """The kernel, imported; what speaks against it is asked before, see :func:`cannot` and :func:`why_not`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch's, about how they are written
        from mlstm_kernels.torch import get_mlstm_kernel  # seconds, and only where it is installed

        kernel = get_mlstm_kernel(peer.name)
    return PeerCell(kernel, peer, chunk, soft_cap, eps)
