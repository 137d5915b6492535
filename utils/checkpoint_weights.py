"""A checkpoint's weights alone, for sharing: safetensors, which holds numbers and texts and cannot hold code.

``NAME.safetensors`` has the weights, and the record as a text in its header: no second file is needed to read it.
``NAME.json`` is the same record for people and other programs. The optimizer stays behind: no run resumes from it.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
from safetensors.torch import save
from torch import Tensor

from utils import checkpoint_files
from utils.checkpoint_record import KEY
from utils.errors import CheckpointError

SUFFIX = ".safetensors"
_PLACE = ("epoch", "global_step")


def export(content: Mapping[str, Any], target: Path) -> tuple[Path, Path]:
    """Write the two files.

    Args:
        content: a checkpoint's, as :func:`utils.checkpoint.read_raw` gives it.
        target: their common name, with or without ``.safetensors``.

    Returns:
        the file of the weights and the JSON.

    Raises:
        CheckpointError: the disk is full, or cannot be written.
    """
    weights = target if target.suffix == SUFFIX else target.with_name(target.name + SUFFIX)
    about = {key: content[key] for key in (*_PLACE, KEY) if key in content}
    tensors: dict[str, Tensor] = {name: value.clone().contiguous() for name, value in content["state_dict"].items()}
    written = save(tensors, metadata={KEY: json.dumps(about)})
    checkpoint_files.write(weights, written)
    beside = weights.with_suffix(".json")
    shapes = {name: [str(value.dtype).removeprefix("torch."), list(value.shape)] for name, value in tensors.items()}
    said = {"file": weights.name, "sha256": hashlib.sha256(written).hexdigest(), **about, "weights": shapes}
    beside.write_text(json.dumps(said, indent=1, ensure_ascii=False) + "\n")
    return weights, beside


def load(file: Path) -> dict[str, Any]:
    """What :func:`export` wrote, as a checkpoint's content without an optimizer.

    Raises:
        CheckpointError: damaged, or not written by :func:`export`.
    """
    try:
        with safetensors.safe_open(file, framework="pt") as source:
            about = json.loads((source.metadata() or {}).get(KEY, "null"))
            state = {name: source.get_tensor(name) for name in source.keys()}  # noqa: SIM118 - no mapping
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"checkpoint {file}: damaged or no safetensors file ({error}). Use another one.") from error
    return {**(about if isinstance(about, dict) else {}), "state_dict": state}
