"""Stops a run whose ranks no longer have the same weights: each would go its own way, and checkpoints hold the first one's."""

from typing import Any, final

import pytorch_lightning as pl
import torch
from torch import Tensor, distributed, nn

from utils.errors import TrainingError
from utils.preemption import Stopped

_BITS = {8: torch.int64, 4: torch.int32, 2: torch.int16, 1: torch.int8}
"""Integers of as many bytes as a number."""


@final
class SameWeights(pl.Callback):
    """Compares the bits of all parameters over ranks now and then: a sum of integers each, and one reduction for all.

    Args:
        every: optimizer steps between two comparisons; None makes none.
    """

    def __init__(self, every: int | None) -> None:
        self.every = every
        self._agreed = self._looked = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """What a resumed run starts from came from one file."""
        self._agreed = self._looked = trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Compare where it is time, before anything is saved of this step.

        Raises:
            TrainingError: on the first rank, where weights differ; names the first parameter that does.
            Stopped: on the others.
        """
        step = trainer.global_step
        if self.every is None or trainer.world_size == 1 or step % self.every or step == self._looked:
            return
        self._looked = step
        names = differing(pl_module, trainer.strategy.root_device)
        if not names:
            self._agreed = step
        elif trainer.is_global_zero:
            more = f", and {len(names) - 1} more parameters" if len(names) > 1 else ""
            raise TrainingError(
                f"training: in step {step} the ranks no longer have the same weights: {names[0]} differs{more}. In step "
                f"{self._agreed} all agreed: resume from a checkpoint up to there (train.ckpt_path=). Faulty memory or a faulty "
                "device does this, and so does code that changes weights on one rank"
            )
        else:
            raise Stopped(0)


def differing(module: nn.Module, device: torch.device) -> list[str]:
    """Names of the parameters whose bits are not the same on all ranks; every rank must call this, and gets the same answer.

    Args:
        module: with the same parameters on each rank.
        device: where ranks exchange tensors.
    """
    names, values = zip(*module.named_parameters(), strict=True)
    sums = torch.stack([_sum_of_bits(value).to(device) for value in values])
    extremes = torch.stack([sums, -sums])
    distributed.all_reduce(extremes, distributed.ReduceOp.MAX)
    apart = (extremes[0] != -extremes[1]).tolist()
    return [name for name, differs in zip(names, apart, strict=True) if differs]


def _sum_of_bits(value: Tensor) -> Tensor:
    """The bits of a tensor as integers, summed: int64 scalar."""
    return value.detach().contiguous().view(_BITS[value.element_size()]).sum(dtype=torch.int64)
