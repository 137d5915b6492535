"""Whether the disk has room for the checkpoints of a run, asked before it starts."""

import shutil
from pathlib import Path
from typing import final

import pytorch_lightning as pl
from torch import nn

from utils.checkpoint_files import MARGIN
from utils.errors import CheckpointError
from utils.keep import CHECKPOINTS
from utils.preemption import Stopped

MOMENTS = 2
"""Numbers that an optimizer keeps for each weight it moves: two with Adam, the most of those we have."""

REST = 2**17
"""Bytes of the rest: config, generators, where the run is."""


@final
class Room(pl.Callback):
    """Refuses to start a run whose checkpoints the disk cannot hold.

    Args:
        folder: the run folder.
        kept: checkpoints that lie there at the same time besides the last, its predecessor and the one being written.
    """

    def __init__(self, folder: Path, kept: int) -> None:
        self.folder = folder / CHECKPOINTS
        self.files = kept + 3

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The first rank looks, since it writes.

        Raises:
            CheckpointError: on the first rank, where there is too little room.
            Stopped: on the others.
        """
        lacking = trainer.strategy.broadcast(self.lacking(pl_module) if trainer.is_global_zero else "")
        if lacking and trainer.is_global_zero:
            raise CheckpointError(lacking)
        if lacking:
            raise Stopped(0)

    def lacking(self, module: nn.Module) -> str:
        """What to tell a person; nothing where there is room.

        Args:
            module: the network with all that is saved.
        """
        need = self.files * size(module) + MARGIN - sum(file.stat().st_size for file in self.folder.glob("*.ckpt"))
        free = shutil.disk_usage(next(place for place in self.folder.absolute().parents if place.is_dir())).free
        if need <= free:
            return ""
        return (
            f"checkpoints in {self.folder}: up to {self.files} of {size(module) / 1e6:,.1f} MB lie there at the same time, which "
            f"takes {need / 1e6:,.0f} MB, and {free / 1e6:,.0f} MB are free. Make room, start from a folder on another disk, or "
            "keep fewer with checkpoint.save_top_k"
        )


def size(module: nn.Module) -> int:
    """Bytes of a checkpoint of a module, at most: its weights and buffers, and the optimizer's moments of those that train."""
    weights = sum(value.numel() * value.element_size() for value in module.state_dict().values())
    moved = sum(value.numel() * value.element_size() for value in module.parameters() if value.requires_grad)
    return weights + MOMENTS * moved + REST
