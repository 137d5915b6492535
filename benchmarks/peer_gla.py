"""Simple gated linear attention (flash-linear-attention, ``pip install fla-core``) in place of the mLSTM's cell: a peer of
``benchmarks.step_gpu``.

Blocks, projections, convolutions and head norms stay ours, in PyTorch; the cell forgets by log σ(f) and knows neither input gates
nor a normaliser (Yang et al. 2024, "Gated Linear Attention Transformers with Hardware-Efficient Training").
Eager only: torch.compile 2.11 fails on a step whose graph breaks, as it does at the library's own kernels.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from models.xlstm.block import MLSTMBlock


def attention(q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor) -> Tensor:
    """The cell: q, k, v ``P·H B T D`` and pre-activations ``P·H B T``, of which i is not asked, to ``P·H B T D``."""
    from fla.ops.simple_gla import chunk_simple_gla  # pyright: ignore[reportMissingImports] - only the benchmark's machine has it

    q, k, v = (x.permute(1, 2, 0, 3) for x in (q, k, v))
    h, _ = chunk_simple_gla(q, k, v, F.logsigmoid(f.float()).permute(1, 2, 0))
    return h.permute(2, 0, 1, 3)


def with_attention(model: nn.Module) -> None:
    """Put it into all mLSTM blocks of a model with native kernels."""
    for part in model.modules():
        if isinstance(part, MLSTMBlock):
            part.cell = attention
