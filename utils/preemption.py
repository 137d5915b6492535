"""Signals that end a run before its time: it finishes the step, saves, stops, and goes on by itself where a cluster lets it.

===================  ==============================  ================================================================
signal               sent by                         after saving
===================  ==============================  ================================================================
SIGUSR1, SIGUSR2     ``#SBATCH --signal``: the time  asks SLURM for another turn (``guard.requeue``); submitit, which has
                     limit is near; submitit         a handler of its own for it, is given the word
SIGTERM              scancel; preemption; a person   ends; where SLURM preempts, waits for SLURM to end it, which then
                                                     requeues. Never asks for a turn: that would bring a cancelled job back
SIGINT               Ctrl-C                          ends; a second one ends at once, without saving
===================  ==============================  ================================================================

A handler only notes the signal. Ranks agree on it before each step, host to host (gloo): no GPU is waited for, and an integer
costs tens of microseconds. Saved is after that step; between signal and file lie two steps at most.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn, final

import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import TrainerFn
from torch import distributed

from utils import slurm, supervision
from utils.guarding import GuardConfig
from utils.pace import interval

TURN_ENDS = (signal.SIGUSR1, signal.SIGUSR2)
"""Signals after which another turn is asked for."""
LINGER_S = 24 * 3600
"""Seconds a preempted run waits to be ended: beyond any grace time. Ended by itself, it would count as completed or failed."""


class Stopped(Exception):  # noqa: N818 - no error: the run did as it was asked
    """A run was asked to stop, and did so between two steps. Leaves ``fit`` on every rank.

    Attributes:
        number: the signal; 0 where another rank says why.
        before: what handled this signal before us, and is to be told.
    """

    def __init__(self, number: int, before: Any = None) -> None:
        super().__init__(signal.Signals(number).name if number else "another rank says why")
        self.number = number
        self.before = before


@final
class Guard(pl.Callback):
    """Turns signals into :class:`Stopped`, with ``last.ckpt`` saved; in the first step, before which nothing is to save, without.

    A stop within a validation saves the step before it, with that validation still to be done (:class:`utils.resume.Owed`).

    Args:
        save: called on every rank, with the trainer; writes even where a checkpoint of this step was written.
    """

    def __init__(self, save: Callable[[pl.Trainer], None]) -> None:
        self.save = save
        self.asked = 0
        self._before: dict[int, Any] = {}
        self._process = os.getpid()
        self._speaks = True
        self._stop = 0
        self._listens = False
        self._saved = self._ended = False
        self._hosts: Any = None  # a group of ranks; None is all of them by the backend they train with
        self._first = self._step = -1

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Listen from before loader workers start: SLURM signals every process, and those that do not listen die."""
        if stage != "fit":
            return
        self._speaks = trainer.is_global_zero
        self._listen(*TURN_ENDS)
        self.asked = max(self.asked, supervision.kept())
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._listen(signal.SIGINT)  # else a background job ignores Ctrl-C, or a notebook has its own way

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """SIGTERM from here on: Lightning, whose handler waits for other ranks in mid-step, has installed its own by now."""
        self._listen(signal.SIGTERM)
        self._first = self._step = trainer.global_step
        if trainer.world_size > 1 and distributed.get_backend() != "gloo":
            self._hosts = distributed.new_group(backend="gloo")

    def _listen(self, *numbers: int) -> None:
        self._process, self._listens = os.getpid(), True
        if threading.current_thread() is not threading.main_thread():
            return
        found = {number: signal.signal(number, self._ask) for number in numbers}
        ours = (self._ask, supervision.keep)
        self._before |= {number: handler for number, handler in found.items() if handler not in ours}

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process or self._ended:
            return  # a loader worker, which inherited this handler; or a run that is on its way out
        if not self._listens:
            _pass_on(self._before.get(number), number, frame)
            return
        if number == signal.SIGINT and self.asked == number:
            raise KeyboardInterrupt
        self.asked = max(self.asked, number)  # SIGTERM is the largest: what is cancelled stays so
        if self._speaks:  # not through a stream: this may interrupt a write to one
            again = " Ctrl-C again stops at once." if number == signal.SIGINT else ""
            os.write(2, f"\nStopping after this step, and saving ({signal.Signals(number).name}).{again}\n".encode())

    def _agree(self, trainer: pl.Trainer) -> None:
        """Every rank takes the largest signal that one of them was sent."""
        flag = self.asked
        if trainer.world_size > 1:
            shared = torch.tensor(flag)
            distributed.all_reduce(shared, distributed.ReduceOp.MAX, group=self._hosts)
            flag = int(shared)
        self._stop = max(self._stop, flag)

    def _end(self) -> NoReturn:
        raise Stopped(self._stop, self._before.get(self._stop))

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        """Agree; end here if all is saved, after the curves of the last step were written."""
        if not self._saved:
            self._agree(trainer)
        if self._saved or (self._stop and self._step == self._first):
            self._end()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save here if the run is to stop: between two steps, with the loader's position counted right."""
        if trainer.global_step == self._step:
            return  # in the middle of accumulating a step
        self._step = trainer.global_step
        if trainer.world_size == 1:
            self._agree(trainer)
        if self._stop:
            self.save(trainer)
            self._saved = True

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A stop does not wait for a validation that was about to start."""
        self._interrupt(trainer, agree=True)

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Nor for one that is running; several ranks agree now and then, since nothing else makes them wait here."""
        self._interrupt(trainer, agree=trainer.world_size == 1 or batch_idx % interval(trainer) == 0)

    def _interrupt(self, trainer: pl.Trainer, *, agree: bool) -> None:
        if trainer.sanity_checking or self._first < 0 or trainer.state.fn != TrainerFn.FITTING:
            return
        if agree:
            self._agree(trainer)
        if self._stop:
            self.save(trainer)
            self._end()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Give the signals back."""
        self._give_back()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Give the signals back; but a run that was stopped is not to be disturbed by a second one while it leaves."""
        self._ended = isinstance(exception, Stopped)
        if not self._ended:
            self._give_back()

    def _give_back(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._listens = False  # Lightning, which restores what it found, may put our handler back


def _pass_on(handler: Any, number: int, frame: FrameType | None) -> None:
    """Do with a signal what its earlier handler did."""
    if callable(handler):
        handler(number, frame)
    elif handler is not signal.SIG_IGN:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


def leave(stopped: Stopped, config: GuardConfig, *, leads: bool) -> NoReturn:
    """End the process of a run that was stopped. Call it when everything else is done: SLURM may kill from here on.

    The exit code is the first rank's, 128 + signal. Others leave with 0: srun and Lightning would take anything else for a
    failure and kill the first rank at its work.

    Args:
        stopped: how it was stopped.
        config: section ``guard``.
        leads: this is the first rank.

    Raises:
        SystemExit: always, or whatever submitit's handler raises.
    """
    if stopped.number in TURN_ENDS:
        signal.signal(stopped.number, signal.SIG_IGN)  # once is enough
        if callable(stopped.before):
            stopped.before(stopped.number, None)
        elif leads and config.requeue and slurm.tasked():
            sys.stderr.write(f"{_next_turn(config)}\n")
    elif stopped.number == signal.SIGTERM and slurm.tasked() and slurm.preempted():
        sys.stderr.write("Preempted: saved, waiting for SLURM to requeue this job.\n")
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(LINGER_S)
    sys.exit(128 + stopped.number if leads else 0)


def _next_turn(config: GuardConfig) -> str:
    """Ask for another turn; what came of it in words."""
    if slurm.restarts() >= config.restarts:
        return f"Not requeued: this was restart {slurm.restarts()}, and guard.restarts = {config.restarts}."
    refused = slurm.requeue()
    return f"Not requeued: {refused}" if refused else "Requeued: SLURM starts this job again, and it goes on from last.ckpt."
