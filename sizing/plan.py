"""A run in numbers before it starts: its step, its length, its hours on some devices, what it reads and what it leaves."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dataloaders.contracts import SOURCES, Outlook
from sizing.measure import StepSize, measure, scans
from utils.planning import PlanConfig, run_length
from utils.registry import typed

KEPT_BESIDE = 3
"""Checkpoints beside the best ones: last.ckpt, the one before it, and one that is being written."""
STORED_BYTES, PACKED_BYTES = 4, 2
"""Bytes of a stored sample and component: float32 as in most SeisBench sets, float16 in packed ones."""
COMPONENTS = 3
"""Components that are read, also where the network sees one of them."""


@dataclass(frozen=True)
class Length:
    """The run on a number of devices, ``loader.batch_size`` windows on each.

    Attributes:
        devices: how many.
        steps: of the optimizer; None where the number of traces is not known.
        windows: that the run takes in all.
        hours: at the rate given, each device as fast as one alone; None without a rate.
    """

    devices: int
    steps: int | None
    windows: int | None
    hours: float | None


@dataclass(frozen=True)
class Plan:
    """What a run would need.

    Attributes:
        name: of the experiment.
        precision: that its memory and products are counted for.
        batch: windows a device.
        outlook: of the data.
        traces: of the training split; None where not known.
        origin: where that number is from.
        step: sizes of a training step of one device.
        scaled: whether they were measured on shorter windows.
        rate: windows a second and device; None where not given.
        lengths: of the run, by number of devices.
        own: devices that the run itself asks for.
        checkpoint: bytes of a checkpoint.
        checkpoints: how many of them lie on the disk, at most.
    """

    name: str
    precision: str
    batch: int
    outlook: Outlook
    traces: int | None
    origin: str
    step: StepSize
    scaled: bool
    rate: float | None
    lengths: tuple[Length, ...]
    own: int
    checkpoint: int
    checkpoints: int

    def reading(self, bytes_each: int) -> int:
        """Bytes of a window on the disk.

        Args:
            bytes_each: of a sample and component.
        """
        return self.outlook.spec.samples * COMPONENTS * bytes_each


def plan(config: Mapping[str, Any]) -> Plan:
    """Size a checked config. Touches no data, writes nothing.

    Args:
        config: plain builtins, the architecture of its checkpoint adopted.
    """
    settings: PlanConfig = typed(PlanConfig, config.get("plan", {}))
    node = config["dataset"]
    outlook = SOURCES.part(str(node["_name_"])).outlook(SOURCES.settings(node))
    traces, origin = (settings.traces, "plan.traces") if settings.traces else (outlook.traces, outlook.origin)
    precision = precision_of(config["trainer"])
    step = measure(config, outlook.spec, precision=precision)
    own = devices_of(config["trainer"])
    return Plan(
        name=config["experiment_name"],
        precision=precision,
        batch=config["loader"]["batch_size"],
        outlook=outlook,
        traces=traces,
        origin=origin,
        step=step,
        scaled=scans(config),
        rate=settings.rate,
        lengths=tuple(length(config, traces, settings.rate, count) for count in sorted({own, *settings.devices})),
        own=own,
        checkpoint=step.weights + step.optimizer,
        checkpoints=config["checkpoint"]["save_top_k"] + KEPT_BESIDE,
    )


def precision_of(trainer: Mapping[str, Any]) -> str:
    """Precision to plan for; ``auto`` is that of a GPU unless the run asks for a CPU."""
    asked = str(trainer["precision"])
    if asked != "auto":
        return asked
    return "32-true" if trainer["accelerator"] == "cpu" else "bf16-mixed"


def devices_of(trainer: Mapping[str, Any]) -> int:
    """Devices that a run asks for on all its machines; ``auto`` counts as one each, since those of this machine say nothing."""
    asked = trainer["devices"]
    each = len(asked) if isinstance(asked, list) else 1 if asked == "auto" else int(asked)
    return each * int(trainer["num_nodes"])


def length(config: Mapping[str, Any], traces: int | None, rate: float | None, devices: int) -> Length:
    """Steps, windows and hours on ``devices`` devices.

    Args:
        config: plain builtins.
        traces: of the training split; None: not known, so that only ``trainer.max_steps`` bounds the run.
        rate: windows a second and device, or None.
        devices: how many.
    """
    trainer, batch = config["trainer"], config["loader"]["batch_size"] * devices
    if traces is not None:
        steps = run_length(trainer, traces, batch)[0]
    elif trainer["max_epochs"] == -1:
        steps = trainer["max_steps"]
    else:
        return Length(devices, None, None, None)
    windows = steps * trainer["accumulate_grad_batches"] * batch
    return Length(devices, steps, windows, None if rate is None else windows / (rate * devices) / 3600)
