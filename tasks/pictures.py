"""Pictures of what the network does, drawn by its task while it trains."""

import time
import warnings
from collections.abc import Mapping
from typing import Any, final

import numpy as np
import pytorch_lightning as pl
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from pytorch_lightning.loggers import TensorBoardLogger, WandbLogger

from dataloaders.batch import Batch
from dataloaders.contracts import Split
from dataloaders.normalise import prepare
from tasks.module import WaveModule
from utils.curves import PICTURES, save
from utils.runlog import folder

SHARE = 0.02
"""Drawing after validations may take this share of a run's time; the last pictures are always drawn."""
DRAWING_FAULTS = (ArithmeticError, LookupError, ValueError, RuntimeError, OSError)
"""What a figure may fail with on unusual data, or a full disk: told as a warning, since pictures are no reason to lose a run."""


@final
class Pictures(pl.Callback):
    """Renews ``pictures/<name>.png`` after validations, from the same first traces of the dev split each time.

    All ranks compute (quantizers reduce over ranks), rank 0 writes. Training is left as it was: generators, modes of
    every module, gradients.

    Args:
        config: the run's config, plain builtins.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.folder = folder(config) / PICTURES
        self.traces = int(config["pictures"]["traces"])
        self.writes = not config["trainer"]["fast_dev_run"]
        self._cost = 0.0
        self._drawn = 0.0
        self._step = -1
        self._batch: Batch | None = None

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw, unless the last drawing was too recent for what it cost."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        due = (time.monotonic() - self._drawn) * SHARE >= self._cost
        if trainer.strategy.broadcast(due):
            self._draw(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The trained network's."""
        self._draw(trainer, pl_module)

    def _draw(self, trainer: pl.Trainer, module: Any) -> None:
        if trainer.global_step == self._step:
            return
        self._step, began = trainer.global_step, time.monotonic()
        try:
            for name, figure in self._figures(trainer, module).items():
                if trainer.is_global_zero and self.writes:
                    save(figure, self.folder / f"{name}.png")
                    self._show(trainer, name, figure)
        except DRAWING_FAULTS as error:
            warnings.warn(f"pictures at step {self._step}: {type(error).__name__}: {error}. Training goes on.", stacklevel=2)
        self._drawn = time.monotonic()
        self._cost = self._drawn - began

    def _figures(self, trainer: pl.Trainer, module: WaveModule) -> dict[str, Figure]:
        modes = [(part, part.training) for part in module.modules()]
        devices = [trainer.strategy.root_device] if trainer.strategy.root_device.type == "cuda" else []
        module.eval()
        try:
            with torch.random.fork_rng(devices), torch.no_grad(), trainer.precision_plugin.forward_context():
                batch, _ = prepare(self._examples(trainer, module), module.prepare_cfg)
                return module.task.figures(module.network, batch, module.draw(batch, evaluating=True))
        finally:
            for part, training in modes:
                part.training = training

    def _examples(self, trainer: pl.Trainer, module: WaveModule) -> Batch:
        """Fetched once; the dev split's first traces, on this rank's device."""
        batch = self._batch
        if batch is None:
            part = trainer.datamodule.parts[Split.dev]  # type: ignore[attr-defined]  # Lightning sets it from outside the class
            batch = part.__getitems__([(0, n) for n in range(min(self.traces, len(part)))])
            self._batch = batch = module.transfer_batch_to_device(batch, trainer.strategy.root_device, 0)
        return batch

    @staticmethod
    def _show(trainer: pl.Trainer, name: str, figure: Figure) -> None:
        """Hand a figure to the loggers that take pictures."""
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                canvas = FigureCanvasAgg(figure)
                canvas.draw()
                pixels = np.asarray(canvas.buffer_rgba())[..., :3]
                logger.experiment.add_image(name, pixels, trainer.global_step, dataformats="HWC")
            elif isinstance(logger, WandbLogger):
                logger.log_image(f"pictures/{name}", [figure], step=None)
