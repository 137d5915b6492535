"""Whether a run may go on from a checkpoint: it must be the same run."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from tasks.start import FREE
from utils import checkpoint
from utils.errors import CheckpointError
from utils.initial import InitConfig

MAY_CHANGE = frozenset({"train", "trainer", "loader", "logger", "checkpoint", "pictures", "guard", "plan", "run_id"})
"""Sections that a resumed run may set anew; everything else must be as the checkpoint has it. ``init`` too: what is frozen, and
how fast each part learns, decides where a run ends."""

UNSTATED = {"init": dataclasses.asdict(InitConfig())}
"""Sections that checkpoints of earlier versions do not have, as those versions behaved."""


def check_resume(config: Mapping[str, Any], path: str) -> None:
    """Whether a checkpoint belongs to this run.

    Raises:
        CheckpointError: names every setting that differs; or the checkpoint holds weights only.
    """
    saved = checkpoint.read(path)
    if not saved.resumable:
        raise CheckpointError(
            f"train.ckpt_path = {path}: holds weights without an optimizer's state, as averages do. "
            "Resume from last.ckpt, or start a new run from these weights with model.checkpoint_path."
        )
    ours, theirs = (flat({k: v for k, v in c.items() if k not in MAY_CHANGE}) for c in (config, UNSTATED | saved.config))
    free = {f"model.{key}" for key in FREE - {"dropout"}}
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
