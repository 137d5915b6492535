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
from utils.errors import demand
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


class Components(str, Enum):
    """What the spans of Z, N and E have to do with one another."""

    together = "together"
    """All components of a sample are hidden, as in a gap."""
    apart = "apart"
    """Each component has spans of its own: what one has lost, the others tell, by how the ground moves in P and in S."""


def _reconstruction_mask() -> MaskConfig:
    return MaskConfig(ratio=0.75, span=50)


@dataclass(kw_only=True)
class MaskedReconstructionConfig(TaskConfig):
    """Settings of :class:`MaskedReconstruction`."""

    mask: MaskConfig = field(default_factory=_reconstruction_mask)
    """What is hidden; spans count samples, or tokens with ``where: tokens``."""
    where: Where = Where.samples
    """Hide ``samples`` of the wave, or ``tokens`` after the encoder."""
    components: Components = Components.together
    """Hide all components of a sample ``together``, or spans of each ``apart``; tokens have no components."""
    corrupt: Corrupt = Corrupt.zero
    """Put ``zero`` or ``noise`` in place of what is hidden."""

    def __post_init__(self) -> None:
        """State what goes together."""
        apart = self.components is Components.apart and self.where is Where.tokens
        demand((not apart, "components = apart: tokens hold all components; choose where=samples or components=together"))


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
        valid = batch.valid[..., None].expand_as(hidden)
        where = valid if loss.everywhere else hidden
        value, count = loss(guess, batch.wave, where)
        logs = {name: metric(guess.detach(), batch.wave, where)[0] for name, metric in self.metrics.items()}
        return StepOutput(value, count, logs, {"hidden_ratio": hidden_ratio(hidden, valid)})

    def reconstruct(self, net: Network, batch: Batch, draw: Draw) -> tuple[Tensor, Tensor]:
        """(guess ``B L C``, what was hidden ``B L C``)."""
        guess, hidden = self._predict(net, batch, draw)
        return guess[..., : batch.wave.shape[-1]], hidden

    def _predict(self, net: Network, batch: Batch, draw: Draw) -> tuple[Tensor, Tensor]:
        """As :meth:`reconstruct`, with whatever else the loss lets the decoder predict behind the guess."""
        if self.cfg.where is Where.samples:
            wave, hidden = self._hide_samples(batch, draw)
            tokens = net.encoder(wave)
        else:
            mask, stride = self.cfg.mask, net.encoder.stride
            valid = token_valid(batch.valid, stride)
            concealed = span_mask(mask, valid, draw)
            hidden = token_samples(concealed, stride, batch.wave.shape[1])[..., None].expand_as(batch.wave)
            clean = net.encoder(batch.wave)
            tokens = conceal(mask, clean, self._blank(clean, draw), concealed, valid, draw)
            wave = batch.wave.masked_fill(hidden, 0.0)  # a decoder that reads the wave must not see the answer
        if self.training:
            tokens = mask_channels(self.cfg.mask, tokens, draw)
        return net.decoder(net.backbone(tokens), wave), hidden

    def _hide_samples(self, batch: Batch, draw: Draw) -> tuple[Tensor, Tensor]:
        """(wave as the network sees it ``B L C``, what was hidden ``B L C``)."""
        mask, blank = self.cfg.mask, self._blank(batch.wave, draw).expand_as(batch.wave)
        width = 1 if self.cfg.components is Components.apart else batch.wave.shape[-1]
        seen, hidden = [], []
        for number, (values, blanks) in enumerate(zip(batch.wave.split(width, -1), blank.split(width, -1), strict=True)):
            spans = span_mask(mask, batch.valid, draw, stream=f"mask/{number}" if number else "mask")
            seen.append(conceal(mask, values, blanks, spans, batch.valid, draw))
            hidden.append(spans[..., None].expand_as(values))
        return torch.cat(seen, -1), torch.cat(hidden, -1)

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
