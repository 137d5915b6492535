"""The gates of the mLSTM: from pre-activations to sums of log forget gates and their running maxima, gradients by hand."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

EMPTY = -1e30
"""Scale of a memory that holds nothing; finite, so that differences of two of them are 0 and never NaN."""


def soft_capped(x: Tensor, cap: float | None) -> Tensor:
    """cap · tanh(x / cap), in at least float32; x itself where ``cap`` is None."""
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    return x if cap is None else cap * torch.tanh(x / cap)


def chunk_gates(i: Tensor, f: Tensor, soft_cap: float | None, chunks: int, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Gates cut into chunks; where they are longer than the sequence, a padded token writes nothing and forgets nothing.

    Args:
        i, f: pre-activations ``B H T``.
        soft_cap: bound of both; None for none.
        chunks, length: N and L, with N · L ≥ T.

    Returns:
        u = i − b, b = log σ(f) summed from the chunk's start, and the running maximum of u; each ``B·H N L``, at least float32.
    """
    return _ChunkGates.apply(i, f, soft_cap, chunks, length)  # pyright: ignore[reportReturnType]


class _ChunkGates(torch.autograd.Function):
    """See :func:`chunk_gates`: one node of the graph instead of ten, which counts where sequences are short."""

    @staticmethod
    def forward(ctx: Any, i: Tensor, f: Tensor, cap: float | None, N: int, L: int) -> tuple[Tensor, Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        i_capped, f_capped = soft_capped(i.contiguous(), cap), soft_capped(f.contiguous(), cap)
        log_f, inputs, spare = F.logsigmoid(f_capped), i_capped, N * L - i.shape[-1]
        if spare:
            log_f, inputs = F.pad(log_f, (0, spare)), F.pad(inputs, (0, spare), value=EMPTY)
        b = log_f.reshape(-1, N, L).cumsum(-1)
        u = inputs.reshape(-1, N, L) - b
        peak, where = u.cummax(-1)
        ctx.save_for_backward(i_capped, f_capped, where)
        ctx.cap, ctx.dtypes = cap, (i.dtype, f.dtype)
        return u, b, peak

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, du: Tensor | None, db: Tensor | None, dpeak: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        i, f, where = ctx.saved_tensors
        di = torch.zeros_like(where, dtype=i.dtype) if du is None else du
        if dpeak is not None:
            di = di.scatter_add(-1, where, dpeak)
        db = -di if db is None else db - di
        dlog = db.flip(-1).cumsum(-1).flip(-1)
        di, dlog = (x.reshape(*i.shape[:-1], -1)[..., : i.shape[-1]] for x in (di, dlog))
        df = dlog * torch.sigmoid(-f)
        if ctx.cap is not None:
            di, df = di * (1.0 - (i / ctx.cap).square()), df * (1.0 - (f / ctx.cap).square())
        return di.to(ctx.dtypes[0]), df.to(ctx.dtypes[1]), None, None, None
