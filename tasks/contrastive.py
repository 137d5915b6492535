"""Contrastive pretraining: which of 101 codes belongs to this hidden token?"""

from dataclasses import dataclass, field
from typing import ClassVar, cast, final

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from dataloaders.batch import Batch
from models.contracts import Codes
from models.network import Network
from tasks.contracts import TASKS, Choice, CodeLoss, Parts, Scores, StepOutput, Task, TaskConfig
from tasks.masking import (
    MaskConfig,
    conceal,
    demand_hidden,
    hidden_ratio,
    mask_channels,
    most_hidden,
    pick,
    positions,
    span_mask,
    token_valid,
)
from utils import plots
from utils.errors import ConfigError, demand
from utils.optim_params import no_decay
from utils.rng import Draw


@dataclass(kw_only=True)
class ContrastiveConfig(TaskConfig):
    """Settings of :class:`Contrastive`."""

    mask: MaskConfig = field(default_factory=MaskConfig)
    """Which tokens are hidden; spans count tokens."""
    width: int = 256
    """E, width in which context and target are compared, at least 1."""
    diversity: float = 0.1
    """Weight of the quantizer's penalty, at least 0."""
    quantize: bool = True
    """Compare with quantized features; false compares with the clean features themselves (and takes quantizer=none)."""
    only_masked: bool = True
    """Score hidden tokens only; false scores every valid token."""

    def __post_init__(self) -> None:
        demand(
            (self.width >= 1, f"width = {self.width}: must be at least 1"),
            (self.diversity >= 0, f"diversity = {self.diversity}: must be at least 0"),
        )


@dataclass
class Line:
    """What a step computes on its way, at M padded positions a trace.

    Attributes:
        hidden, valid: ``B T`` bool, tokens.
        positions, scored: ``B M``, tokens that are scored and which of them are no padding.
        codes: of the clean features at ``positions``; None without a quantizer.
        numbers: ``B M`` int64, one number for each combination of codes; None without a quantizer.
        context, target: ``B M E``.
    """

    hidden: Tensor
    valid: Tensor
    positions: Tensor
    scored: Tensor
    codes: Codes | None
    numbers: Tensor | None
    context: Tensor
    target: Tensor


@TASKS.register("contrastive", ContrastiveConfig)
@final
class Contrastive(Task):
    """wav2vec 2.0 on seismograms (Baevski et al. 2020; SeisLM, Liu et al. 2024).

    The encoder's clean features are quantized into targets. Their projections, with spans of tokens replaced by a learned
    vector, go through the backbone, whose context must pick each hidden token's own code among those of other hidden tokens.
    Only hidden tokens are quantized, projected and scored: a static number M of them a trace.

    Args:
        cfg: mask, widths, weights.
        parts: with a quantizer, unless ``quantize`` is false.

    Raises:
        ConfigError: a quantizer is missing or given in vain, or the mask hides nothing worth scoring.
    """

    scores: ClassVar[Scores] = Scores.codes
    uses_quantizer: ClassVar[bool] = True
    uses_decoder: ClassVar[bool] = False
    monitor: ClassVar[tuple[str, str]] = ("val/accuracy", "max")

    def __init__(self, cfg: ContrastiveConfig, parts: Parts) -> None:
        super().__init__()
        encoder = parts.network.encoder
        if cfg.quantize != (parts.quantizer is not None):
            given = "none" if parts.quantizer is None else "one"
            remedy = "set quantizer=gumbel" if cfg.quantize else "set quantizer=none"
            raise ConfigError([f"task 'contrastive': quantize = {cfg.quantize} but the quantizer given is {given}: {remedy}"])
        demand_hidden(cfg.mask, -(-parts.spec.samples // encoder.stride), of="tokens")
        self.cfg = cfg
        self.rate = parts.spec.rate
        self.loss = cast(CodeLoss, parts.loss)
        self.loss_val = cast(CodeLoss, parts.loss_val)
        self.metrics = nn.ModuleDict(parts.metrics)
        self.quantizer = parts.quantizer
        self.mask_token = no_decay(nn.Parameter(torch.rand(encoder.d_out)))
        self.to_target = nn.Linear(encoder.d_features if parts.quantizer is None else parts.quantizer.d_out, cfg.width)
        self.to_context = nn.Linear(parts.network.backbone.d_out, cfg.width)

    @classmethod
    def takes_quantizer(cls, cfg: TaskConfig) -> bool:
        """Unless the targets are continuous."""
        return cast(ContrastiveConfig, cfg).quantize

    def step(self, net: Network, batch: Batch, draw: Draw) -> StepOutput:
        """See :meth:`Task.step`."""
        line = self.line(net, batch, draw)
        choice = self._choose(self.loss if self.training else self.loss_val, line, draw)
        logs = {"accuracy": choice.accuracy}
        for name, metric in self.metrics.items():
            logs[name] = self._choose(cast(CodeLoss, metric), line, draw).loss.detach()
        gauges = {"hidden_ratio": hidden_ratio(line.hidden, line.valid)}
        penalty: Tensor | float = 0.0
        if self.quantizer is not None and line.codes is not None:
            gauges |= {"perplexity": line.codes.perplexity, "hard_perplexity": line.codes.hard_perplexity}
            gauges |= self.quantizer.logs()
            penalty = self.cfg.diversity * line.codes.penalty
        return StepOutput(choice.loss, choice.count, logs, gauges, penalty)

    def line(self, net: Network, batch: Batch, draw: Draw) -> Line:
        """Wave to context and target at the scored tokens."""
        mask = self.cfg.mask
        features = net.encoder.features(batch.wave)  # B T F, clean
        valid = token_valid(batch.valid, net.encoder.stride)
        hidden = span_mask(mask, valid, draw)
        length = hidden.shape[1]
        at, scored = positions(hidden, most_hidden(mask, length)) if self.cfg.only_masked else positions(valid, length)
        clean = pick(features, at)  # B M F
        codes = None if self.quantizer is None else self.quantizer(clean, scored)
        tokens = conceal(mask, net.encoder.project(features), self.mask_token, hidden, valid, draw)
        if self.training:
            tokens = mask_channels(mask, tokens, draw)
        context = self.to_context(pick(net.backbone(tokens), at))  # B M E
        target = self.to_target(clean if codes is None else codes.vectors)
        return Line(hidden, valid, at, scored, codes, self._numbers(codes), context, target)

    def _numbers(self, codes: Codes | None) -> Tensor | None:
        """One number for each combination of the groups' codes, ``B M``."""
        if self.quantizer is None or codes is None:
            return None
        place = self.quantizer.codes ** torch.arange(self.quantizer.groups, device=codes.indices.device)
        return (codes.indices * place).sum(-1)

    @staticmethod
    def _choose(loss: CodeLoss, line: Line, draw: Draw) -> Choice:
        return loss(line.context, line.target, line.numbers, line.scored, draw)

    def anneal(self, progress: float) -> None:
        """Pass the run's progress on to the quantizer."""
        if self.quantizer is not None:
            self.quantizer.anneal(progress)

    def figures(self, net: Network, batch: Batch, draw: Draw) -> dict[str, Figure]:
        """Hidden spans with hits and codes along a trace; how often codes are used; what the frequent codes look like."""
        line = self.line(net, batch, draw)
        choice = self._choose(self.loss_val, line, draw)
        outcome = torch.where(choice.scored, choice.hits.long(), -1)
        outcomes = torch.full_like(line.hidden, -1, dtype=torch.long).scatter_reduce(1, line.positions, outcome, "amax")
        codes = None
        if self.quantizer is not None:
            codes = self.quantizer(net.encoder.features(batch.wave), line.valid)
        wave, stride = batch.wave.float().cpu().numpy(), net.encoder.stride
        shown = {
            "contrastive": plots.contrastive(
                wave,
                line.hidden.cpu().numpy(),
                outcomes.cpu().numpy(),
                None if codes is None else codes.indices.cpu().numpy(),
                rate=self.rate,
            )
        }
        if self.quantizer is not None and codes is not None:
            indices, valid = codes.indices.cpu().numpy(), line.valid.cpu().numpy()
            shown["code_usage"] = plots.code_usage(indices, valid, codes=self.quantizer.codes)
            shown["code_neighbours"] = plots.code_neighbours(wave, indices, valid, stride=stride, rate=self.rate)
        return shown
