"""A run that is killed and resumed at the ends of epochs, again and again, trains as many epochs as it was to."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from utils import runlog
from utils.metrics_file import read


class KilledError(Exception):
    """Stands for a kill: nothing is saved on the way out."""


class Kill(pl.Callback):
    """At a step, once its checkpoint is written, before its validation."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step == self.step and not trainer.sanity_checking:
            raise KilledError


@pytest.mark.parametrize("steps", [(6, 12), (6, 9, 12, 15), (9, 12)])
def test_kills_at_the_ends_of_epochs_cost_none_and_add_none(
    make: Callable[..., Any], place: Path, steps: tuple[int, ...]
) -> None:
    last = place / "checkpoints" / "last.ckpt"
    for step in (*steps, -1):
        run = make(max_epochs=3, log_every_n_steps=1, val_check_interval=3)
        run.config["pictures"]["enabled"] = False
        run.config["checkpoint"] |= {"every_n_train_steps": 3, "save_top_k": 0}
        trainer = runlog.trainer(run.config, run.module, [Kill(step)])
        path = str(last) if last.exists() else None
        if step < 0:
            trainer.fit(run.module, run.data, ckpt_path=path, weights_only=True)
        else:
            with pytest.raises(KilledError):
                trainer.fit(run.module, run.data, ckpt_path=path, weights_only=True)
            assert torch.load(last, weights_only=True)["global_step"] == step
    assert trainer.global_step == 18
    assert trainer.current_epoch == 3
    steps_seen, epochs = read(place / "metrics.csv")["epoch"]
    assert all(epoch == (step - 1) // 6 for step, epoch in zip(steps_seen, epochs, strict=True))
