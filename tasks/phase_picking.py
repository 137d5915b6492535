"""Phase picking: the probabilities of P, S and noise at every sample."""

from dataclasses import dataclass, field
from typing import ClassVar, cast, final

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from dataloaders.batch import PICK_CLASSES, Batch, DataSpec, Target
from dataloaders.labels import gaussian_labels
from models.network import Network
from tasks.augment import AugmentConfig, augment
from tasks.contracts import TASKS, Parts, PickLoss, Scores, StepOutput, Task, TaskConfig
from utils import plots
from utils.errors import ConfigError, demand
from utils.rng import Draw


@dataclass(kw_only=True)
class PhasePickingConfig(TaskConfig):
    """Settings of :class:`PhasePicking`."""

    sigma: float = 20.0
    """Standard deviation of the Gaussian labels in samples: 20 are 0.2 s."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """What may happen to training windows."""

    def __post_init__(self) -> None:
        """State the ranges."""
        demand((self.sigma > 0, f"sigma = {self.sigma}: must be positive"))


@TASKS.register("phase_pick", PhasePickingConfig)
@final
class PhasePicking(Task):
    """Learn soft labels around onsets.

    Beside the loss, validation reports the share of arrivals whose phase has its highest probability of the window within 0.1 and
    0.5 s of the onset (windows with two arrivals of a phase count the nearer one).

    Args:
        cfg: width of the labels.
        parts: without quantizer.

    Raises:
        ConfigError: the data's classes are not P, S, N in this order.
    """

    needs: ClassVar[Target] = Target.picks
    scores: ClassVar[Scores] = Scores.picks

    def __init__(self, cfg: PhasePickingConfig, parts: Parts) -> None:
        super().__init__()
        if parts.spec.classes != PICK_CLASSES:
            raise ConfigError(
                [
                    f"task 'phase_pick' learns the classes {', '.join(PICK_CLASSES)} in this order; the data have "
                    f"{parts.spec.classes}"
                ]
            )
        self.cfg = cfg
        self.rate = parts.spec.rate
        self.loss = cast(PickLoss, parts.loss)
        self.loss_val = cast(PickLoss, parts.loss_val)
        self.metrics = nn.ModuleDict(parts.metrics)

    @staticmethod
    def width_out(spec: DataSpec) -> int:
        """Three classes."""
        return len(PICK_CLASSES)

    def step(self, net: Network, batch: Batch, draw: Draw) -> StepOutput:
        """See :meth:`Task.step`."""
        onsets, phases, known = _labels(batch)
        if self.training:
            batch = augment(batch, self.cfg.augment, draw)
        labels = gaussian_labels(onsets, phases, batch.wave.shape[1], self.cfg.sigma)
        logits = net(batch.wave, batch.valid)
        loss = self.loss if self.training else self.loss_val
        value, count = loss(logits, labels, batch.valid, known)
        logs = {name: metric(logits.detach(), labels, batch.valid, known)[0] for name, metric in self.metrics.items()}
        tallies = {} if self.training else self._found(logits, onsets, phases, batch.valid)
        return StepOutput(value, count, logs, tallies=tallies)

    def _found(self, logits: Tensor, onsets: Tensor, phases: Tensor, valid: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Arrivals found within 0.1 and 0.5 s, as (number found, number of windows with an arrival of the phase)."""
        chance = logits.detach().float().softmax(-1)[..., :2] * valid[..., None]
        highest = chance.argmax(1)
        tallies = {}
        for phase, name in enumerate(("p", "s")):
            mine = (onsets >= 0) & (phases == phase)
            distance = torch.where(mine, (onsets - highest[:, phase, None]).abs().float(), torch.inf).amin(1)
            there = mine.any(1).float().sum()
            for within in (100, 500):
                tallies[f"{name}_within_{within}ms"] = ((distance <= within / 1000 * self.rate).float().sum(), there)
        return tallies

    def figures(self, net: Network, batch: Batch, draw: Draw) -> dict[str, Figure]:
        """A few windows with their onsets and the network's probabilities."""
        onsets, phases, _ = _labels(batch)
        chance = net(batch.wave, batch.valid).float().softmax(-1)
        wave = batch.wave.float().cpu().numpy()
        arrivals = onsets.cpu().numpy(), phases.cpu().numpy()
        return {"picks": plots.picks(wave, chance.cpu().numpy(), *arrivals, rate=self.rate)}


def _labels(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """(onsets, phases, known) of a batch whose source has them: checked when the run was built."""
    assert batch.onsets is not None and batch.phases is not None and batch.known is not None
    return batch.onsets, batch.phases, batch.known
