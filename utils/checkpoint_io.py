"""How Lightning writes, reads and removes checkpoints here: whole or not at all, by the safe loader only."""

from pathlib import Path
from typing import Any, final

from pytorch_lightning.plugins import CheckpointIO

from utils import checkpoint_files
from utils.checkpoint import read_raw, write


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
        return read_raw(path)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint and its sum file."""
        checkpoint_files.remove(Path(path))
