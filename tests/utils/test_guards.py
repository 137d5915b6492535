"""A loss that is no number ends a run, names its traces and leaves good checkpoints alone."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import pytorch_lightning as pl
import torch

from utils import runlog
from utils.errors import TrainingError


@pytest.fixture(autouse=True)
def _signals_are_given_back():
    numbers = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Spoil(pl.Callback):
    """Makes the losses of some batches infinite, or a weight NaN after one; notes the traces."""

    def __init__(self, *batches: int, weight_at: int | None = None) -> None:
        self.batches, self.weight_at = batches, weight_at
        self.count = 0
        self.traces: list[int] = []

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.count += 1
        step = type(pl_module).training_step
        bad = self.count in self.batches
        self.traces += batch.index.tolist() if bad else []

        def training_step(batch: Any, batch_idx: int) -> torch.Tensor:
            loss = step(pl_module, batch, batch_idx)
            return loss.detach().requires_grad_() * 0 + float("inf") if bad else loss

        pl_module.training_step = training_step

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *rest: Any) -> None:
        if self.count == self.weight_at:
            with torch.no_grad():
                next(pl_module.parameters()).fill_(float("nan"))


def fit(run: Any, spoil: Spoil, every: int | None = None) -> None:
    run.config["pictures"]["enabled"] = False
    run.config["checkpoint"]["every_n_train_steps"] = every
    runlog.trainer(run.config, run.module, [spoil]).fit(run.module, run.data)


def saved(place: Path) -> dict[str, int]:
    """Steps of the checkpoints by name; every weight in them is finite."""
    files = {path.name: torch.load(path, weights_only=True) for path in (place / "checkpoints").glob("*.ckpt")}
    assert all(weight.isfinite().all() for content in files.values() for weight in content["state_dict"].values())
    return {name: content["global_step"] for name, content in files.items()}


def test_too_many_in_a_row_end_the_run_and_name_the_traces(make: Callable[..., Any], place: Path) -> None:
    spoil = Spoil(7, 8, 9)
    with pytest.raises(TrainingError, match=r"in step 7, 8, 9.*12 traces.*non_finite\.csv.*train\.ckpt_path="):
        fit(make(), spoil)
    assert saved(place)["last.ckpt"] == 6
    table = pd.read_csv(place / "non_finite.csv")
    assert table["step"].tolist() == [7] * 4 + [8] * 4 + [9] * 4
    assert table["trace"].tolist() == spoil.traces
    assert table["epoch"].eq(1).all()
    assert table["name"].tolist() == [f"trace {number}" for number in spoil.traces]
    assert table["loss"].eq(float("inf")).all()


def test_a_few_that_the_weights_survive_are_let_pass(make: Callable[..., Any], place: Path) -> None:
    fit(make(), Spoil(2, 3, 5, 6, 8))
    assert saved(place)["last.ckpt"] == 12
    assert not (place / "non_finite.csv").exists()


@pytest.mark.parametrize("every", [None, 2])
def test_weights_that_are_no_numbers_replace_no_checkpoint(make: Callable[..., Any], place: Path, every: int | None) -> None:
    with pytest.raises(TrainingError, match="the weights are no longer finite"):
        fit(make(), Spoil(weight_at=7), every)
    assert set(saved(place).values()) <= {4, 6}
    assert saved(place)["last.ckpt"] == 6


def test_a_signal_does_not_save_them_either(make: Callable[..., Any], place: Path) -> None:
    class Stop(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, *rest: Any) -> None:
            if trainer.global_step == 3:
                signal.raise_signal(signal.SIGUSR1)

    run = make(log_every_n_steps=50)
    run.config["pictures"]["enabled"] = False
    with pytest.raises(TrainingError):
        runlog.trainer(run.config, run.module, [Spoil(weight_at=2), Stop()]).fit(run.module, run.data)
    assert saved(place) == {}
