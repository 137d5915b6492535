"""The only place where parts meet: config to checked settings, settings to network, task and data, wired by width and stride."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dataloaders.batch import DataSpec, Target
from dataloaders.contracts import SOURCES, Source
from dataloaders.datamodule import WaveData
from models.contracts import BACKBONES, DECODERS, ENCODERS, QUANTIZERS, Quantizer
from models.network import Network
from tasks.contracts import LOSSES, TASKS, Loss, Parts, Scores, Task
from tasks.module import WaveModule
from tasks.resume import check_resume, flat
from tasks.start import adopt_architecture, init_mistakes, start
from utils import checkpoint
from utils.config import LoaderConfig, root_mistakes
from utils.errors import ConfigError
from utils.freezing import Freezing
from utils.optim import OPTIMIZERS
from utils.registry import Registry, import_parts, typed
from utils.runlog import computes_on
from utils.schedules import SCHEDULERS
from utils.start_table import PartStart

__all__ = [
    "REGISTRIES",
    "Run",
    "adopt_architecture",
    "build",
    "build_module",
    "build_network",
    "build_source",
    "build_task",
    "check",
    "check_resume",
    "flat",
    "load_trained",
    "spec_from_record",
    "spec_record",
]

ABSENT = "none"
"""Name in a quantizer's node that says there is none."""

REGISTRIES: dict[str, Registry[Any]] = {
    "encoder": ENCODERS,
    "model": BACKBONES,
    "decoder": DECODERS,
    "quantizer": QUANTIZERS,
    "loss": LOSSES,
    "task": TASKS,
    "dataset": SOURCES,
    "optimizer": OPTIMIZERS,
    "scheduler": SCHEDULERS,
}

for _room in (
    "models.encoders",
    "models.backbones",
    "models.decoders",
    "models.quantizers",
    "dataloaders.sources",
    "tasks.losses",
    "tasks",
):
    import_parts(_room)


@dataclass(frozen=True)
class Run:
    """Everything built for a run."""

    module: WaveModule
    data: WaveData
    starts: list[PartStart]
    """Where each part's weights come from, and whether they move."""
    freezing: Freezing
    """Holds frozen parts; a callback of the trainer."""


def check(config: Mapping[str, Any]) -> None:
    """Walk the whole config, before data or GPU is touched.

    Raises:
        ConfigError: every mistake at once: unknown names and settings, types, ranges, parts that do not go together.
    """
    wrong = root_mistakes(config)
    for section, registry in REGISTRIES.items():
        if section in config and not _absent(section, config[section]):
            wrong += registry.mistakes(config[section])
    if not wrong:
        wrong = _mismatches(config)
    if wrong:
        raise ConfigError(wrong)


def _absent(section: str, node: Any) -> bool:
    return section == "quantizer" and isinstance(node, Mapping) and node.get("_name_") == ABSENT and len(node) == 1


def _mismatches(config: Mapping[str, Any]) -> list[str]:
    """Sound parts that do not go together, and loss names a task lists."""
    task_name, loss_name = str(config["task"]["_name_"]), str(config["loss"]["_name_"])
    task = TASKS.part(task_name)
    wrong = []
    if LOSSES.part(loss_name).scores != task.scores:
        wrong.append(f"task '{task_name}' takes no loss '{loss_name}'. It takes: {', '.join(_losses_for(task))}")
    settings = TASKS.settings(config["task"])
    for name in [*([settings.loss_val] if settings.loss_val else []), *settings.metrics]:
        if name not in _losses_for(task):
            wrong.append(f"task '{task_name}' takes no metric '{name}'. It takes: {', '.join(_losses_for(task))}")
        elif LOSSES.part(name).per_channel > LOSSES.part(loss_name).per_channel:
            wrong.append(f"metric '{name}' reads predictions that loss '{loss_name}' does not train. Set loss={name}")
    given = not _absent("quantizer", config["quantizer"])
    takes = task.takes_quantizer(settings)
    if given != takes:
        wanted = f"quantizer={'|'.join(QUANTIZERS.names)}" if takes else f"quantizer={ABSENT}"
        wrong.append(f"task '{task_name}' uses {'a' if takes else 'no'} quantizer. Set {wanted}")
    decoder = str(config["decoder"]["_name_"])
    if (DECODERS.part(decoder) is DECODERS.part(ABSENT)) == task.uses_decoder:
        others = "|".join(name for name in DECODERS.names if name != ABSENT)
        wanted = f"decoder={others}" if task.uses_decoder else f"decoder={ABSENT} (an unused decoder would make DDP fail)"
        wrong.append(f"task '{task_name}' uses {'a' if task.uses_decoder else 'no'} decoder. Set {wanted}")
    elif task.uses_decoder and DECODERS.part(decoder).per_trace != (task.scores is Scores.classes):
        per_trace = task.scores is Scores.classes
        others = "|".join(name for name in DECODERS.names if name != ABSENT and DECODERS.part(name).per_trace == per_trace)
        one = "trace" if per_trace else "sample"
        wrong.append(f"task '{task_name}' scores one prediction a {one}, decoder '{decoder}' gives another. Set decoder={others}")
    every = config["trainer"]["val_check_interval"]
    if config["scheduler"]["_name_"] == "plateau" and every != 1.0:
        wrong.append(
            f"scheduler 'plateau' steps with the epoch, after its validation: trainer.val_check_interval = {every!r}: must be 1.0"
        )
    return wrong + init_mistakes(config)


def _losses_for(task: type[Task]) -> list[str]:
    return [name for name in LOSSES.names if LOSSES.part(name).scores == task.scores]


def build_network(config: Mapping[str, Any], spec: DataSpec) -> Network:
    """The network of a checked config for data of this kind; widths and strides are wired here and nowhere else.

    Raises:
        ConfigError: parts whose widths cannot meet.
    """
    task = TASKS.part(str(config["task"]["_name_"]))
    backbone = BACKBONES.build(config["model"])
    encoder = ENCODERS.build(config["encoder"], d_in=spec.channels, d_out=backbone.d_in)
    # An exported picker has no loss; losses of picks read one number a class.
    numbers = LOSSES.part(str(config["loss"]["_name_"])).per_channel if "loss" in config else 1
    d_out = task.width_out(spec) * numbers
    decoder = DECODERS.build(config["decoder"], d_in=backbone.d_out, d_out=d_out, stride=encoder.stride, d_wave=spec.channels)
    return Network(encoder, backbone, decoder)


def build_task(config: Mapping[str, Any], spec: DataSpec, network: Network) -> Task:
    """The objective of a checked config.

    Raises:
        ConfigError: the data carry other labels than the task needs, or the network sees the future where it must not.
    """
    name = str(config["task"]["_name_"])
    cls = TASKS.part(name)
    if cls.needs not in (Target.none, spec.target):
        raise ConfigError(
            [f"task '{name}' needs labels '{cls.needs.value}'; dataset '{config['dataset']['_name_']}' has '{spec.target.value}'"]
        )
    if cls.needs_causal and not network.causal:
        parts = {"encoder": network.encoder, "model": network.backbone, "decoder": network.decoder}
        seers = [f"{section} '{config[section]['_name_']}'" for section, part in parts.items() if not part.causal]
        raise ConfigError(
            [
                f"task '{name}' predicts the next sample, so no part may see later ones: {', '.join(seers)} does. "
                "Use encoder=linear, decoder=linear and model=xlstm-unet with use_unet=false and bidirectional=false, "
                "or a causal lstm or transformer"
            ]
        )
    quantizer: Quantizer | None = None
    settings = TASKS.settings(config["task"])
    if cls.takes_quantizer(settings):
        quantizer = QUANTIZERS.build(config["quantizer"], d_in=network.encoder.d_features)
    parts = Parts(
        spec=spec,
        network=network,
        loss=LOSSES.build(config["loss"]),
        loss_val=_loss(settings.loss_val, config),
        metrics={metric: _loss(metric, config) for metric in settings.metrics},
        quantizer=quantizer,
    )
    return cls(settings, parts)  # type: ignore[call-arg]


def _loss(name: str | None, config: Mapping[str, Any]) -> Loss:
    """A loss by name with its default settings; the run's own loss where that is named, or none is."""
    own = config["loss"]["_name_"]
    return LOSSES.build(config["loss"] if name in (None, own) else {"_name_": name})


def build_source(config: Mapping[str, Any]) -> Source:
    """Open the dataset of a checked config. Raises DataError with file, column and remedy where it cannot be used."""
    return SOURCES.build(config["dataset"], seed=config["seed"])


def build_module(config: Mapping[str, Any], spec: DataSpec) -> WaveModule:
    """The LightningModule of a checked config for data of this kind, with fresh weights."""
    network = build_network(config, spec)
    task = build_task(config, spec, network)
    prepare = SOURCES.settings(config["dataset"])
    return WaveModule(network, task, config=config, spec=spec_record(spec), prepare_cfg=prepare)


def build(config: Mapping[str, Any], *, resumes: bool = False) -> Run:
    """Everything for a run, weights loaded and parts frozen as ``model.checkpoint_path`` and ``init`` ask for it.

    A run that ``resumes`` gets its weights later, from its own checkpoint.

    Raises:
        WaveError: whatever is wrong with config, data or checkpoint, before training.
    """
    check(config)
    BACKBONES.settings(config["model"]).settle(*computes_on(config))
    data = WaveData(build_source(config), typed(LoaderConfig, config["loader"]), seed=config["seed"])
    module = build_module(config, data.spec)
    starts, freezing = start(module, config, resumes=resumes)
    return Run(module, data, starts, freezing)


def spec_record(spec: DataSpec) -> dict[str, Any]:
    """A DataSpec as plain builtins."""
    return {**dataclasses.asdict(spec), "target": spec.target.value, "classes": list(spec.classes)}


def spec_from_record(values: Mapping[str, Any]) -> DataSpec:
    """The DataSpec of a checkpoint."""
    return DataSpec(**{**values, "target": Target(values["target"]), "classes": tuple(values["classes"])})


def load_trained(path: str) -> WaveModule:
    """The trained module of a checkpoint, in evaluation mode, on the CPU. No other file is needed.

    Kernels are those of this machine (``model.kernels=auto``), whatever the run had: they change speed, not numbers.

    Raises:
        CheckpointError: see :func:`utils.checkpoint.read`.
    """
    saved = checkpoint.read(path)
    model = saved.config["model"]
    config = {**saved.config, "model": {**model, "kernels": "auto"} if "kernels" in model else model}
    module = build_module(config, spec_from_record(saved.data_spec))
    checkpoint.load_part(module, saved.state_dict, what=f"checkpoint {saved.path}")
    module.lineage = saved.lineage
    return module.eval()
