"""Where a run starts: from scratch, from another run's weights, or where an earlier run stopped."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from models.network import Network
from utils import checkpoint
from utils.errors import CheckpointError

FREE = frozenset({"checkpoint_path", "dropout", "kernels", "chunk_size", "gradient_checkpointing"})
"""Settings of encoder and model that a run started from a checkpoint may choose anew: they shape no weight and no function."""


def architecture(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of encoder and model that shape weights, by dotted name."""
    return {
        f"{section}.{key}": value for section in ("encoder", "model") for key, value in config[section].items() if key not in FREE
    }


def adopt_architecture(config: Mapping[str, Any], stated: set[str]) -> dict[str, Any]:
    """The config with encoder and model as the checkpoint has them; unchanged where none is given.

    The checkpoint is that of ``model.checkpoint_path``, or, for a run that resumes from one that started so, its own.

    Settings in :data:`FREE` stay the run's own.

    Args:
        config: the composed config.
        stated: settings a person stated (:func:`utils.overrides.explicit_settings`).

    Raises:
        CheckpointError: a stated setting contradicts the checkpoint.
    """
    path = config["model"]["checkpoint_path"]
    if not path:
        return dict(config)
    path = config["train"]["ckpt_path"] or path
    saved = checkpoint.read(path)
    theirs, ours = architecture(saved.config), architecture(config)
    against = [
        f"{name} = {ours[name]!r} (checkpoint: {theirs.get(name, 'no such setting')!r})"
        for name in sorted(stated & set(ours))
        if ours[name] != theirs.get(name)
    ]
    if against:
        raise CheckpointError(
            f"model.checkpoint_path = {path}: encoder and model come from the checkpoint, but this run states "
            f"{'; '.join(against)}. Leave these out, state them as the checkpoint has them, or train from scratch."
        )
    merged = dict(config)
    for section in ("encoder", "model"):
        free = {key: value for key, value in config[section].items() if key in FREE and key in saved.config[section]}
        merged[section] = {**saved.config[section], **free}
    return merged


def start_from(network: Network, path: str) -> None:
    """Load encoder and backbone from a checkpoint, strictly, part by part.

    Raises:
        CheckpointError: weights missing, unexpected or of another shape.
    """
    saved = checkpoint.read(path)
    for name, part in (("encoder", network.encoder), ("backbone", network.backbone)):
        module: nn.Module = part
        checkpoint.load_part(module, saved.weights(f"network.{name}"), what=f"{name} from {saved.path}")


MAY_CHANGE = frozenset({"train", "trainer", "loader", "logger", "checkpoint", "pictures", "run_id"})
"""Sections that a resumed run may set anew; everything else must be as the checkpoint has it."""


def check_resume(config: Mapping[str, Any], path: str) -> None:
    """Whether a checkpoint belongs to this run.

    Raises:
        CheckpointError: names every setting that differs.
    """
    saved = checkpoint.read(path)
    ours, theirs = (flat({k: v for k, v in c.items() if k not in MAY_CHANGE}) for c in (config, saved.config))
    free = {f"model.{key}" for key in ("kernels", "chunk_size", "gradient_checkpointing", "checkpoint_path")}
    differ = [
        f"{name}: now {ours.get(name, 'absent')!r}, checkpoint {theirs.get(name, 'absent')!r}"
        for name in sorted(set(ours) | set(theirs))
        if name not in free and ours.get(name) != theirs.get(name)
    ]
    if differ:
        shown = "; ".join(differ[:8]) + (f" and {len(differ) - 8} more" if len(differ) > 8 else "")
        raise CheckpointError(
            f"train.ckpt_path = {path}: this is another run ({shown}). Resume with the command that started it "
            f"(experiment={saved.config['experiment_name']} …), or start a new run from the weights with model.checkpoint_path."
        )


def flat(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested config with dotted names: ``{"model": {"d": 1}}`` to ``{"model.d": 1}``."""
    items: dict[str, Any] = {}
    for key, value in node.items():
        items.update(flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value})
    return items
