"""Checkpoints that describe themselves: written whole, found, read safely, loaded strictly."""

import io
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from utils import checkpoint_files, checkpoint_weights
from utils.checkpoint_find import AVERAGE, find
from utils.checkpoint_record import KEY, SCHEMA, commit, record, upgraded, versions
from utils.errors import CheckpointError

__all__ = [
    "AVERAGE",
    "KEY",
    "SCHEMA",
    "Checkpoint",
    "commit",
    "find",
    "load_part",
    "misfits",
    "read",
    "read_raw",
    "record",
    "versions",
    "write",
]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as read.

    Attributes:
        path: the file.
        config: the whole config of the run that wrote it, plain builtins.
        data_spec: what its data looked like, plain builtins.
        state_dict: weights by name, on the CPU.
        step: optimizer steps done.
        lineage: the runs its weights came from, oldest first, ``"contrastive/small/<run_id>"`` each.
        resumable: it holds what a run needs to go on, not weights alone.
    """

    path: Path
    config: dict[str, Any]
    data_spec: dict[str, Any]
    state_dict: dict[str, Tensor]
    step: int
    lineage: tuple[str, ...] = ()
    resumable: bool = True

    @property
    def descent(self) -> tuple[str, ...]:
        """The lineage of a run that starts from this checkpoint: its own, and itself."""
        return (*self.lineage, f"{self.config['experiment_name']}/{self.config['run_id']}")

    def weights(self, prefix: str) -> dict[str, Tensor]:
        """The weights of one part, without the prefix: ``weights("network.encoder")``."""
        return {
            name.removeprefix(f"{prefix}."): value for name, value in self.state_dict.items() if name.startswith(f"{prefix}.")
        }


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def read_raw(path: str | Path) -> dict[str, Any]:
    """A checkpoint's whole content on the CPU, by the safe loader, its record in the present schema.

    Args:
        path: what :func:`find` takes; or a file of weights that :mod:`utils.checkpoint_weights` wrote.

    Raises:
        CheckpointError: missing, damaged, holding something other than tensors and plain builtins, or no record of a run.
    """
    return _content(find(path))


def _content(file: Path) -> dict[str, Any]:
    if file.suffix == checkpoint_weights.SUFFIX:
        return upgraded(checkpoint_weights.load(file), f"checkpoint {file}")
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"checkpoint {file}: refused by the safe loader; it holds more than tensors and plain values "
            f"({_first_line(error)}), or is damaged. Use a checkpoint that this project wrote."
        ) from error
    except (
        RuntimeError,
        EOFError,
        OSError,
        LookupError,
        AttributeError,
        ValueError,
        TypeError,
    ) as error:  # whatever bytes unpickle to
        raise CheckpointError(f"checkpoint {file}: damaged or no checkpoint ({_first_line(error)}). Use another one.") from error
    return upgraded(content, f"checkpoint {file}")


def read(path: str | Path) -> Checkpoint:
    """Read a checkpoint that this project wrote.

    Raises:
        CheckpointError: see :func:`read_raw`.
    """
    file = find(path)
    content = _content(file)
    own = content[KEY]
    return Checkpoint(
        path=file,
        config=own["config"],
        data_spec=own["data_spec"],
        state_dict=content["state_dict"],
        step=int(content.get("global_step", 0)),
        lineage=tuple(own.get("lineage", ())),
        resumable=bool(content.get("optimizer_states")),
    )


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


def misfits(module: nn.Module, weights: Mapping[str, Tensor]) -> list[str]:
    """What keeps weights from being a part's: those missing, unexpected and misshapen, one text each; empty where they fit."""
    own = module.state_dict()
    missing = [name for name in own if name not in weights]
    unexpected = [name for name in weights if name not in own]
    shapes = [
        f"{name} {tuple(weights[name].shape)} for {tuple(own[name].shape)}"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    return [
        f"{len(names)} {word}: {', '.join(names[:5])}{' …' if len(names) > 5 else ''}"
        for word, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
        if names
    ]


def load_part(module: nn.Module, weights: Mapping[str, Tensor], *, what: str) -> None:
    """Load a part's weights strictly.

    Args:
        module: the part.
        weights: its weights by name, see :meth:`Checkpoint.weights`.
        what: names part and checkpoint in the error.

    Raises:
        CheckpointError: lists missing, unexpected and misshapen weights; nothing is loaded then.
    """
    problems = misfits(module, weights)
    if problems:
        raise CheckpointError(f"{what}: the weights do not fit. " + "; ".join(problems))
    module.load_state_dict(dict(weights))
