"""How evenly codes are used."""

import torch
from torch import Tensor
from torch.nn import functional as F

from utils.distributed import all_reduce_sum
from utils.slices import slices

_TINY = 1e-20
"""Keeps the logarithm's gradient finite for a code of probability 0."""


def perplexity(share: Tensor) -> Tensor:
    """Σ over groups of exp(entropy): shares ``G V`` (each group sums to 1) to a scalar between G and G·V.

    Baevski et al. 2020, equation 4 and the text below it. Differentiable.
    """
    return (-(share * share.clamp_min(_TINY).log()).sum(-1)).exp().sum()


def shares(soft: Tensor, indices: Tensor, where: Tensor, *, reduce: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Mean use of each code over the positions that count.

    Args:
        soft: ``B M G V`` soft distributions.
        indices: ``B M G`` chosen codes.
        where: ``B M`` bool.
        reduce: over all ranks, differentiably; every rank must then come here.

    Returns:
        (soft shares ``G V``, differentiable; hard shares ``G V``; number of positions, scalar); shares are 0 where none counts.
    """
    groups, codes = soft.shape[-2:]
    weight = where.flatten().float()
    with torch.autocast(soft.device.type, enabled=False):
        soft_sum = weight @ soft.float().flatten(0, 1).flatten(1)
    number = indices.flatten(0, 1) + torch.arange(groups, device=indices.device) * codes
    hard_sum = weight.new_zeros(groups * codes).scatter_add(0, number.flatten(), weight.repeat_interleave(groups))
    return shares_of_sums(soft_sum.view(groups, codes), hard_sum.view(groups, codes), weight.sum(), reduce=reduce)


def shares_of_sums(soft: Tensor, hard: Tensor, count: Tensor, *, reduce: bool) -> tuple[Tensor, Tensor, Tensor]:
    """What :func:`shares` gives, from sums over positions.

    Args:
        soft, hard: sums of soft distributions and of chosen codes, ``G V``.
        count: number of positions, scalar.
        reduce: as there.
    """
    sums = torch.cat([soft.flatten(), hard.flatten(), count[None]])
    if reduce:
        sums = all_reduce_sum(sums)
    count = sums[-1]
    soft_share, hard_share = (sums[:-1] / count.clamp_min(1.0)).view(2, *soft.shape)
    return soft_share, hard_share.detach(), count.detach()


class _StraightThrough(torch.autograd.Function):
    """Look up the hard code forward, pass the soft code's gradient backward; no ``[N, G·V, d]`` product on either way."""

    @staticmethod
    def forward(ctx, soft: Tensor, codebook: Tensor, indices: Tensor) -> Tensor:  # noqa: ANN001
        ctx.save_for_backward(codebook, indices)
        groups = torch.arange(codebook.shape[0], device=indices.device)
        return codebook[groups, indices]

    @staticmethod
    def backward(ctx, *grads: Tensor) -> tuple[Tensor, Tensor, None]:  # noqa: ANN001
        codebook, indices = ctx.saved_tensors
        grad = grads[0].transpose(0, 1)  # G N d
        to_soft = (grad @ codebook.transpose(1, 2)).transpose(0, 1)
        return to_soft, of_codes(indices, grad, codebook.shape[1]), None


def of_codes(indices: Tensor, grad: Tensor, codes: int) -> Tensor:
    """Gradients ``G N d`` of chosen codes ``N G``, added up by code: ``G V d``, at least float32.

    A matrix product, since scattered sums are not reproducible; on a GPU in slices of tokens, see :func:`utils.slices.slices`.
    """
    hard = F.one_hot(indices.t(), codes).to(grad.dtype)
    parts = slices(hard, hard.shape[1])
    hard, grad = (x.unflatten(1, (parts, -1)) for x in (hard, grad))
    return (hard.transpose(2, 3) @ grad).sum(1, dtype=torch.promote_types(grad.dtype, torch.float32))


def straight_through(soft: Tensor, codebook: Tensor, indices: Tensor) -> Tensor:
    """Hard codes forward, soft codes backward (Jang et al. 2017, section 2.2).

    Args:
        soft: ``N G V`` float32 distributions; they receive the gradient of Σᵥ soft · codebook.
        codebook: ``G V d``; receives the gradient of the chosen codes.
        indices: ``N G`` chosen codes.

    Returns:
        ``N G d``.
    """
    return _StraightThrough.apply(soft, codebook, indices)
