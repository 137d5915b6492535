"""A checkpoint's weights alone, for sharing: safetensors, which holds numbers and texts and cannot hold code.

``NAME.safetensors`` has the weights, and the record as a text in its header: no second file is needed to read it.
``NAME.json`` is the same record for people and other programs, with the sum of the weights' file: where it lies beside them, they
are checked. The optimizer stays behind: no run resumes from it.
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
        CheckpointError: damaged, not written by :func:`export`, or not the file that the JSON beside it describes.
    """
    try:
        with safetensors.safe_open(file, framework="pt") as source:
            about = json.loads((source.metadata() or {}).get(KEY, "null"))
            state = {name: source.get_tensor(name) for name in source.keys()}  # noqa: SIM118 - no mapping
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"checkpoint {file}: damaged or no safetensors file ({error}). Use another one.") from error
    about = about if isinstance(about, dict) else {}
    if KEY in about:
        _demand_described(file)
    return {**about, "state_dict": state}


def _demand_described(file: Path) -> None:
    """Compare a file with the sum in the JSON beside it, where there is one of ours.

    Raises:
        CheckpointError: they differ, or the JSON is damaged.
    """
    beside = file.with_suffix(".json")
    if not beside.is_file():
        return
    try:
        said = json.loads(beside.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"checkpoint {beside}: damaged ({error}). Copy it again, or delete it: {file.name} can be read alone."
        ) from error
    if not isinstance(said, dict) or KEY not in said:
        return  # some other program's
    found, named = checkpoint_files.digest(file), str(said.get("sha256"))
    if found != named:
        raise CheckpointError(
            f"checkpoint {file}: its SHA-256 is {found[:12]}…, not {named[:12]}… as {beside.name} beside it says: one of the two "
            "is damaged, or of another export. Copy or export both again."
        )
