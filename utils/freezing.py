"""Parts that keep their weights, for a whole run or until they thaw."""

import math
from collections.abc import Sequence
from typing import final

import pytorch_lightning as pl
import torch
from torch import nn

from utils.errors import ConfigError


@final
class Freezing(pl.Callback):
    """Holds parts still: evaluation mode (no dropout, fixed running statistics) and, where they will thaw, no gradient.

    Parts that thaw are in the optimizer and in DDP's reducer from the start; until then their gradients are dropped before the
    norm is taken and the optimizer steps, so that neither weights nor moments move and no weight decays. The state follows from
    the epoch alone, so that a resumed run needs nothing saved. Parts that never thaw have no gradient anyway
    (``requires_grad``), which also spares their backward pass.

    Args:
        parts: the modules.
        thaw_epoch: epoch, counted from 0, at whose start they begin to train; None: never.
        awake: those of the parts that stay in training mode and hold their children alone: an objective, which in evaluation
            mode would compute the loss of validation, without augmentation.
    """

    def __init__(self, parts: Sequence[nn.Module], thaw_epoch: int | None, awake: Sequence[nn.Module] = ()) -> None:
        self.parts = tuple(parts)
        self._held = [held for part in self.parts for held in (part.children() if part in awake else (part,))]
        self.thaw_epoch = thaw_epoch
        self._recurrent = {rnn: rnn.dropout for part in self.parts for rnn in part.modules() if isinstance(rnn, nn.RNNBase)}

    def still(self, epoch: int) -> bool:
        """Whether the parts keep their weights in this epoch."""
        return self.thaw_epoch is None or epoch < self.thaw_epoch

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A thaw that a run's steps do not reach is a mistake, as one beyond its epochs is; only now are the steps known.

        Raises:
            ConfigError: the run ends before.
        """
        steps, batches = trainer.max_steps, float(trainer.num_training_batches)
        if self.thaw_epoch is None or steps < 0 or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        epoch = math.ceil(batches / trainer.accumulate_grad_batches)
        if self.thaw_epoch * epoch >= steps:
            raise ConfigError(
                [
                    f"init.thaw_epoch = {self.thaw_epoch}: never comes, since trainer.max_steps = {steps} and an epoch has "
                    f"{epoch} steps. Choose an earlier one, more steps, or null to keep the parts frozen"
                ]
            )

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: object, batch_idx: int) -> None:
        """Set the modes: not once an epoch, since a run resumed within one has no start of it."""
        still = self.still(trainer.current_epoch)
        for held in self._held:
            if held.training == still:
                held.train(not still)
        for rnn, dropout in self._recurrent.items():
            # cuDNN computes gradients through a recurrent layer in training mode only
            rnn.training, rnn.dropout = True, 0.0 if still else dropout

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Drop gradients; Lightning clips and steps after this."""
        if self.still(trainer.current_epoch):
            for part in self.parts:
                for parameter in part.parameters():
                    parameter.grad = None
