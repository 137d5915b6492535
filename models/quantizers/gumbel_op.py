"""The Gumbel softmax with its lookup of codes as one node for autograd, by the kernels of gumbel_kernels.py."""

from typing import Any

import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.quantizers.gumbel_kernels import PIECE, gumbel_backward, gumbel_forward
from models.quantizers.statistics import of_codes
from models.xlstm.triton.launch import Call
from models.xlstm.triton.op import run_calls

NUMBERS = 4096
"""Of a tile, codes rounded up to pieces, at least one token."""
SPANS = 512
"""Programs a group, at most: each adds up codes for itself."""


def forward_calls(
    logits: Tensor, weight: Tensor, temperature: Tensor, seed: Tensor | None, scale: float, made: tuple[Tensor, Tensor]
) -> tuple[list[Call], Tensor]:
    """Fill chosen codes ``N G`` and logarithms ``2 N G``; sums ``spans 2 G V`` of soft and of chosen codes."""
    N, G, V = logits.shape
    rows = _rows(V)
    tiles = triton.cdiv(N, rows)
    span = max(1, triton.cdiv(tiles, SPANS))
    spans = triton.cdiv(tiles, span)
    sums = logits.new_empty(spans, 2, G, V, dtype=torch.float32)
    args = (logits, weight, temperature, temperature if seed is None else seed, *made, sums, N, span, spans, scale)
    return [Call(gumbel_forward, spans * G, args, _options(G, V, seed))], sums


def backward_calls(
    logits: Tensor, weight: Tensor, temperature: Tensor, seed: Tensor | None, scale: float, log_sums: Tensor,
    grads: tuple[Tensor, Tensor, Tensor],
) -> list[Call]:  # fmt: skip
    """Fill the last of ``grads``: of the noisy softmax ``G N V``, of sums of soft codes ``G V``, of the logits."""
    N, G, V = logits.shape
    args = (logits, weight, temperature, temperature if seed is None else seed, log_sums, *grads, N, scale)
    return [Call(gumbel_backward, triton.cdiv(N, _rows(V)) * G, args, _options(G, V, seed))]


def _rows(codes: int) -> int:
    """Tokens of a tile, a power of two."""
    return max(1, triton.next_power_of_2(NUMBERS // (triton.cdiv(codes, PIECE.value) * PIECE.value) + 1) // 2)


def _options(groups: int, codes: int, seed: Tensor | None) -> dict[str, Any]:
    return {"G": groups, "V": codes, "BR": _rows(codes), "NOISE": seed is not None, "num_warps": 4}


@torch.library.custom_op("wavexlstm::gumbel", mutates_args=())
def gumbel(
    logits: Tensor, weight: Tensor, temperature: Tensor, seed: Tensor | None, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Chosen codes ``N G`` of logits ``N G V``, sums of soft and of chosen codes ``2 G V``, and logarithms for the gradient."""
    N, G, _ = logits.shape
    logits = logits.contiguous()
    chosen, log_sums = logits.new_empty(N, G, dtype=torch.int64), logits.new_empty(2, N, G, dtype=torch.float32)
    calls, sums = forward_calls(logits, weight.contiguous(), temperature, seed, scale, (chosen, log_sums))
    run_calls(calls, logits.device)
    return chosen, sums.sum(0), log_sums


@gumbel.register_fake
def _(logits: Tensor, weight: Tensor, temperature: Tensor, seed: Tensor | None, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    N, G, V = logits.shape
    sums, log_sums = (logits.new_empty(shape, dtype=torch.float32) for shape in ((2, G, V), (2, N, G)))
    return logits.new_empty(N, G, dtype=torch.int64), sums, log_sums


@torch.library.custom_op("wavexlstm::gumbel_backward", mutates_args=())
def gumbel_grad(
    dsoft: Tensor, dshares: Tensor, logits: Tensor, weight: Tensor, temperature: Tensor, seed: Tensor | None, log_sums: Tensor,
    scale: float,
) -> Tensor:  # fmt: skip
    """Gradient of the logits from those of the noisy softmax ``G N V`` and of the sums of soft codes ``G V``."""
    logits = logits.contiguous()
    dlogits = torch.empty_like(logits)
    grads = (dsoft.contiguous(), dshares.contiguous(), dlogits)
    run_calls(backward_calls(logits, weight.contiguous(), temperature, seed, scale, log_sums, grads), logits.device)
    return dlogits


@gumbel_grad.register_fake
def _(
    dsoft: Tensor, dshares: Tensor, logits: Tensor, weight: Tensor, temperature: Tensor, seed: Tensor | None, log_sums: Tensor,
    scale: float,
) -> Tensor:  # fmt: skip
    return torch.empty_like(logits, memory_format=torch.contiguous_format)


def chosen_codes(
    logits: Tensor, vectors: Tensor, weight: Tensor, temperature: Tensor, *, scale: float, noisy: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Vectors of the codes a Gumbel softmax chooses, straight through (Jang et al. 2017, section 2.2), and how often.

    Args:
        logits: ``N G V``; the softmax is of them times ``scale``.
        vectors: ``G V d``.
        weight: of tokens in the sums, ``N`` float32.
        temperature: one number; the softmax is of noisy logits over it.
        scale: see ``logits``.
        noisy: whether to add noise, drawn from the device's default generator by way of a seed.

    Returns:
        (vectors ``N G d`` float32, codes ``N G`` int64, sums of softmax without noise or temperature ``G V``, which has a
        gradient too, sums of chosen codes ``G V``).
    """
    seed = torch.randint(2**31, (1,), device=logits.device) if noisy else None
    return _ChosenCodes.apply(logits, vectors, weight, temperature, seed, scale)  # pyright: ignore[reportReturnType]


class _ChosenCodes(torch.autograd.Function):
    """See :func:`chosen_codes`; keeps the logits, nothing else of their size."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, vectors: Tensor, weight: Tensor, temperature: Tensor, seed: Tensor | None, scale: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        chosen, sums, log_sums = torch.ops.wavexlstm.gumbel(logits, weight, temperature, seed, scale)
        soft, hard = sums[0].clone(), sums[1].clone()
        ctx.save_for_backward(logits, vectors, weight, temperature, seed, chosen, log_sums)
        ctx.scale = scale
        ctx.mark_non_differentiable(chosen, hard)
        groups = torch.arange(vectors.shape[0], device=vectors.device)
        return vectors.float()[groups, chosen], chosen, soft, hard

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        logits, vectors, weight, temperature, seed, chosen, log_sums = ctx.saved_tensors
        grad = grads[0].transpose(0, 1).to(logits.dtype)  # G N d
        dsoft = torch.bmm(grad, vectors.to(logits.dtype).mT)
        told = (logits, weight, temperature, seed, log_sums, ctx.scale)
        dlogits = torch.ops.wavexlstm.gumbel_backward(dsoft, grads[2].float(), *told)
        return dlogits, of_codes(chosen, grad, vectors.shape[1]).to(vectors.dtype), None, None, None, None
