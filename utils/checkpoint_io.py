"""How Lightning writes, reads and removes checkpoints here: whole or not at all, by the safe loader only."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import torch
from pytorch_lightning.plugins import CheckpointIO

from utils import checkpoint, checkpoint_files


def write(content: Mapping[str, Any], target: Path, predecessor: Path | None = None) -> None:
    """Write a checkpoint, whole or not at all.

    Args:
        content: what it holds; all of it is serialised in memory first, so that its size is known before the disk is touched.
        target, predecessor: see :func:`utils.checkpoint_files.write`.

    Raises:
        CheckpointError: the disk is full, or cannot be written.
    """
    serialised = io.BytesIO()
    torch.save(content, serialised)
    checkpoint_files.write(target, serialised.getbuffer(), predecessor)


@final
class WholeCheckpoints(CheckpointIO):
    """The Trainer's plugin. Lightning calls what writes on rank 0 only."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Path | None = None) -> None:
        """Write a checkpoint (:func:`utils.checkpoint_files.write`).

        Args:
            checkpoint: what Lightning and the callbacks put into it.
            path: the file.
            storage_options: keeps what the file was under this name; None keeps nothing.

        Raises:
            CheckpointError: the disk is full, or cannot be written.
        """
        write(checkpoint, Path(path), storage_options)

    def load_checkpoint(self, path: str | Path, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint onto the CPU; its sum and its record are checked, and nothing but the safe loader reads it.

        Args:
            path: the file, or a folder: its newest whole one.
            map_location: not looked at: Lightning moves what it loads.
            weights_only: not looked at: there is no other way.

        Raises:
            CheckpointError: see :func:`utils.checkpoint.read_raw`.
        """
        return checkpoint.read_raw(path)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint and its sum file."""
        checkpoint_files.remove(Path(path))
