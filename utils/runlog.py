"""A run a person can follow: its trainer, its folder, what is said before and after.

The run folder, ``runs/<experiment_name>/<run_id>``::

    config.yaml      the resolved config
    metrics.csv      every curve; TensorBoard's copy in tensorboard/
    starts.csv       where each part's weights come from, and whether they move
    checkpoints/     the best by the task's validation metric, last.ckpt and its predecessor last-1.ckpt, their mean where asked
                     for; each with its SHA-256 beside it
    non_finite.csv   only where the loss was not finite: the traces of those batches
    pictures/        examples, renewed after validations, and curves.png
"""

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.strategies import DDPStrategy, Strategy

from utils import checkpoint, slurm
from utils.agreement import SameWeights
from utils.checkpoint_io import WholeCheckpoints
from utils.curves import Curves
from utils.errors import ConfigError
from utils.guarding import GuardConfig
from utils.guards import NonFinite
from utils.keep import CHECKPOINTS, LastCheckpoint, Record, best
from utils.loggers import loggers
from utils.pace import Throughput
from utils.planning import run_length
from utils.preemption import Guard, Stopped, leave
from utils.progress import RunProgress
from utils.registry import typed
from utils.report import farewell, greet
from utils.resume import EpochEnds, GeneratorStates, Owed
from utils.room import Room

__all__ = [
    "compile_step",
    "computes_on",
    "farewell",
    "folder",
    "going_on",
    "greet",
    "interrupted",
    "resumable",
    "stop",
    "trainer",
]

RUNS = Path("runs")

SILENCED = (
    r".*does not have many workers.*",  # how many are best was measured, and is in the config
    r".*The number of training batches .* is smaller than the logging interval.*",  # a short run, told by the bar
    r"Checkpoint directory .* exists and is not empty.*",  # a resumed run's own folder
    r".*GPU available but not used.*",  # the greeting names the device
    r"The `srun` command is available.*",  # a login node, or a machine where SLURM is merely installed
    r".*isinstance\(treespec, LeafSpec\).*",  # torch to Lightning, not to us
)
"""Warnings of Lightning that tell a user of this project nothing."""
SILENT_NOTES = (
    "GPU available",
    "You are using a CUDA device",
    "LOCAL_RANK:",
    "TPU available",
    "💡 Tip",
    "`Trainer.fit` stopped",
    "`Trainer(",
    "\nDetected KeyboardInterrupt",
    "Loading `train_dataloader`",
    "`weights_only` was not set",
)
"""Beginnings of Lightning's notes that the greeting and the farewell say better."""

NOTING = (
    "pytorch_lightning.utilities.rank_zero",
    "lightning_fabric.utilities.rank_zero",
    "pytorch_lightning.trainer.connectors.checkpoint_connector",
)
"""Lightning's loggers that write them."""


def folder(config: Mapping[str, Any]) -> Path:
    """The run folder of a config."""
    return RUNS / config["experiment_name"] / str(config["run_id"])


def resumable(path: str | None) -> str | None:
    """The checkpoint file to resume from; None starts anew.

    Args:
        path: a checkpoint, or a folder: its newest.

    Raises:
        CheckpointError: there is none.
    """
    return str(checkpoint.find(path)) if path else None


def going_on(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a run that SLURM may have started before: it resumes from the newest checkpoint in its own folder, if any.

    That checkpoint wins over ``train.ckpt_path``, from which the first turn started. Only with ``guard.requeue``, or in a job
    that SLURM says it has restarted: elsewhere a folder that exists is nobody's wish to go on.
    """
    place = folder(config) / CHECKPOINTS
    if not (guarding(config).requeue or slurm.restarts()) or not any(place.glob("*.ckpt")):
        return dict(config)
    return {**config, "train": {**config["train"], "ckpt_path": str(place)}}


def guarding(config: Mapping[str, Any]) -> GuardConfig:
    """Section ``guard``, typed; its defaults where a config has none."""
    return typed(GuardConfig, config.get("guard", {}))


def stop(config: Mapping[str, Any], module: Any, trainer: pl.Trainer, stopped: Stopped) -> NoReturn:
    """End a run that was asked to: say where it is, ask for another turn where that is wanted, exit (:func:`leave`)."""
    farewell(config, module, trainer)
    leave(stopped, guarding(config), leads=trainer.is_global_zero)


def interrupted(error: SystemExit) -> bool:
    """Whether ``fit`` was left at once through a second Ctrl-C, which Lightning turns into ``SystemExit``."""
    return isinstance(error.__context__, KeyboardInterrupt)


def computes_on(config: Mapping[str, Any]) -> tuple[str, str]:
    """Device of a run, ``cpu`` or ``cuda``, and dtype of its matrix products: ``float32``, ``bfloat16`` or ``float16``.

    Raises:
        ConfigError: the device is not on this machine.
    """
    accelerator = _accelerator(config["trainer"]["accelerator"])
    precision = str(_precision(config["trainer"]["precision"], accelerator))
    return accelerator, {"bf16-mixed": "bfloat16", "16-mixed": "float16"}.get(precision, "float32")


WORTH = 2000
"""Batches from which compiling pays for the minutes it takes. On a CPU it never does: there it gains little."""


def compile_step(config: Mapping[str, Any], module: Any, windows: int, trainer: pl.Trainer) -> None:
    """Compile a module's training step where ``trainer.compile`` says so, on a CUDA device with CUDA graphs.

    ``auto`` does so for long runs on such a device, of networks that were seen to become one graph. No CUDA graphs where
    gradients accumulate: a replay overwrites those of the batch before, and nothing says so (pytorch/pytorch#96693, #169545).

    Args:
        config: the run's config, plain builtins.
        module: with ``compile_step``.
        windows: of an epoch, all ranks together.
        trainer: of the run.
    """
    settings, cuda = config["trainer"], _accelerator(config["trainer"]["accelerator"]) == "cuda"
    asked = settings["compile"]
    if asked == "auto":
        steps, _ = run_length(settings, windows, config["loader"]["batch_size"] * trainer.world_size)
        long = not settings["fast_dev_run"] and steps * settings["accumulate_grad_batches"] >= WORTH
        asked = "auto" if cuda and long and module.network.backbone.one_graph else False
    if asked:
        module.compile_step(graphs=cuda and settings["accumulate_grad_batches"] == 1, must=asked != "auto")


def trainer(config: Mapping[str, Any], module: Any, callbacks: Sequence[pl.Callback] = ()) -> pl.Trainer:
    """The Trainer of a run.

    Args:
        config: the whole config, checked, plain builtins.
        module: the LightningModule, whose ``task.monitor`` chooses checkpoints.
        callbacks: further callbacks, before ours.

    Raises:
        ConfigError: devices that this machine does not have, a logger that is not installed.
    """
    _quieten()
    settings = config["trainer"]
    place = folder(config)
    accelerator = _accelerator(settings["accelerator"])
    writes = not settings["fast_dev_run"]
    every = settings["val_check_interval"]
    try:
        return pl.Trainer(
            accelerator=accelerator,
            devices=settings["devices"],
            num_nodes=settings["num_nodes"],
            strategy=_strategy(settings, accelerator),
            precision=_precision(settings["precision"], accelerator),
            max_epochs=settings["max_epochs"],
            max_steps=settings["max_steps"],
            gradient_clip_val=settings["gradient_clip_val"],
            accumulate_grad_batches=settings["accumulate_grad_batches"],
            val_check_interval=every,
            # a number of batches counts through epochs, a share is of one
            check_val_every_n_epoch=None if isinstance(every, int) else 1,
            limit_train_batches=settings["limit_train_batches"],
            limit_val_batches=settings["limit_val_batches"],
            num_sanity_val_steps=settings["num_sanity_val_steps"],
            log_every_n_steps=settings["log_every_n_steps"],
            fast_dev_run=settings["fast_dev_run"],
            deterministic=settings["deterministic"],
            use_distributed_sampler=False,  # our loaders split batches over ranks themselves
            default_root_dir=place,
            logger=loggers(config, place) if writes else False,
            callbacks=_callbacks(config, module, place, callbacks),
            plugins=[WholeCheckpoints(), *_environment(settings)],
            enable_progress_bar=False,  # ours is a callback
            enable_model_summary=False,  # the greeting has it
            enable_checkpointing=writes,
        )
    except MisconfigurationException as error:
        raise ConfigError([f"trainer: {error}"]) from error


def _callbacks(config: Mapping[str, Any], module: Any, place: Path, more: Sequence[pl.Callback]) -> list[pl.Callback]:
    """In the order in which they must run; Lightning moves those that save behind the others."""
    throughput = Throughput()
    every = config["checkpoint"]["every_n_train_steps"]
    last, watch = LastCheckpoint(place, every), NonFinite(place, guarding(config).nonfinite_steps, every)
    writes = not config["trainer"]["fast_dev_run"]
    monitor = module.task.monitor
    found: list[pl.Callback] = [GeneratorStates(), EpochEnds(), Owed(), throughput]
    if config["trainer"]["enable_progress_bar"]:
        found.append(RunProgress(throughput, monitor[0]))
    found += more
    if writes:
        kept = config["checkpoint"]["save_top_k"] + config["checkpoint"]["average"]
        found += [Room(place, kept), watch, SameWeights(guarding(config).compare_ranks_every), Record(config, place)]
        found += [best(place, monitor, config["checkpoint"]["save_top_k"]), last]
        found += [Curves(place)] if config["pictures"]["enabled"] else []

        def save(trainer: pl.Trainer) -> None:
            watch.look(trainer, saves=True)
            last.save(trainer, again=True)

        found.append(Guard(save))
    return found


def _environment(settings: Mapping[str, Any]) -> list[ClusterEnvironment]:
    """Which processes are ranks: SLURM's tasks, or those that Lightning starts. Nothing within SLURM leaves that to Lightning.

    Lightning's own requeueing, which saves within a signal handler, hangs with several ranks.
    """
    slurm.demand_tasks(settings)
    try:
        if slurm.tasked():
            return [SLURMEnvironment(auto_requeue=False)]
    except RuntimeError as error:
        raise ConfigError([f"SLURM: {error}"]) from error
    return [LightningEnvironment()] if slurm.allocated() else []


def _accelerator(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name in ("gpu", "cuda") and not torch.cuda.is_available():
        raise ConfigError([f"trainer.accelerator = '{name}': torch finds no CUDA device here. Use cpu or auto"])
    return "cuda" if name == "gpu" else name


def _precision(name: str, accelerator: str) -> Any:
    if name == "auto":
        return "bf16-mixed" if accelerator == "cuda" else "32-true"
    return name


def _strategy(settings: Mapping[str, Any], accelerator: str) -> str | Strategy:
    """DDP where there are several devices, unless named."""
    devices = settings["devices"]
    if settings["strategy"] not in ("auto", "ddp"):
        return str(settings["strategy"])
    if devices == "auto":
        devices = torch.cuda.device_count() if accelerator == "cuda" else 1
    several = (len(devices) if isinstance(devices, list) else int(devices)) > 1 or settings["num_nodes"] > 1
    if several or settings["strategy"] == "ddp":
        return DDPStrategy(gradient_as_bucket_view=True)
    return "auto"


def _quieten() -> None:
    for text in SILENCED:
        warnings.filterwarnings("ignore", message=text)
    for name in NOTING:
        logger = logging.getLogger(name)
        if _tells not in logger.filters:
            logger.addFilter(_tells)


def _tells(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(SILENT_NOTES)
