"""The mean of a run's best checkpoints: often a little better than the best one, at no cost in training.

Lightning's ``WeightAveraging`` and torch's ``AveragedModel`` average along the way of the optimizer; this is the mean of what
validation chose (uniform soup of one run's checkpoints: Wortsman et al. 2022, section 2; Vaswani et al. 2017, section 6.1).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor

from utils import checkpoint
from utils.checkpoint import AVERAGE

KEPT = ("epoch", "global_step", "pytorch-lightning_version", checkpoint.KEY)
"""What an average has of the best checkpoint besides weights: no optimizer, schedule or place in an epoch belongs to it."""
BATCH_STATISTICS = ("running_mean", "running_var")
"""Last names of buffers that are averaged, too: batch norms' statistics, which belong to the weights."""


@dataclass(frozen=True)
class Average:
    """What became of an average.

    Attributes:
        path: its checkpoint; None where there were not two checkpoints to average.
        count: how many checkpoints were averaged, or found.
        metric: name of the monitored metric.
        value, best: its value for the average and for the best of the checkpoints.
        better: the average is the better one.
    """

    path: Path | None
    count: int
    metric: str = ""
    value: float = float("nan")
    best: float = float("nan")
    better: bool = False


def mean_weights(states: Sequence[Mapping[str, Tensor]], parameters: Iterable[str]) -> dict[str, Tensor]:
    """The mean of several states of one module, summed in float64, each tensor in its own type again.

    Parameters and batch norms' running statistics are averaged. All other buffers are the first state's: integers have no
    mean, and codes of a codebook may have been placed anew between two states, so that a mean would be no code of either.

    Args:
        states: weights by name; the best first.
        parameters: names of those that are parameters.
    """
    averaged = set(parameters)
    found = {}
    for name, first in states[0].items():
        if first.is_floating_point() and (name in averaged or name.rpartition(".")[2] in BATCH_STATISTICS):
            found[name] = torch.stack([state[name].double() for state in states]).mean(0).to(first.dtype)
        else:
            found[name] = first.clone()
    return found


def write_average(paths: Sequence[Path], parameters: Iterable[str], target: Path) -> None:
    """Average checkpoints into a file that describes itself as any other, and that no run can resume from.

    Args:
        paths: checkpoints of one run, the best first.
        parameters: see :func:`mean_weights`.
        target: the file.

    Raises:
        CheckpointError: one is missing or damaged.
    """
    best, *others = (checkpoint.read_raw(path) for path in paths)
    content: dict[str, Any] = {key: best[key] for key in KEPT}
    content["state_dict"] = mean_weights([raw["state_dict"] for raw in (best, *others)], parameters)
    content["averaged"] = [path.name for path in paths]
    checkpoint.write(content, target)


def average(trainer: pl.Trainer, module: pl.LightningModule, data: pl.LightningDataModule) -> Average:
    """After ``fit``: average the checkpoints that validation chose, write ``average.ckpt``, validate it once.

    Every rank calls this. The module holds the averaged weights afterwards. Its validation goes to no logger: the curves are
    those of the run.
    """
    keeper = next(callback for callback in trainer.checkpoint_callbacks if isinstance(callback, ModelCheckpoint))
    assert keeper.monitor is not None
    scores = {Path(path): float(score) for path, score in keeper.best_k_models.items()}
    ranked = sorted(scores, key=lambda path: scores[path], reverse=keeper.mode == "max")
    if len(ranked) < 2:
        return Average(None, len(ranked))
    target = ranked[0].parent / AVERAGE
    if trainer.is_global_zero:
        write_average(ranked, [name for name, _ in module.named_parameters()], target)
    trainer.strategy.barrier("average")
    module.load_state_dict(checkpoint.read(target).state_dict)
    loggers, trainer.loggers = trainer.loggers, []
    try:
        values = trainer.validate(module, datamodule=data, verbose=False)[0]
    finally:
        trainer.loggers = loggers
    value, best = values[keeper.monitor], scores[ranked[0]]
    return Average(target, len(ranked), keeper.monitor, value, best, value > best if keeper.mode == "max" else value < best)
