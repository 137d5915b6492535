"""Where an evaluation's figures come from: ``run.json`` in its folder, enough to make it again and to compare it with others."""

import datetime
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from utils import checkpoint
from utils.checkpoint import Checkpoint


def run_folder(file: Path) -> Path:
    """The run folder of a checkpoint: above ``checkpoints/``, else the folder the file is in."""
    return file.parent.parent if file.parent.name == "checkpoints" else file.parent


def label_of(names: list[str]) -> str:
    """A folder name for sets: their last parts, joined."""
    return re.sub(r"[^\w.-]+", "_", "+".join(Path(name).name for name in names)) or "data"


def training_sets(dataset: Mapping[str, Any]) -> list[str]:
    """Names of the sets of a run's data; ``synthetic`` and its like by their own name."""
    return [str(name) for name in dataset.get("dataset_name") or [dataset["_name_"]]]


def init_of(config: Mapping[str, Any]) -> str:
    """How a run started, in words: ``scratch``, ``pretrained (…)``, with what is frozen."""
    init, path = config.get("init") or {}, (config.get("model") or {}).get("checkpoint_path")
    weights = str(init.get("weights", "auto"))
    if not path or weights == "scratch":
        return "scratch"
    frozen = ", ".join(map(str, init.get("freeze") or []))
    until = f" until epoch {init['thaw_epoch']}" if frozen and init.get("thaw_epoch") is not None else ""
    return f"pretrained{f', {frozen} frozen{until}' if frozen else ''}"


def describe(saved: Checkpoint, parameters: int) -> dict[str, Any]:
    """What a checkpoint says of its run.

    Args:
        saved: the checkpoint.
        parameters: of the model.
    """
    config = saved.config
    dataset = config["dataset"]
    return {
        "experiment_name": str(config["experiment_name"]),
        "run_id": str(config["run_id"]),
        "seed": int(config["seed"]),
        "training_sets": training_sets(dataset),
        "training_fraction": float(dataset.get("training_fraction", 1.0)),
        "training_traces": dataset.get("traces"),
        "init": init_of(config),
        "pretrained_from": config["model"].get("checkpoint_path"),
        "lineage": list(saved.lineage),
        "encoder": str(config["encoder"]["_name_"]),
        "model": str(config["model"]["_name_"]),
        "checkpoint": str(saved.path),
        "step": saved.step,
        "parameters": parameters,
    }


def write_run(path: Path, about: Mapping[str, Any]) -> None:
    """Write ``run.json`` with date, commit and versions."""
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    content = {**about, "date": now, "commit": checkpoint.commit(), "versions": checkpoint.versions()}
    path.write_text(json.dumps(content, indent=1) + "\n")
