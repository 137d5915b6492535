"""The typed root of a run's configuration, and the small tools around Hydra.

Parts (encoder, model, task, …) are typed by their registries; this file types the rest. Values come from ``configs/``;
the defaults here are what a section means where a YAML leaves it out.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from utils.errors import demand, did_you_mean
from utils.guarding import GuardConfig
from utils.initial import InitConfig
from utils.planning import PlanConfig
from utils.registry import mistakes_in

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
PARTS = ("encoder", "model", "decoder", "quantizer", "loss", "task", "dataset", "optimizer", "scheduler")
"""Sections whose settings a registry types, by the name in ``_name_``."""


@dataclass(kw_only=True)
class TrainConfig:
    """What this command does with a run."""

    ckpt_path: str | None = None
    """Resume exactly where this checkpoint (a file, or a run folder: its newest) stopped; null starts a new run."""


@dataclass(kw_only=True)
class LoaderConfig:
    """How batches are formed."""

    batch_size: int = 64
    """Windows a device and step."""
    num_workers: int = 2
    """Processes that read and crop; 0 reads in the training process."""
    prefetch_factor: int = 4
    """Batches each worker keeps ready."""
    pin_memory: bool = True
    """Stage batches in page-locked memory (used only with a GPU)."""
    stalled_s: int = 480
    """Stop where no batch came for so many seconds, and name what the workers were reading; warn after half. 0 waits for ever."""

    def __post_init__(self) -> None:
        """State the ranges."""
        demand(
            (self.batch_size >= 1, f"batch_size = {self.batch_size}: must be at least 1"),
            (self.num_workers >= 0, f"num_workers = {self.num_workers}: must be 0 or more"),
            (self.prefetch_factor >= 1, f"prefetch_factor = {self.prefetch_factor}: must be at least 1"),
            (self.stalled_s >= 0, f"stalled_s = {self.stalled_s}: must be 0 or more"),
        )


PRECISIONS = ("auto", "32-true", "bf16-mixed", "16-mixed")
STRATEGIES = ("auto", "ddp")


@dataclass(kw_only=True)
class TrainerConfig:
    """Lightning's Trainer, the settings a seismologist changes; names and meanings are Lightning's."""

    accelerator: str = "auto"
    """cpu, gpu or auto."""
    devices: Any = 1
    """How many devices (an integer), which ones (a list), or auto."""
    num_nodes: int = 1
    """Machines."""
    strategy: str = "auto"
    """auto is one process, or DDP where there are several devices."""
    precision: str = "auto"
    """auto is bf16-mixed on a GPU and 32-true on a CPU."""
    max_epochs: int = 10
    """Passes over the training split; −1 leaves it to max_steps. Given both, the first to be reached ends the run."""
    max_steps: int = -1
    """Optimizer steps; −1 leaves it to max_epochs."""
    gradient_clip_val: float | None = 1.0
    """Largest gradient norm; null does not clip."""
    compile: Any = "auto"
    """true makes one compiled graph of a training step (two minutes before the first), on a GPU replayed as CUDA graphs; false
    does not; auto does on a GPU, for runs of 2,000 batches and more of xLSTM networks without sLSTM, if the compiler can."""
    accumulate_grad_batches: int = 1
    """Batches a step."""
    val_check_interval: Any = 1.0
    """Validate after this share of an epoch (a float), or after this many batches (an integer)."""
    limit_train_batches: Any = 1.0
    """Share (a float) or number (an integer) of training batches an epoch."""
    limit_val_batches: Any = 1.0
    """Share (a float) or number (an integer) of validation batches."""
    num_sanity_val_steps: int = 2
    """Validation batches before training, so that a fault there shows at once."""
    log_every_n_steps: int = 10
    """Steps between two rows of the metrics."""
    fast_dev_run: bool = False
    """One training and one validation batch, nothing written: does it run at all?"""
    deterministic: bool = False
    """Refuse operations that are not bitwise reproducible."""
    enable_progress_bar: bool = True
    """Show the progress bar."""

    def __post_init__(self) -> None:
        """State the ranges."""
        known = ", ".join(PRECISIONS)
        demand(
            (self.accelerator in ("auto", "cpu", "gpu", "cuda"), f"accelerator = '{self.accelerator}': must be auto, cpu or gpu"),
            (self.precision in PRECISIONS, f"precision = '{self.precision}': must be one of {known}"),
            (_device_count(self.devices), f"devices = {self.devices!r}: must be a positive integer, a list of integers or auto"),
            (self.num_nodes >= 1, f"num_nodes = {self.num_nodes}: must be at least 1"),
            (self.compile in (True, False, "auto"), f"compile = {self.compile!r}: must be true, false or auto"),
            (
                self.max_epochs >= 1 or (self.max_epochs == -1 and self.max_steps >= 1),
                f"max_epochs = {self.max_epochs}: must be at least 1, or -1 where max_steps is given",
            ),
            (self.strategy in STRATEGIES, f"strategy = '{self.strategy}': must be one of {', '.join(STRATEGIES)}"),
            (self.max_steps == -1 or self.max_steps >= 1, f"max_steps = {self.max_steps}: must be at least 1, or -1"),
            (
                self.gradient_clip_val is None or self.gradient_clip_val > 0,
                f"gradient_clip_val = {self.gradient_clip_val}: must be positive, or null",
            ),
            (
                self.accumulate_grad_batches <= 1 or _whole_steps(self.val_check_interval, self.accumulate_grad_batches),
                f"val_check_interval = {self.val_check_interval!r}: must be 1.0, or a number of batches that "
                f"accumulate_grad_batches = {self.accumulate_grad_batches} divides: "
                "a checkpoint within a step could not be resumed exactly",
            ),
            (self.accumulate_grad_batches >= 1, f"accumulate_grad_batches = {self.accumulate_grad_batches}: must be at least 1"),
            (self.log_every_n_steps >= 1, f"log_every_n_steps = {self.log_every_n_steps}: must be at least 1"),
            *(
                (
                    _share_or_count(getattr(self, name)),
                    f"{name} = {getattr(self, name)!r}: must be a share in 0…1 or a positive integer",
                )
                for name in ("val_check_interval", "limit_train_batches", "limit_val_batches")
            ),
        )


def _device_count(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(isinstance(item, int) and not isinstance(item, bool) for item in value)
    return value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and value >= 1)


def _whole_steps(interval: Any, accumulated: int) -> bool:
    return interval % accumulated == 0 if isinstance(interval, int) else interval == 1.0


def _share_or_count(value: Any) -> bool:
    if isinstance(value, bool):
        return False
    return (isinstance(value, int) and value >= 1) or (isinstance(value, float) and 0 < value <= 1)


@dataclass(kw_only=True)
class LoggerConfig:
    """Where curves go besides ``metrics.csv``, which is always written."""

    tensorboard: bool = True
    """Write TensorBoard events into the run folder."""
    wandb: bool = False
    """Log to Weights & Biases; without a key, offline, to be synchronised later."""
    project: str = "wavexlstm"
    """Project on Weights & Biases."""


@dataclass(kw_only=True)
class CheckpointConfig:
    """Which checkpoints a run keeps."""

    save_top_k: int = 3
    """How many of the best, by the task's validation metric."""
    every_n_train_steps: int | None = None
    """Renew last.ckpt after this many steps; null does so after every validation and epoch."""
    average: bool = False
    """At the end, write the mean of the best checkpoints to average.ckpt and validate it."""

    def __post_init__(self) -> None:
        """State the ranges."""
        demand(
            (self.save_top_k >= 0, f"save_top_k = {self.save_top_k}: must be 0 or more"),
            (not self.average or self.save_top_k >= 2, f"average = true: needs save_top_k of 2 or more, not {self.save_top_k}"),
            (
                self.every_n_train_steps is None or self.every_n_train_steps >= 1,
                f"every_n_train_steps = {self.every_n_train_steps}: must be at least 1, or null",
            ),
        )


@dataclass(kw_only=True)
class PicturesConfig:
    """Pictures drawn during a run."""

    enabled: bool = True
    """Draw examples after validations and curves at the end."""
    traces: int = 8
    """Validation traces the examples are drawn from."""

    def __post_init__(self) -> None:
        """State the ranges."""
        demand((self.traces >= 1, f"traces = {self.traces}: must be at least 1"))


@dataclass(kw_only=True)
class RunConfig:
    """A whole run: the sections below, and one node a part (see :data:`PARTS`)."""

    experiment_name: str
    """Name of the experiment, as typed: contrastive/small."""
    run_id: str
    """Name of this run; with experiment_name it names the run folder."""
    seed: int
    """Seed of weights, crops, masks, negatives and order, 0 … 2³² − 1."""
    eval_mask_seed: int = 20250
    """Seed of validation masks and negatives, 0 … 2³² − 1: the same in every run, so that runs compare."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """What this command does."""
    loader: LoaderConfig = field(default_factory=LoaderConfig)
    """How batches are formed."""
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    """How training runs."""
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    """Where curves go."""
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    """Which checkpoints are kept."""
    pictures: PicturesConfig = field(default_factory=PicturesConfig)
    """Which pictures are drawn."""
    guard: GuardConfig = field(default_factory=GuardConfig)
    """When a run must stop, and whether it goes on by itself."""
    init: InitConfig = field(default_factory=InitConfig)
    """Where weights start, and what may move."""
    plan: PlanConfig = field(default_factory=PlanConfig)
    """Size the run instead of starting it."""

    def __post_init__(self) -> None:
        """State the ranges."""
        demand(
            *(
                (0 <= value < 2**32, f"{name} = {value}: must be 0 … {2**32 - 1}")
                for name, value in (("seed", self.seed), ("eval_mask_seed", self.eval_mask_seed))
            )
        )


SECTIONS: dict[str, type] = {
    "train": TrainConfig,
    "loader": LoaderConfig,
    "trainer": TrainerConfig,
    "logger": LoggerConfig,
    "checkpoint": CheckpointConfig,
    "pictures": PicturesConfig,
    "guard": GuardConfig,
    "init": InitConfig,
    "plan": PlanConfig,
}


def root_mistakes(config: Mapping[str, Any]) -> list[str]:
    """Unknown or missing sections, and everything wrong inside the sections this file types."""
    fields = [item.name for item in dataclasses.fields(RunConfig)]
    known = [*fields, *PARTS]
    wrong = [
        f"config has no section or setting '{key}'.{did_you_mean(key, known)} It takes: {', '.join(known)}"
        for key in config
        if key not in known
    ]
    wrong += [f"config: '{part}' must be given" for part in PARTS if part not in config]
    for name, schema in SECTIONS.items():
        node = config.get(name, {})
        wrong += (
            mistakes_in(schema, node, where=name) if isinstance(node, Mapping) else [f"{name}: needs a mapping, got {node!r}"]
        )
    scalars = {key: value for key, value in config.items() if key in fields and key not in SECTIONS}
    return wrong + mistakes_in(RunConfig, scalars, where="config")


def plain(config: Any) -> dict[str, Any]:
    """A composed config as plain builtins with every interpolation resolved.

    Raises:
        omegaconf.errors.OmegaConfBaseException: an interpolation that leads nowhere.
    """
    values = OmegaConf.to_container(config, resolve=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}
