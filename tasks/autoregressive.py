"""Next-sample prediction with strictly causal networks."""

from dataclasses import dataclass
from typing import ClassVar, cast, final

import torch
from matplotlib.figure import Figure
from torch import nn

from dataloaders.batch import Batch
from models.network import Network
from tasks.contracts import TASKS, Parts, SampleLoss, Scores, StepOutput, Task, TaskConfig
from utils import plots
from utils.errors import ConfigError
from utils.rng import Draw


@dataclass(kw_only=True)
class AutoregressiveConfig(TaskConfig):
    """Next-sample prediction has no settings of its own."""


@TASKS.register("autoregressive", AutoregressiveConfig)
@final
class Autoregressive(Task):
    """Predict the sample one stride ahead from all samples up to the end of the present token.

    With a stride of 1 that is the next sample. With a longer one a token predicts the samples of the next token, since its own
    are its input. Scored where the present and the predicted sample are valid.

    Args:
        cfg: metrics.
        parts: with a strictly causal network.

    Raises:
        ConfigError: the network is not causal, or the window is no longer than a token.
    """

    scores: ClassVar[Scores] = Scores.samples
    needs_causal: ClassVar[bool] = True

    def __init__(self, cfg: AutoregressiveConfig, parts: Parts) -> None:
        super().__init__()
        stride = parts.network.encoder.stride
        if not parts.network.causal:
            raise ConfigError(["task 'autoregressive': the network sees the future and would copy it: choose causal parts"])
        if parts.spec.samples <= stride:
            raise ConfigError(
                [f"task 'autoregressive': a window of {parts.spec.samples} samples has nothing after its first token"]
            )
        self.cfg = cfg
        self.rate = parts.spec.rate
        self.loss = cast(SampleLoss, parts.loss)
        self.loss_val = cast(SampleLoss, parts.loss_val)
        self.metrics = nn.ModuleDict(parts.metrics)

    def step(self, net: Network, batch: Batch, draw: Draw) -> StepOutput:
        """See :meth:`Task.step`."""
        ahead = net.encoder.stride
        guess = net(batch.wave)[:, :-ahead]
        target = batch.wave[:, ahead:]
        where = (batch.valid[:, ahead:] & batch.valid[:, :-ahead])[..., None].expand_as(target)
        loss = self.loss if self.training else self.loss_val
        value, count = loss(guess, target, where)
        logs = {name: metric(guess.detach(), target, where)[0] for name, metric in self.metrics.items()}
        return StepOutput(value, count, logs)

    def figures(self, net: Network, batch: Batch, draw: Draw) -> dict[str, Figure]:
        """A few traces with what was predicted one stride ahead."""
        ahead = net.encoder.stride
        guess = net(batch.wave)[:, :-ahead, : batch.wave.shape[-1]]
        guess = torch.nn.functional.pad(guess, (0, 0, ahead, 0))
        hidden = torch.zeros_like(batch.wave, dtype=torch.bool)
        wave, shown = batch.wave.float().cpu().numpy(), guess.float().cpu().numpy()
        return {"prediction": plots.reconstruction(wave, shown, hidden.cpu().numpy(), rate=self.rate, everywhere=True)}
