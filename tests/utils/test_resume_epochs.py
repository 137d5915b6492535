"""A run that is killed and resumed at the ends of epochs, again and again, trains as many epochs as it was to."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from killed_runs import differences
from pytorch_lightning.callbacks import ModelCheckpoint

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


def trained(make: Callable[..., Any], folder: str, step: int = -1, **settings: Any) -> tuple[Any, dict[str, Any]]:
    """A run in its folder, killed before the validation of a step or left in peace; (its trainer, its settings)."""
    schedule, every = settings.pop("schedule", "constant"), settings.pop("every", 3)
    run = make(log_every_n_steps=1, **settings)
    run.config |= {"run_id": folder, "scheduler": SCHEDULES[schedule]}
    run.module.config |= {"scheduler": SCHEDULES[schedule]}
    run.config["pictures"]["enabled"] = False
    run.config["checkpoint"] |= {"every_n_train_steps": every, "save_top_k": 2}
    trainer = runlog.trainer(run.config, run.module, [Kill(step)])
    last = runlog.folder(run.config) / "checkpoints" / "last.ckpt"
    with pytest.raises(KilledError) if step > 0 else contextlib.nullcontext():
        trainer.fit(run.module, run.data, ckpt_path=str(last) if last.exists() else None, weights_only=True)
    return trainer, run.config


def left(trainer: Any, config: dict[str, Any]) -> dict[str, Any]:
    """What a run leaves behind: its files by name, weights, optimizer, schedule and generators, validations, the best."""
    folder = runlog.folder(config)
    keeper = next(each for each in trainer.checkpoint_callbacks if isinstance(each, ModelCheckpoint))
    saved = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    curves = read(folder / "metrics.csv")
    return {
        "files": sorted(path.name for path in (folder / "checkpoints").glob("*.ckpt")),
        "best": {Path(path).name: float(score) for path, score in keeper.best_k_models.items()},
        "one": (Path(keeper.best_model_path).name, keeper.best_model_score),
        **{
            name: saved[name]
            for name in ("state_dict", "optimizer_states", "lr_schedulers", "generators", "global_step", "epoch")
        },
        "curves": {name: curve for name, curve in curves.items() if name.startswith(("val/", "train/", "learning"))},
        "steps": trainer.global_step,
    }


SCHEDULES: dict[str, dict[str, Any]] = {
    "constant": {"_name_": "constant"},
    "plateau": {"_name_": "plateau", "factor": 0.5, "patience": 0},
}


@pytest.mark.parametrize(
    ("kills", "settings"),
    [
        pytest.param((3, 9), {"max_epochs": 2, "val_check_interval": 3}, id="within epochs"),
        pytest.param((6, 12), {"max_epochs": 2, "val_check_interval": 3}, id="at the ends of epochs"),
        pytest.param((6, 6, 6), {"max_epochs": 2, "every": 2}, id="thrice at the same step"),
        pytest.param(
            (2, 4, 6), {"max_epochs": 2, "val_check_interval": 4, "accumulate_grad_batches": 2, "every": 1}, id="accumulating"
        ),
        pytest.param((4, 8), {"max_epochs": -1, "max_steps": 8, "val_check_interval": 4, "every": 4}, id="max_steps"),
        pytest.param((6, 18), {"max_epochs": 4, "every": 3, "schedule": "plateau"}, id="plateau"),
        pytest.param((6, 18), {"max_epochs": 4, "every": 4, "schedule": "plateau"}, id="plateau, resumed within an epoch"),
        pytest.param((12, 24), {"max_epochs": 4, "every": None, "schedule": "plateau"}, id="plateau, saved after validations"),
    ],
)
def test_a_validation_that_was_due_is_made_up_for(
    make: Callable[..., Any], place: Path, kills: tuple[int, ...], settings: dict[str, Any]
) -> None:
    whole = left(*trained(make, "whole", **settings))
    for step in kills:
        trained(make, "killed", step, **settings)
    again = left(*trained(make, "killed", **settings))
    assert differences(whole, again) == []
