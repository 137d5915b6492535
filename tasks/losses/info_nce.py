"""InfoNCE: pick a position's own target among the targets of other positions."""

from dataclasses import dataclass
from enum import Enum
from typing import final

import torch
from torch import Tensor
from torch.nn import functional as F

from models.xlstm.triton.available import why_not
from tasks.contracts import LOSSES, Choice, CodeLoss
from utils.errors import demand
from utils.rng import Draw

WIDEST, MOST = 256, 255
"""Features of the vectors, and negatives of a position, with which our kernels do: vectors stay on chip, counts are bytes."""


class Negatives(str, Enum):
    """Where wrong targets come from."""

    trace = "trace"
    """Other scored positions of the same trace."""
    batch = "batch"
    """Scored positions of all traces of this rank's batch; the loss of a trace then depends on its neighbours."""


@dataclass(kw_only=True)
class InfoNCEConfig:
    """Settings of :class:`InfoNCE`."""

    negatives: Negatives = Negatives.trace
    """Draw wrong targets from the same ``trace`` or from the whole ``batch``."""
    count: int = 100
    """Wrong targets a position, at least 1; random guessing gives a loss of log(count + 1)."""
    temperature: float = 0.1
    """Divides the cosine similarities, above 0."""

    def __post_init__(self) -> None:
        demand(
            (self.count >= 1, f"count = {self.count}: must be at least 1"),
            (self.temperature > 0, f"temperature = {self.temperature}: must be above 0"),
        )


@LOSSES.register("info_nce", InfoNCEConfig)
@final
class InfoNCE(CodeLoss):
    """−log softmax of cosine similarity / temperature (Baevski et al. 2020, equation 3).

    Negatives are drawn uniformly, with replacement, never the position itself; one that carries the position's own code is
    left out (scored −∞). Natively, similarities are one product of all positions with all targets of the trace, from which
    logits are gathered: negatives are never materialised as vectors. Computed in float32 whatever the autocast; on a GPU, vectors
    in half precision are multiplied as they are, which is exact, and added up in float32 by our Triton kernels.
    """

    def __init__(self, cfg: InfoNCEConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.has_kernels = why_not() is None

    def forward(self, context: Tensor, target: Tensor, codes: Tensor | None, scored: Tensor, draw: Draw) -> Choice:
        """See :meth:`CodeLoss.forward`.

        A position is a hit if its own target scores above every negative and no negative carries its code: with a collapsed
        codebook nothing is left to tell apart and the accuracy is 0, although the loss is 0 too. Traces with fewer than two
        scored positions have no negatives and are not scored.
        """
        scored = scored & (scored.sum(1, keepdim=True) >= 2)
        loss, hits = (self._by_kernels if self._fast(context, target) else self._natively)(context, target, codes, scored, draw)
        hits = hits & scored
        count = scored.sum().float()
        mean = torch.where(scored, loss, 0.0).sum() / count.clamp_min(1.0)
        return Choice(mean, hits.sum() / count.clamp_min(1.0), count, hits, scored)

    def _fast(self, context: Tensor, target: Tensor) -> bool:
        """Whether our Triton kernels compute it: half precision, whose products they add up in float32."""
        half = context.dtype is target.dtype and context.dtype in (torch.bfloat16, torch.float16)
        fits = context.shape[-1] <= WIDEST and self.cfg.count <= MOST and self.cfg.negatives is Negatives.trace
        return context.is_cuda and half and fits and self.has_kernels

    def _by_kernels(
        self, context: Tensor, target: Tensor, codes: Tensor | None, scored: Tensor, draw: Draw
    ) -> tuple[Tensor, Tensor]:
        """What :meth:`_natively` gives."""
        from tasks.losses.info_nce_op import losses  # only where there is Triton

        return losses(context, target, codes, _other_positions(scored, self.cfg.count, draw), self.cfg.temperature)

    def _natively(
        self, context: Tensor, target: Tensor, codes: Tensor | None, scored: Tensor, draw: Draw
    ) -> tuple[Tensor, Tensor]:
        """Loss of every position, and which are hits."""
        with torch.autocast(context.device.type, enabled=False):
            context = F.normalize(context.float(), dim=-1)
            target = F.normalize(target.float(), dim=-1)
            own, wrong, same = self._logits(context, target, codes, scored, draw)
            logits = torch.cat([own[..., None], wrong.masked_fill(same, -torch.inf)], dim=-1)
            loss = torch.logsumexp(logits, dim=-1) - own
        return loss, (own > wrong.amax(-1)) & ~same.any(-1)

    def _logits(
        self, context: Tensor, target: Tensor, codes: Tensor | None, scored: Tensor, draw: Draw
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of the own target ``B M``, of the negatives ``B M K``, and which of these carry the position's own code.

        A negative that is the position itself counts as carrying its code.
        """
        if self.cfg.negatives is Negatives.batch:
            pool = _pool(scored, draw)
            number = torch.arange(scored.numel(), device=scored.device).view_as(scored)
            pick = draw.integers("negatives", pool.shape[1], scored.shape[1], self.cfg.count)
            others = target.flatten(0, 1)[pool]
            their_codes = None if codes is None else codes.flatten()[pool]
            same = _chosen(pool, pick) == number[..., None]
        else:
            pick = _other_positions(scored, self.cfg.count, draw)
            others, their_codes = target, codes
            same = torch.zeros_like(pick, dtype=torch.bool)
        logits = context @ others.transpose(1, 2) / self.cfg.temperature  # B M P
        if codes is not None and their_codes is not None:
            same = same | (_chosen(their_codes, pick) == codes[..., None])
        # from the same product where it is there: equal targets then tie exactly, whatever the precision of the matmul
        own = (context * target).sum(-1) / self.cfg.temperature if others is not target else logits.diagonal(dim1=1, dim2=2)
        return own, logits.gather(2, pick), same


def _pool(scored: Tensor, draw: Draw) -> Tensor:
    """For each trace as many candidates as it has positions, from all scored positions of the flattened batch, ``B M``."""
    first = (~scored.flatten()).to(torch.uint8).argsort(stable=True)
    return first[draw.integers("negatives/pool", scored.sum(), scored.shape[1])]


def _chosen(values: Tensor, pick: Tensor) -> Tensor:
    """Values ``B P`` at ``B M K``."""
    return values.gather(1, pick.flatten(1)).view_as(pick)


def _other_positions(scored: Tensor, count: int, draw: Draw) -> Tensor:
    """For each position ``count`` other scored positions of its trace, uniformly, ``B M K``."""
    rank = scored.cumsum(1) - 1
    others = (rank[:, -1:, None]).clamp_min(0)
    drawn = draw.integers("negatives", others, scored.shape[1], count)
    drawn = drawn + (drawn >= rank[..., None])
    order = (~scored).to(torch.uint8).argsort(dim=1, stable=True)  # rank to position: the scored ones come first
    return _chosen(order, drawn.clamp_max(scored.shape[1] - 1))
