"""Checkpoints that describe themselves: found, read safely, loaded strictly."""

import pickle
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from utils.errors import CheckpointError

KEY = "wavexlstm"
SCHEMA = 1
AVERAGE = "average.ckpt"
"""Name of the mean of a run's checkpoints (:mod:`utils.averaging`): it must be named, a folder never means it."""
_PACKAGES = ("torch", "pytorch-lightning", "hydra-core", "seisbench", "xlstm", "mlstm_kernels", "triton", "numpy")


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


@cache
def commit() -> str:
    """The project's commit, with ``+`` where the tree is changed; ``unknown`` outside a git checkout."""
    root = Path(__file__).resolve().parent.parent
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True).stdout.strip()
        dirty = subprocess.run(
            ["git", "status", "--porcelain"], cwd=root, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("+" if dirty else "")


def versions() -> dict[str, str]:
    """Installed versions of the packages that decide what a run computes."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found


def record(config: Mapping[str, Any], data_spec: Mapping[str, Any], lineage: Sequence[str] = ()) -> dict[str, Any]:
    """What every checkpoint carries besides weights: plain builtins, so that it loads with ``weights_only=True``."""
    return {
        "schema": SCHEMA,
        "config": dict(config),
        "data_spec": dict(data_spec),
        "lineage": list(lineage),
        "commit": commit(),
        "versions": versions(),
    }


def find(path: str | Path) -> Path:
    """The checkpoint file a path means: the file itself, or the newest ``*.ckpt`` in or below a folder, averages left out.

    Raises:
        CheckpointError: there is none.
    """
    place = Path(path).expanduser()
    if place.is_file():
        return place
    if place.is_dir():
        files = [file for file in place.rglob("*.ckpt") if file.name != AVERAGE]
        files.sort(key=lambda file: (file.stat().st_mtime_ns, file.name))
        if files:
            return files[-1]
        raise CheckpointError(f"checkpoint {place}: the folder holds no *.ckpt. Give a checkpoint file or a run folder.")
    raise CheckpointError(
        f"checkpoint {place}: no such file or folder. Checkpoints are in runs/<experiment>/<run_id>/checkpoints/."
    )


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def read_raw(path: str | Path) -> dict[str, Any]:
    """A checkpoint file's whole content on the CPU, by the safe loader.

    Raises:
        CheckpointError: missing, damaged, or holding something other than tensors and plain builtins.
    """
    file = find(path)
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
    own = content.get(KEY) if isinstance(content, dict) else None
    if not isinstance(own, dict) or not isinstance(content.get("state_dict"), dict):
        raise CheckpointError(f"checkpoint {file}: no record of a WaveXLSTM run in it. Use a checkpoint that train.py wrote.")
    if own.get("schema") != SCHEMA or not {"config", "data_spec"} <= set(own):
        raise CheckpointError(
            f"checkpoint {file}: schema {own.get('schema')!r}, this version reads whole records of schema {SCHEMA}."
        )
    return content


def read(path: str | Path) -> Checkpoint:
    """Read a checkpoint that this project wrote.

    Raises:
        CheckpointError: see :func:`read_raw`.
    """
    content = read_raw(path)
    own = content[KEY]
    return Checkpoint(
        path=find(path),
        config=own["config"],
        data_spec=own["data_spec"],
        state_dict=content["state_dict"],
        step=int(content.get("global_step", 0)),
        lineage=tuple(own.get("lineage", ())),
        resumable=bool(content.get("optimizer_states")),
    )


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
