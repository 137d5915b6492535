"""Masked reconstruction: put back the samples that were hidden."""

from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar, cast, final

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from dataloaders.batch import Batch
from models.network import Network
from tasks.contracts import TASKS, Parts, SampleLoss, Scores, StepOutput, Task, TaskConfig
from tasks.masking import (
    MaskConfig,
    conceal,
    demand_hidden,
    hidden_ratio,
    mask_channels,
    span_mask,
    token_samples,
    token_valid,
)
from utils import plots
from utils.rng import Draw


class Where(str, Enum):
    """What is hidden."""

    samples = "samples"
    """Samples of the wave, before the encoder."""
    tokens = "tokens"
    """Tokens, after the encoder; the samples they cover are scored."""


class Corrupt(str, Enum):
    """What replaces hidden values."""

    zero = "zero"
    """Zeros."""
    noise = "noise"
    """Standard normal noise: as loud as the normalised wave."""


def _reconstruction_mask() -> MaskConfig:
    return MaskConfig(ratio=0.75, span=50)


@dataclass(kw_only=True)
class MaskedReconstructionConfig(TaskConfig):
    """Settings of :class:`MaskedReconstruction`."""

    mask: MaskConfig = field(default_factory=_reconstruction_mask)
    """What is hidden; spans count samples, or tokens with ``where: tokens``."""
    where: Where = Where.samples
    """Hide ``samples`` of the wave, or ``tokens`` after the encoder."""
    corrupt: Corrupt = Corrupt.zero
    """Put ``zero`` or ``noise`` in place of what is hidden."""


@TASKS.register("regression", MaskedReconstructionConfig)
@final
class MaskedReconstruction(Task):
    """Reconstruct the wave from what was left of it; the hidden samples are scored (all valid ones with ``loss=mse``).

    Args:
        cfg: mask, what it hides, what it puts there.
        parts: without quantizer.

    Raises:
        ConfigError: the mask hides nothing worth scoring.
    """

    scores: ClassVar[Scores] = Scores.samples

    def __init__(self, cfg: MaskedReconstructionConfig, parts: Parts) -> None:
        super().__init__()
        stride = parts.network.encoder.stride
        tokens = cfg.where is Where.tokens
        length = -(-parts.spec.samples // stride) if tokens else parts.spec.samples
        demand_hidden(cfg.mask, length, of=cfg.where.value)
        self.cfg = cfg
        self.rate = parts.spec.rate
        self.loss = cast(SampleLoss, parts.loss)
        self.loss_val = cast(SampleLoss, parts.loss_val)
        self.metrics = nn.ModuleDict(parts.metrics)

    def step(self, net: Network, batch: Batch, draw: Draw) -> StepOutput:
        """See :meth:`Task.step`."""
        guess, hidden = self._predict(net, batch, draw)
        loss = self.loss if self.training else self.loss_val
        where = batch.valid if loss.everywhere else hidden
        value, count = loss(guess, batch.wave, where)
        logs = {name: metric(guess.detach(), batch.wave, where)[0] for name, metric in self.metrics.items()}
        return StepOutput(value, count, logs, {"hidden_ratio": hidden_ratio(hidden, batch.valid)})

    def reconstruct(self, net: Network, batch: Batch, draw: Draw) -> tuple[Tensor, Tensor]:
        """(guess ``B L C``, hidden samples ``B L``)."""
        guess, hidden = self._predict(net, batch, draw)
        return guess[..., : batch.wave.shape[-1]], hidden

    def _predict(self, net: Network, batch: Batch, draw: Draw) -> tuple[Tensor, Tensor]:
        """As :meth:`reconstruct`, with whatever else the loss lets the decoder predict behind the guess."""
        mask = self.cfg.mask
        if self.cfg.where is Where.samples:
            hidden = span_mask(mask, batch.valid, draw)
            wave = conceal(mask, batch.wave, self._blank(batch.wave, draw), hidden, batch.valid, draw)
            tokens = net.encoder(wave)
        else:
            stride = net.encoder.stride
            valid = token_valid(batch.valid, stride)
            concealed = span_mask(mask, valid, draw)
            hidden = token_samples(concealed, stride, batch.wave.shape[1])
            clean = net.encoder(batch.wave)
            tokens = conceal(mask, clean, self._blank(clean, draw), concealed, valid, draw)
            wave = batch.wave.masked_fill(hidden[..., None], 0.0)  # a decoder that reads the wave must not see the answer
        if self.training:
            tokens = mask_channels(mask, tokens, draw)
        return net.decoder(net.backbone(tokens), wave), hidden

    def _blank(self, values: Tensor, draw: Draw) -> Tensor:
        """What replaces hidden values ``B T D``."""
        if self.cfg.corrupt is Corrupt.noise:
            return draw.normal("corrupt", *values.shape[1:])
        return torch.zeros((), device=values.device)

    def figures(self, net: Network, batch: Batch, draw: Draw) -> dict[str, Figure]:
        """A few traces with what was hidden and what the network put there."""
        guess, hidden = self.reconstruct(net, batch, draw)
        wave, shown = batch.wave.float().cpu().numpy(), guess.float().cpu().numpy()
        return {"reconstruction": plots.reconstruction(wave, shown, hidden.cpu().numpy(), rate=self.rate)}
