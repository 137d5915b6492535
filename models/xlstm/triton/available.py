"""Whether our Triton kernels can run here, and why not; imports no Triton."""

import os
import re
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

import torch

OLDEST_TRITON = (3, 6)
"""Least release of Triton the kernels were ever compiled with."""
OLDEST = (8, 0)
"""Least compute capability: bfloat16 on tensor cores, asynchronous copies."""
WIDEST = 256
"""Features of the widest mLSTM head."""
FEATURES = 64
"""Inner features that a program around the mLSTM cell owns."""
BEFORE = 16
"""Tokens before a tile of theirs that its convolution may reach: the least a matrix product takes."""
WIDEST_SLSTM = {torch.bfloat16: 128, torch.float16: 128, torch.float32: 64}
"""Features of the widest sLSTM head: a program holds 4 · D · D numbers, 128 KiB at 128 in 16 bits, 64 KiB at 64 in float32."""

WIDEST_CODEBOOK = 2048
"""Codes of a group, at most, in the Gumbel quantizer's kernels: a program holds all logits of a token."""


def interpreted() -> bool:
    """Whether Triton's interpreter runs the kernels on the CPU (``TRITON_INTERPRET=1``): slow, for checking."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def _release() -> tuple[int, ...]:
    """First two numbers of Triton's release; builds that name none are taken for new."""
    for package in ("triton", "pytorch-triton"):
        try:
            return tuple(map(int, re.findall(r"\d+", version(package))[:2]))
        except PackageNotFoundError:
            continue
    return OLDEST_TRITON


def why_not() -> str | None:
    """What is missing, with its remedy; None where the kernels can run."""
    if find_spec("triton") is None:
        return "Triton is not installed here (it comes with PyTorch for CUDA on Linux); kernels=native runs everywhere"
    if _release() < OLDEST_TRITON:
        have, want = (".".join(map(str, pair)) for pair in (_release(), OLDEST_TRITON))
        return f"Triton {have} is installed, {want} or later is needed (PyTorch 2.11 has it); kernels=native runs everywhere"
    if interpreted():
        return None
    if not torch.cuda.is_available():
        return "no CUDA device is found (TRITON_INTERPRET=1 checks the kernels on a CPU, slowly); kernels=native runs everywhere"
    if torch.cuda.get_device_capability() < OLDEST:
        have, want = (".".join(map(str, pair)) for pair in (torch.cuda.get_device_capability(), OLDEST))
        return f"the CUDA device has compute capability {have}, {want} is needed; kernels=native runs everywhere"
    return None


def too_wide(width: int, dtype: torch.dtype) -> str | None:
    """Why sLSTM heads of this width are not for the kernels; None where they are."""
    widest = WIDEST_SLSTM[dtype]
    if width <= widest:
        return None
    return (
        f"sLSTM heads of {width} features in {str(dtype).removeprefix('torch.')}: at most {widest}, as their recurrent matrix"
        " must stay on chip; more heads (slstm_num_heads), or kernels=native"
    )


def takes_whole_blocks(inner: int, heads: int, block: int, taps: int) -> bool:
    """Whether the kernels compute all of an mLSTM block between its projections, not its cell alone.

    Args:
        inner: features there, I.
        heads: H.
        block: width of the blocks of the q, k and v matrices.
        taps: tokens the convolution sees.
    """
    fits = inner % FEATURES == 0 and FEATURES % block == 0 and taps <= BEFORE + 1
    return fits and inner // heads <= WIDEST and 2 * heads <= WIDEST
