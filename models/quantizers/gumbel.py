"""The Gumbel-softmax quantizer of wav2vec 2.0."""

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from models.contracts import QUANTIZERS, Codes, Quantizer
from models.quantizers.codebook import CodebookConfig
from models.quantizers.statistics import perplexity, shares, shares_of_sums, straight_through
from models.xlstm.triton.available import WIDEST_CODEBOOK, why_not
from utils.errors import demand
from utils.optim_params import no_decay


@dataclass(kw_only=True)
class GumbelConfig(CodebookConfig):
    """Settings of :class:`Gumbel`."""

    scale_logits_in_quantization: bool = True
    """Divide the logits by the square root of the features' width, so that they start with unit variance."""
    temperature_start: float = 2.0
    """Temperature of the Gumbel-softmax at the start of the run."""
    temperature_end: float = 0.5
    """Temperature at the end of the run, above 0 and at most ``temperature_start``; a cosine in between."""

    def __post_init__(self) -> None:
        demand(
            *self.rules(),
            (
                0 < self.temperature_end <= self.temperature_start,
                f"temperature_end = {self.temperature_end}: must be above 0 and at most "
                f"temperature_start = {self.temperature_start}",
            ),
        )


@QUANTIZERS.register("gumbel", GumbelConfig)
@final
class Gumbel(Quantizer):
    """Linear → G·V logits → a code a group: hard Gumbel-softmax in training, argmax in evaluation (Baevski et al. 2020, 3.2).

    Initialised as wav2vec 2.0 is: code vectors uniform in [0, 1), logit weights N(0, 1), bias 0. The penalty is the diversity
    loss (G·V − perplexity) / (G·V). Statistics are sums over all ranks in training, of this rank alone in evaluation.
    Gumbel noise comes from the device's default generator, on a GPU with our Triton kernels (``fast``) by way of a seed a call.

    Args:
        cfg: groups, codes, width, temperature.
        d_in: F, width of the features.
    """

    temperature: Tensor

    def __init__(self, cfg: GumbelConfig, *, d_in: int) -> None:
        super().__init__()
        self.cfg = cfg
        self.groups, self.codes, self.d_out = cfg.groups, cfg.codes, cfg.width
        self.scale = d_in**-0.5 if cfg.scale_logits_in_quantization else 1.0
        self.fast = cfg.codes <= WIDEST_CODEBOOK and why_not() is None
        self.to_logits = nn.Linear(d_in, cfg.groups * cfg.codes)
        self.vectors = no_decay(nn.Parameter(torch.empty(cfg.groups, cfg.codes, cfg.width // cfg.groups)))
        self.register_buffer("temperature", torch.tensor(cfg.temperature_start))
        nn.init.normal_(self.to_logits.weight)
        nn.init.zeros_(self.to_logits.bias)
        nn.init.uniform_(self.vectors)

    def forward(self, features: Tensor, where: Tensor) -> Codes:
        """See :meth:`Quantizer.forward`."""
        logits = self.to_logits(features).unflatten(-1, (self.groups, self.codes))
        vectors, indices, soft, hard = (self._by_kernels if self.fast and logits.is_cuda else self._natively)(logits, where)
        even = perplexity(soft)
        size = self.groups * self.codes
        return Codes(
            vectors=vectors.view(*indices.shape[:2], self.d_out),
            indices=indices,
            perplexity=even.detach(),
            hard_perplexity=perplexity(hard),
            penalty=(size - even) / size,
        )

    def _by_kernels(self, logits: Tensor, where: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What :meth:`_natively` gives, with logits read once a way."""
        from models.quantizers.gumbel_op import chosen_codes  # only where there is Triton

        weight, temperature = where.flatten().float(), self.temperature if self.training else torch.ones_like(self.temperature)
        vectors, indices, soft, hard = chosen_codes(
            logits.flatten(0, 1), self.vectors, weight, temperature, scale=self.scale, noisy=self.training
        )
        soft, hard, _ = shares_of_sums(soft, hard, weight.sum(), reduce=self.training)
        return vectors, indices.unflatten(0, where.shape), soft, hard

    def _natively(self, logits: Tensor, where: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Vectors, codes ``B M G``, and shares of soft and of chosen codes."""
        logits = logits.float() * self.scale
        if self.training:
            gumbel = -torch.empty_like(logits).exponential_().log()
            choice = ((logits + gumbel) / self.temperature).softmax(-1)
        else:
            choice = logits.softmax(-1)
        indices = choice.argmax(-1)
        vectors = straight_through(choice.flatten(0, 1), self.vectors.float(), indices.flatten(0, 1))
        soft, hard, _ = shares(logits.softmax(-1), indices, where, reduce=self.training)
        return vectors, indices, soft, hard

    def codebook(self) -> Tensor:
        """``G V width/G``."""
        return self.vectors

    def anneal(self, progress: float) -> None:
        """Set the temperature, a cosine from start to end."""
        fall = 0.5 * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))
        self.temperature.fill_(self.cfg.temperature_end + (self.cfg.temperature_start - self.cfg.temperature_end) * fall)

    def logs(self) -> dict[str, Tensor]:
        """The temperature."""
        return {"temperature": self.temperature.clone()}
