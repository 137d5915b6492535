"""Whether our Triton kernels can run here, and why not; imports no Triton."""

import os
from importlib.util import find_spec

import torch

OLDEST = (8, 0)
"""Least compute capability: bfloat16 on tensor cores, asynchronous copies."""


def interpreted() -> bool:
    """Whether Triton's interpreter runs the kernels on the CPU (``TRITON_INTERPRET=1``): slow, for checking."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def why_not() -> str | None:
    """What is missing, with its remedy; None where the kernels can run."""
    if find_spec("triton") is None:
        return "Triton is not installed here (it comes with PyTorch for CUDA on Linux); kernels=native runs everywhere"
    if interpreted():
        return None
    if not torch.cuda.is_available():
        return "no CUDA device is found (TRITON_INTERPRET=1 checks the kernels on a CPU, slowly); kernels=native runs everywhere"
    if torch.cuda.get_device_capability() < OLDEST:
        have, want = (".".join(map(str, pair)) for pair in (torch.cuda.get_device_capability(), OLDEST))
        return f"the CUDA device has compute capability {have}, {want} is needed; kernels=native runs everywhere"
    return None
