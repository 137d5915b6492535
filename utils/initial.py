"""The section ``init``: where a run's weights come from, which of its parts move, when, and how fast."""

from dataclasses import dataclass, field, fields
from enum import Enum

from utils.errors import demand


class PartName(str, Enum):
    """The parts of a run that have weights."""

    encoder = "encoder"
    backbone = "backbone"
    decoder = "decoder"
    task = "task"


class Weights(str, Enum):
    """Where weights start."""

    auto = "auto"
    scratch = "scratch"
    pretrained = "pretrained"


@dataclass(kw_only=True)
class LrFactors:
    """Factors of the optimizer's learning rate, one a part; the scheduler keeps their ratios."""

    encoder: float = 1.0
    """Of the encoder."""
    backbone: float = 1.0
    """Of the backbone."""
    decoder: float = 1.0
    """Of the decoder."""
    task: float = 1.0
    """Of the task's own weights: heads, quantizer, mask token."""

    def __post_init__(self) -> None:
        """State the ranges."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        demand(
            *(
                (value > 0, f"{name} = {value}: must be above 0; init.freeze keeps a part from moving")
                for name, value in values.items()
            )
        )


@dataclass(kw_only=True)
class InitConfig:
    """Where weights start, what may move, and when."""

    weights: Weights = Weights.auto
    """auto takes those of model.checkpoint_path where it is given; scratch takes none (a checkpoint then gives the architecture
    alone); pretrained refuses to run without a checkpoint."""
    load: list[PartName] | None = None
    """Parts whose weights come from the checkpoint; null loads encoder and backbone, and decoder and task where the checkpoint
    is of the same task with the same decoder and classes. What is named must fit."""
    freeze: list[PartName] = field(default_factory=list[PartName])
    """Parts that keep the checkpoint's weights: no gradient, no dropout, fixed running statistics."""
    thaw_epoch: int | None = None
    """Epoch, counted from 0, at whose start frozen parts begin to train; null keeps them frozen."""
    lr_factors: LrFactors = field(default_factory=LrFactors)
    """Learning rate of each part over the optimizer's."""
    layer_decay: float = 1.0
    """Learning rate of a layer of the backbone over that of the layer behind it; the last one's is this factor, the encoder's
    one power more than the first one's; 1 for all alike."""

    def __post_init__(self) -> None:
        """State the ranges."""
        loose = [part.value for part in self.freeze if self.load is not None and part not in self.load]
        still = [part.value for part in self.freeze]
        demand(
            (self.load is None or bool(self.load), "load = []: must name a part; init=scratch loads none"),
            (not loose, f"freeze = {still}: load leaves out {', '.join(loose)}; fresh weights cannot stay as they are"),
            (
                self.thaw_epoch is not None or set(self.freeze) != set(PartName),
                f"freeze = {still}: nothing is left to train; leave a part out, or state thaw_epoch",
            ),
            (
                self.thaw_epoch is None or self.thaw_epoch >= 1,
                f"thaw_epoch = {self.thaw_epoch}: must be at least 1; parts that train from the start are not frozen",
            ),
            (self.thaw_epoch is None or bool(self.freeze), f"thaw_epoch = {self.thaw_epoch}: freeze names no part to thaw"),
            (0 < self.layer_decay <= 1, f"layer_decay = {self.layer_decay}: must be in 0 < layer_decay ≤ 1"),
        )
