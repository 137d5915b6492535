"""Where a run starts: the architecture and weights it takes from another run's checkpoint, and what of them may move."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from dataloaders.batch import Target
from tasks.module import WaveModule
from tasks.parts import PREFIXES, lr_factors, parts_of
from utils import checkpoint
from utils.checkpoint import Checkpoint
from utils.errors import CheckpointError, ConfigError
from utils.freezing import Freezing
from utils.initial import InitConfig, PartName, Weights
from utils.registry import typed
from utils.start_table import PartStart

FREE = frozenset({"checkpoint_path", "dropout", "kernels", "chunk_size", "gradient_checkpointing", "recompute_inner"})
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


LOADED = "checkpoint"
"""Says of a part that its weights come from there."""


def init_settings(config: Mapping[str, Any]) -> InitConfig:
    """The section ``init``, typed; its defaults where a config has none."""
    return typed(InitConfig, config.get("init", {}))


def init_mistakes(config: Mapping[str, Any]) -> list[str]:
    """What in a sound section ``init`` does not go with the rest of the config."""
    init, path, epochs = init_settings(config), config["model"]["checkpoint_path"], config["trainer"]["max_epochs"]
    wrong = []
    if init.weights is Weights.pretrained and not path:
        wrong.append(
            "init.weights = pretrained: needs model.checkpoint_path=<checkpoint or run folder>. Give it, or choose init=scratch"
        )
    elif init.weights is Weights.scratch or not path:
        why = "init.weights is scratch" if init.weights is Weights.scratch else "no model.checkpoint_path is given"
        wrong += [
            f"init.{name} = {[part.value for part in named]}: {does}, but {why}. "
            f"Give model.checkpoint_path with init=pretrained, or leave init.{name} out"
            for name, named, does in (
                ("freeze", init.freeze, "keeps weights of a checkpoint"),
                ("load", init.load, "takes weights of a checkpoint"),
            )
            if named
        ]
    if init.thaw_epoch is not None and 0 < epochs <= init.thaw_epoch:
        wrong.append(
            f"init.thaw_epoch = {init.thaw_epoch}: never comes, since epochs count from 0 and trainer.max_epochs = {epochs}. "
            f"Choose one below {epochs}, or null to keep {', '.join(part.value for part in init.freeze)} frozen"
        )
    return wrong


def start(module: WaveModule, config: Mapping[str, Any], *, resumes: bool) -> tuple[list[PartStart], Freezing]:
    """Load what ``init`` asks for and freeze what it says; returns what to tell, and the callback that holds frozen parts.

    A run that ``resumes`` gets all weights from its own checkpoint when training begins.

    Args:
        module: with fresh weights.
        config: checked, with the architecture of the checkpoint adopted.

    Raises:
        CheckpointError: weights missing, unexpected or of another shape; a part is to be frozen that starts fresh.
        ConfigError: nothing is left to train.
    """
    init, path = init_settings(config), config["model"]["checkpoint_path"]
    if resumes:
        origins, source = dict.fromkeys(PartName, "resumed"), ""
    elif path and init.weights is not Weights.scratch:
        saved = checkpoint.read(path)
        origins, source = load(module, saved, init), f"{saved.path}, step {saved.step:,}"
        module.lineage = saved.descent
        fresh = [name.value for name in init.freeze if origins[name] != LOADED]
        if fresh:
            raise CheckpointError(
                f"init.freeze = {[name.value for name in init.freeze]}: {', '.join(fresh)} would stay at fresh weights "
                f"({origins[PartName(fresh[0])]}). Freeze only what {saved.path} has."
            )
    else:
        origins, source = dict.fromkeys(PartName, "new; the checkpoint's architecture" if path else "new"), ""
    holds = freeze(module, init)
    return _told(module, init, origins, source), holds


def load(module: WaveModule, saved: Checkpoint, init: InitConfig) -> dict[PartName, str]:
    """Load parts from a checkpoint, strictly; returns where each part's weights come from, in words.

    Raises:
        CheckpointError: a part that must be loaded does not fit.
    """
    origins = {}
    for name, part in parts_of(module.network, module.task).items():
        weights = saved.weights(PREFIXES[name])
        other = _otherwise(module, saved) if name in (PartName.decoder, PartName.task) else ""
        if init.load is None and other:
            origins[name] = f"new; the checkpoint has {other}"
        elif init.load is None and name in (PartName.decoder, PartName.task) and checkpoint.misfits(part, weights):
            origins[name] = "new; the checkpoint's has other shapes"
        elif init.load is not None and name not in init.load:
            origins[name] = "new; not in init.load"
        else:
            hint = f" (the checkpoint has {other})" if other else ""
            checkpoint.load_part(part, weights, what=f"{name.value} from {saved.path}{hint}")
            origins[name] = LOADED
    return origins


def _otherwise(module: WaveModule, saved: Checkpoint) -> str:
    """Why decoder and task of a checkpoint mean something else than this run's; empty where they mean the same."""
    for section in ("task", "decoder"):
        theirs, ours = (str(config[section]["_name_"]) for config in (saved.config, module.config))
        if theirs != ours:
            return f"{section} '{theirs}'"
    theirs, ours = (list(spec["classes"]) for spec in (saved.data_spec, module.spec))
    same = theirs == ours or module.task.needs is Target.none
    return "" if same else f"classes {', '.join(theirs)}"


def freeze(module: WaveModule, init: InitConfig) -> Freezing:
    """Take the gradient from parts that never train; the callback does the rest, and holds those that thaw.

    Parts that thaw keep theirs, so that optimizer and DDP know them from the start.

    Raises:
        ConfigError: nothing is left to train.
    """
    parts = parts_of(module.network, module.task)
    if init.thaw_epoch is None:
        for name in init.freeze:
            parts[name].requires_grad_(False)
    moves = [p for name, part in parts.items() if name not in init.freeze for p in part.parameters()]
    if not moves:
        raise ConfigError(
            [f"init.freeze = {[name.value for name in init.freeze]}: no other part has weights, so nothing is left to train"]
        )
    return Freezing([parts[name] for name in init.freeze], init.thaw_epoch, awake=[module.task])


def _told(module: WaveModule, init: InitConfig, origins: Mapping[PartName, str], source: str) -> list[PartStart]:
    """One row for each part that has parameters."""
    factors = lr_factors(module.network, module.task, init)
    rows = []
    for name, part in parts_of(module.network, module.task).items():
        parameters: list[nn.Parameter] = list(part.parameters())
        if not parameters:
            continue
        chosen = module.config["model" if name is PartName.backbone else name.value]["_name_"]
        lowest, highest = min(factors[p] for p in parameters), max(factors[p] for p in parameters)
        rows.append(
            PartStart(
                part=name.value,
                name=str(chosen),
                parameters=sum(p.numel() for p in parameters),
                origin=origins[name],
                source=source if origins[name] == LOADED else "",
                frozen=name in init.freeze,
                thaw_epoch=init.thaw_epoch if name in init.freeze else None,
                lr_factors=(lowest, highest),
            )
        )
    return rows
