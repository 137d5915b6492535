"""Which class a whole trace belongs to."""

from dataclasses import dataclass
from typing import ClassVar, cast, final

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from dataloaders.batch import Batch, DataSpec, Target
from models.network import Network
from tasks.contracts import TASKS, ClassLoss, Parts, Scores, StepOutput, Task, TaskConfig
from utils.distributed import all_reduce_plain
from utils.errors import ConfigError
from utils.plots_classes import confusion
from utils.rng import Draw


@dataclass(kw_only=True)
class ClassificationConfig(TaskConfig):
    """Classification has no settings of its own."""


@TASKS.register("classification", ClassificationConfig)
@final
class Classification(Task):
    """Wave to one class a trace, by a decoder that pools over time.

    Counts which class is taken for which while it evaluates; the picture shows the counts since the last training step.

    Args:
        cfg: metrics.
        parts: data with classes, and a decoder with one prediction a trace.

    Raises:
        ConfigError: the data have fewer than two classes.
    """

    needs: ClassVar[Target] = Target.event_class
    scores: ClassVar[Scores] = Scores.classes
    monitor: ClassVar[tuple[str, str]] = ("val/accuracy", "max")
    confusion: Tensor

    def __init__(self, cfg: ClassificationConfig, parts: Parts) -> None:
        super().__init__()
        self.classes = parts.spec.classes
        if len(self.classes) < 2:
            raise ConfigError([f"task 'classification': the dataset has {len(self.classes)} class(es), nothing to tell apart"])
        self.cfg = cfg
        self.loss = cast(ClassLoss, parts.loss)
        self.loss_val = cast(ClassLoss, parts.loss_val)
        self.metrics = nn.ModuleDict(parts.metrics)
        self.register_buffer("confusion", torch.zeros(len(self.classes), len(self.classes)), persistent=False)

    @staticmethod
    def width_out(spec: DataSpec) -> int:
        """A score a class."""
        return len(spec.classes)

    def step(self, net: Network, batch: Batch, draw: Draw) -> StepOutput:
        """See :meth:`Task.step`."""
        assert batch.label is not None  # build checked Task.needs
        logits, label = net(batch.wave, batch.valid), batch.label
        loss = self.loss if self.training else self.loss_val
        value, count = loss(logits, label)
        right = (logits.argmax(-1) == label).sum().float()  # no class is −1
        logs = {"accuracy": right / count.clamp_min(1.0)}
        logs |= {name: metric(logits.detach(), label)[0] for name, metric in self.metrics.items()}
        return StepOutput(value, count, logs, tallies=self.tally(logits, label))

    def tally(self, logits: Tensor, label: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """(right, number) of the traces of each class in evaluation, and counts for the picture; nothing in training."""
        if self.training:
            self.confusion.zero_()
            return {}
        numbers = torch.arange(len(self.classes), device=label.device)
        true, guessed = label[:, None] == numbers, logits.argmax(-1)[:, None] == numbers
        pairs = (true[:, :, None] & guessed[:, None, :]).sum(0).float()
        self.confusion += pairs
        return {f"accuracy_{name}": (pairs[k, k], pairs[k].sum()) for k, name in enumerate(self.classes)}

    def figures(self, net: Network, batch: Batch, draw: Draw) -> dict[str, Figure]:
        """Which class was taken for which over the whole validation; none where training went on since: the last one stays."""
        counts = all_reduce_plain(self.confusion).cpu().numpy()
        return {"confusion": confusion(counts, self.classes)} if counts.any() else {}
