"""How fast a run is: samples and tokens a second, time left."""

import time
from collections.abc import Callable
from typing import Any, final

import pytorch_lightning as pl


@final
class Pace:
    """A stopwatch that counts samples and can be paused.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._began: float | None = None
        self._resumed: float | None = None
        self._before_pause = 0.0
        self._samples = 0
        self._lap = (0.0, 0)

    def resume(self) -> None:
        """Start, or go on after a pause; without effect while running."""
        now = self._clock()
        self._began = now if self._began is None else self._began
        self._resumed = now if self._resumed is None else self._resumed

    def pause(self) -> None:
        """Stop counting time until :meth:`resume`; without effect while paused."""
        if self._resumed is not None:
            self._before_pause += self._clock() - self._resumed
            self._resumed = None

    def add(self, samples: int) -> None:
        """Count processed samples; those before the first :meth:`resume` (warm-up) do not count."""
        self._samples += samples if self._began is not None else 0

    @property
    def seconds(self) -> float:
        """Time counted, without pauses."""
        return self._before_pause + (0.0 if self._resumed is None else self._clock() - self._resumed)

    @property
    def elapsed(self) -> float:
        """Time since the first :meth:`resume`, pauses included."""
        return 0.0 if self._began is None else self._clock() - self._began

    @property
    def started(self) -> bool:
        """Whether time was ever counted."""
        return self._began is not None

    @property
    def rate(self) -> float:
        """Samples a second over the whole time counted; 0 where nothing was counted."""
        seconds = self.seconds
        return self._samples / seconds if seconds > 0 else 0.0

    def lap(self) -> float:
        """Samples a second since the last lap; 0 where nothing was counted."""
        seconds, samples = self.seconds - self._lap[0], self._samples - self._lap[1]
        self._lap = (self.seconds, self._samples)
        return samples / seconds if seconds > 0 else 0.0


def interval(trainer: pl.Trainer) -> int:
    """Optimizer steps between two rows of the metrics."""
    return int(trainer.log_every_n_steps)  # type: ignore[attr-defined]  # Lightning sets it from outside the class


@final
class Throughput(pl.Callback):
    """Logs ``samples_per_s``, ``tokens_per_s`` (over the logging interval, all ranks, without validation) and ``learning_rate``.

    The first batch of a run, in which workers start and kernels compile, is left out. Nothing here waits for the device:
    Lightning does so once a logging interval, when it writes the metrics, and the clock is read at that same point of
    each interval.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.pace = Pace(clock)
        self.samples_per_s = 0.0
        self._logged_at = -1
        self._rate = 0.0

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        """Keep the learning rate this step uses (afterwards it is the next step's); count time again after a validation."""
        if self.pace.started:
            self.pace.resume()
        self._rate = max(float(group["lr"]) for group in trainer.optimizers[0].param_groups)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Count the batch; at the end of a logging interval, log."""
        self.pace.add(len(batch.wave) * trainer.world_size)
        self.pace.resume()
        step = trainer.global_step
        if step % interval(trainer) or step == self._logged_at:
            return
        self._logged_at = step
        pl_module.log("learning_rate", self._rate)
        rate = self.pace.lap()
        if rate > 0:
            self.samples_per_s = rate
            pl_module.log("samples_per_s", rate)
            pl_module.log("tokens_per_s", rate * batch.wave.shape[1] / pl_module.network.encoder.stride)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Validation is no training."""
        self.pace.pause()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the watch."""
        self.pace.pause()
