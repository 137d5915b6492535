"""How far the run is: one bar for the whole run in a terminal, a plain line every so often in a log."""

import time
from collections.abc import Callable
from typing import Any, final

import pytorch_lightning as pl
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from torch import Tensor

from utils.console import console, duration
from utils.pace import Throughput, interval

REFRESH = 0.25
"""Seconds between two drawings of the bar."""
LINE_EVERY = (10.0, 60.0)
"""Seconds between two lines, during the first five minutes and afterwards."""


@final
class RunProgress(pl.Callback):
    """Loss, the validation metric, samples/s and the time left of the whole run (not of the epoch).

    The loss is read from the device only where Lightning reads it anyway, at the end of a logging interval. Rank 0 alone
    draws; nothing here is a collective, and no thread draws, so that loader workers fork undisturbed.

    Args:
        throughput: measures samples/s; must come before this one among the callbacks.
        monitor: the validation metric to show.
        out: where to draw; a terminal gets the bar.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        throughput: Throughput,
        monitor: str,
        out: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.throughput = throughput
        self.monitor = monitor
        self.out = out or console()
        self._clock = clock
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._total = 0
        self._first = 0
        self._began = self._drawn = 0.0
        self._values: dict[str, float] = {}
        self._line = ""

    def on_sanity_check_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say why nothing moves yet."""
        self._open(trainer)
        self._draw(trainer, "trying a validation step")

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count the steps of the run; the clock for the time left starts after the first of this process."""
        self._total = int(trainer.estimated_stepping_batches)
        self._first = trainer.global_step
        self._open(trainer)
        self._draw(trainer, "first step")

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Advance; at the end of a logging interval, read the loss."""
        if not trainer.is_global_zero:
            return
        step, now = trainer.global_step, self._clock()
        if step == self._first + 1 and not self._began:
            self._began = now
        if step % interval(trainer) == 0 or "train/loss" not in self._values:
            self._read(trainer, "train/loss")
        first, later = LINE_EVERY
        every = REFRESH if self._bar is not None else first if now - self._began < 300 else later
        if now - self._drawn >= every:
            self._draw(trainer, "training")

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Show that and how far validation runs (in the bar only)."""
        if self._bar is not None and not trainer.sanity_checking and self._clock() - self._drawn >= REFRESH:
            batches = trainer.num_val_batches[0]
            self._draw(trainer, f"validating {batch_idx + 1}/{batches}")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Read the metric, and say it; not of a validation after the run (an average's)."""
        if trainer.is_global_zero and not trainer.sanity_checking and trainer.state.fn == "fit":
            self._read(trainer, self.monitor)
            self._draw(trainer, "training")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The last state stays on the screen."""
        if trainer.is_global_zero:
            self._read(trainer, "train/loss")
            self._draw(trainer, "done")
        self._close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Leave the terminal as it was."""
        self._close()

    def _read(self, trainer: pl.Trainer, name: str) -> None:
        value = trainer.callback_metrics.get(name)
        if isinstance(value, Tensor):
            self._values[name] = float(value)

    def left(self, step: int) -> float | None:
        """Seconds left of the run after ``step`` steps, validations included; None where it is too early to say."""
        done = step - self._first - 1
        if done < 1 or not self._began:
            return None
        return (self._clock() - self._began) / done * max(0, self._total - step)

    def _status(self, trainer: pl.Trainer) -> str:
        words = [
            f"{name.removeprefix('train/')} {value:.3f}" if name == "train/loss" else f"{name} {value:.3f}"
            for name, value in self._values.items()
        ]
        if self.throughput.samples_per_s > 0:
            words.append(f"{self.throughput.samples_per_s:.0f} samples/s")
        left = self.left(trainer.global_step)
        if left is not None and trainer.global_step < self._total:
            words.append(f"{duration(left)} left")
        return "  ".join(words)

    def _open(self, trainer: pl.Trainer) -> None:
        if trainer.is_global_zero and self.out.is_terminal and self._bar is None:
            columns = (
                TextColumn("[bold]{task.description}"),
                BarColumn(bar_width=None, complete_style="cyan", finished_style="green"),
                TextColumn("{task.completed:.0f}/{task.total:.0f}"),
                TextColumn("{task.fields[status]}", markup=False),
            )
            self._bar = Progress(*columns, console=self.out, auto_refresh=False, expand=True)
            self._task = self._bar.add_task("starting", total=max(1, self._total), status="")
            self._bar.start()

    def _draw(self, trainer: pl.Trainer, activity: str) -> None:
        if not trainer.is_global_zero:
            return
        self._drawn = self._clock()
        step, status = trainer.global_step, self._status(trainer)
        if self._bar is not None:
            self._bar.update(
                self._task, total=max(1, self._total), completed=step, description=activity, status=status, refresh=True
            )
            return
        line = f"step {step}/{self._total} ({step / max(1, self._total):.0%})  {status}"
        if self._total and status and line != self._line:
            self._line = line
            self.out.print(line, markup=False, soft_wrap=True)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
