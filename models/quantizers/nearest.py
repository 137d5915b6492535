"""The nearest-code quantizer of VQ-VAE, with exponential moving averages."""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.contracts import QUANTIZERS, Codes, Quantizer
from models.quantizers.codebook import CodebookConfig
from models.quantizers.statistics import perplexity, shares
from utils.distributed import all_reduce_plain, all_reduce_sum, rank
from utils.errors import demand


@dataclass(kw_only=True)
class NearestConfig(CodebookConfig):
    """Settings of :class:`Nearest`."""

    decay: float = 0.99
    """Share of the past in the moving averages, in [0, 1)."""
    revive_below: float = 0.1
    """A code used less than this fraction of an even share is moved onto a feature of the batch, in [0, 1); 0 never does."""
    commitment: float = 0.25
    """Weight of the pull of features towards their code inside the penalty (the task weighs the penalty), at least 0."""

    def __post_init__(self) -> None:
        demand(
            *self.rules(),
            (0 <= self.decay < 1, f"decay = {self.decay}: must be in [0, 1)"),
            (0 <= self.revive_below < 1, f"revive_below = {self.revive_below}: must be in [0, 1)"),
            (self.commitment >= 0, f"commitment = {self.commitment}: must be at least 0"),
        )


@QUANTIZERS.register("nearest", NearestConfig)
@final
class Nearest(Quantizer):
    """Linear → Euclidean nearest code in each group (van den Oord et al. 2017, section 3 and appendix A.1).

    Codes are no parameters: in training each moves towards the mean of the features it was chosen for, over all ranks. A code
    hardly used is moved onto a random scored feature of the first rank. Vectors pass gradients straight through; the penalty
    is the commitment loss. The soft distribution of the perplexity is softmax(−squared distance).

    Args:
        cfg: groups, codes, width, averages.
        d_in: F, width of the features.
    """

    codes_mean: Tensor
    usage: Tensor

    def __init__(self, cfg: NearestConfig, *, d_in: int) -> None:
        super().__init__()
        self.cfg = cfg
        self.groups, self.codes, self.d_out = cfg.groups, cfg.codes, cfg.width
        self.to_code = nn.Linear(d_in, cfg.width)
        self.register_buffer("codes_mean", torch.randn(cfg.groups, cfg.codes, cfg.width // cfg.groups))
        self.register_buffer("usage", torch.zeros(cfg.groups, cfg.codes))  # so the first batch places the codes

    def forward(self, features: Tensor, where: Tensor) -> Codes:
        """See :meth:`Quantizer.forward`."""
        x = self.to_code(features).float().unflatten(-1, (self.groups, -1))  # B M G d
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            book = self.codes_mean
            distance = x.square().sum(-1, keepdim=True) - 2 * torch.einsum("bmgd,gvd->bmgv", x, book) + book.square().sum(-1)
            indices = distance.argmin(-1)
            vectors = book[torch.arange(self.groups, device=indices.device), indices]
            soft, hard, count = shares((-distance).softmax(-1), indices, where, reduce=self.training)
            if self.training:
                self._follow(x.flatten(0, 1), indices.flatten(0, 1), where.flatten(), hard, count)
        pull = torch.where(where, (x - vectors).square().mean((-1, -2)), 0.0).sum()
        pull = all_reduce_sum(pull) if self.training else pull
        return Codes(
            vectors=(x + (vectors - x).detach()).flatten(-2),
            indices=indices,
            perplexity=perplexity(soft),
            hard_perplexity=perplexity(hard),
            penalty=self.cfg.commitment * pull / count.clamp_min(1.0),
        )

    def _follow(self, x: Tensor, indices: Tensor, where: Tensor, share: Tensor, count: Tensor) -> None:
        """Move the codes. ``x`` is ``N G d``, ``indices`` ``N G``, ``where`` ``N``, ``share`` ``G V`` of all ranks."""
        chosen = F.one_hot(indices.t(), self.codes).float() * where[:, None]  # G N V
        sums = torch.einsum("gnv,ngd->gvd", chosen, x)
        pick = torch.rand(self.groups, self.codes, device=x.device) * where.sum()
        scored_first = (~where).to(torch.uint8).argsort(stable=True)
        spare = x[scored_first[pick.long().clamp_max(len(x) - 1)], torch.arange(self.groups, device=x.device)[:, None]]
        first = where.any() & (rank() == 0)
        total = all_reduce_plain(torch.cat([sums.flatten(), (spare * first).flatten(), first[None].float()]))
        sums, spare = total[:-1].view(2, *self.codes_mean.shape)
        old = self.cfg.decay * self.usage
        usage = old + (1 - self.cfg.decay) * share
        toward = (1 - self.cfg.decay) * sums / count.clamp_min(1.0)
        moved = (old[..., None] * self.codes_mean + toward) / usage[..., None].clamp_min(1e-12)
        dead = (usage < self.cfg.revive_below / self.codes) & (total[-1] > 0)
        moved = torch.where(dead[..., None], spare, moved)
        usage = torch.where(dead, 1 / self.codes, usage)
        seen = count > 0
        self.codes_mean.copy_(torch.where(seen, moved, self.codes_mean))
        self.usage.copy_(torch.where(seen, usage, self.usage))

    def codebook(self) -> Tensor:
        """``G V width/G``."""
        return self.codes_mean
