"""What an objective promises, and what it hands to the LightningModule."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar

from matplotlib.figure import Figure
from torch import Tensor, nn

from dataloaders.batch import Batch, DataSpec, Target
from models.contracts import Quantizer
from models.network import Network
from utils.registry import Registry
from utils.rng import Draw


class Scores(str, Enum):
    """What a loss compares: the family a task and its loss must share."""

    samples = "samples"
    """A guess ``B L C`` with the wave ``B L C``: :class:`SampleLoss`."""
    codes = "codes"
    """Context with the right target among wrong ones: :class:`CodeLoss`."""
    picks = "picks"
    """Class probabilities a sample."""
    classes = "classes"
    """Class probabilities a trace."""


class Loss(nn.Module, ABC):
    """A loss; ``scores`` says which family of tasks may use it.

    Attributes:
        per_channel: numbers a decoder has to predict for each channel of the task's prediction.
    """

    scores: ClassVar[Scores]
    per_channel: ClassVar[int] = 1


class SampleLoss(Loss, ABC):
    """Compares a reconstruction with the wave.

    Attributes:
        everywhere: a task scores all valid samples with it, not only those that were hidden.
    """

    scores = Scores.samples
    everywhere: ClassVar[bool] = False

    @abstractmethod
    def forward(self, guess: Tensor, wave: Tensor, where: Tensor) -> tuple[Tensor, Tensor]:
        """Compare.

        Args:
            guess: ``B L kC``; the first C are the guess itself, which is all that most losses read (``per_channel`` 1).
            wave: ``B L C``.
            where: ``B L C`` bool, scored values: components may be hidden apart.

        Returns:
            (mean over scored values, their number as float32), scalars; 0 and 0 where there are none.
        """


@dataclass
class Choice:
    """What a contrastive loss returns: means over scored positions, and how many those were (float32 scalar).

    Attributes:
        loss, accuracy, count: scalars; 0 where nothing is scored.
        hits: ``B M`` bool, positions whose own target won.
        scored: ``B M`` bool, positions that were scored (a trace needs two of them).
    """

    loss: Tensor
    accuracy: Tensor
    count: Tensor
    hits: Tensor
    scored: Tensor


class CodeLoss(Loss, ABC):
    """Picks a position's target among negatives."""

    scores = Scores.codes

    @abstractmethod
    def forward(self, context: Tensor, target: Tensor, codes: Tensor | None, scored: Tensor, draw: Draw) -> Choice:
        """Score every position's own target against negatives.

        Args:
            context: ``B M E``.
            target: ``B M E``.
            codes: ``B M`` int64, one number for each combination of codes; None where targets are continuous.
            scored: ``B M`` bool; positions are padded to a static M.
            draw: random numbers of the batch's samples, for the negatives.
        """


class PickLoss(Loss, ABC):
    """Compares class scores of samples with soft labels."""

    scores = Scores.picks

    @abstractmethod
    def forward(self, logits: Tensor, labels: Tensor, valid: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """Score every valid sample.

        Args:
            logits: ``B L 3``, classes in the order P, S, N.
            labels: ``B L 3``, probabilities that sum to 1 (:func:`dataloaders.labels.gaussian_labels`).
            valid: ``B L`` bool.
            known: ``B 2`` bool, whether P (S) of the trace is labelled. An unlabelled phase cannot be told from noise:
                it must not be scored against it.

        Returns:
            (mean over scored samples, their number as float32); 0 and 0 where there are none.
        """


class ClassLoss(Loss, ABC):
    """Compares class scores of traces with their classes."""

    scores = Scores.classes

    @abstractmethod
    def forward(self, logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Logits ``B K`` and classes ``B`` int64 (−1: not scored) to (mean over scored traces, their number as float32)."""


def _none() -> dict[str, Any]:
    """An empty mapping; ``dict[str, Tensor]`` itself as a factory is what torch.compile cannot trace."""
    return {}


@dataclass
class StepOutput:
    """One step of an objective.

    Attributes:
        loss: mean over the ``count`` scored positions of this rank.
        count: number of scored positions, float32 scalar on the device; makes averages over batches and ranks exact.
        logs: further means over the same positions, by name (``"accuracy"``), without gradient.
        gauges: scalars that are no means over positions (``"perplexity"``, ``"hidden_ratio"``), without gradient.
        penalty: a term added to the loss as it is, already the same on all ranks (diversity); 0 where there is none.
        tallies: (sum, number) pairs by name, for means over something else than the scored positions, such as arrivals;
            summed over batches and ranks before they are divided.
    """

    loss: Tensor
    count: Tensor
    logs: Mapping[str, Tensor] = field(default_factory=_none)
    gauges: Mapping[str, Tensor] = field(default_factory=_none)
    penalty: Tensor | float = 0.0
    tallies: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=_none)


@dataclass
class Parts:
    """What ``build`` hands to a task besides its settings."""

    spec: DataSpec
    network: Network
    loss: Loss
    loss_val: Loss
    metrics: Mapping[str, Loss]
    quantizer: Quantizer | None


@dataclass(kw_only=True)
class TaskConfig:
    """Settings every task has."""

    loss_val: str | None = None
    """Loss used in validation and test; null uses the training loss."""
    metrics: list[str] = field(default_factory=list[str])
    """Losses reported beside the loss, over the same positions, without gradient."""


class Task(nn.Module, ABC):
    """An objective: ``Task(settings, parts)``; owns its heads, its quantizer and its mask token.

    Attributes:
        needs: labels its batches must carry.
        scores: family of its losses.
        uses_quantizer, uses_decoder: whether such a part must be given; one given in vain is a mistake, not ignored.
        needs_causal: only strictly causal networks (a network that sees the future would copy the answer).
        monitor: the validation metric that chooses checkpoints, and the direction: ``("val/accuracy", "max")``.
    """

    needs: ClassVar[Target] = Target.none
    scores: ClassVar[Scores]
    uses_quantizer: ClassVar[bool] = False
    uses_decoder: ClassVar[bool] = True
    needs_causal: ClassVar[bool] = False
    monitor: ClassVar[tuple[str, str]] = ("val/loss", "min")

    @staticmethod
    def width_out(spec: DataSpec) -> int:
        """Channels of the decoder's prediction for this objective."""
        return spec.channels

    @classmethod
    def takes_quantizer(cls, cfg: TaskConfig) -> bool:
        """Whether a quantizer must be given with these settings."""
        return cls.uses_quantizer

    @abstractmethod
    def step(self, net: Network, batch: Batch, draw: Draw) -> StepOutput:
        """Batch (prepared, on its device) to loss. The whole line of the objective is in this method."""

    def anneal(self, progress: float) -> None:
        """Called before each training step with the share of the run that is done, 0…1."""

    def figures(self, net: Network, batch: Batch, draw: Draw) -> dict[str, Figure]:
        """Pictures that say what the network does on this batch, by file name; called in evaluation mode, without gradients."""
        return {}


TASKS: Registry[Task] = Registry("task")
LOSSES: Registry[Loss] = Registry("loss")
