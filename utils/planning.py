"""The section ``plan``, which sizes a run without starting it, and how long a run is."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from utils.errors import demand


@dataclass(kw_only=True)
class PlanConfig:
    """Size a run instead of training: ``plan=true``."""

    enabled: bool = False
    """Print what the run would need and end; ``plan=true`` on the command line means this. No data are touched, nothing is
    written."""
    rate: float | None = None
    """Windows a second and device that were measured for this run; null gives hours as a function of it."""
    traces: int | None = None
    """Traces of the training split; null takes what the settings say, or published sizes of the sets."""
    devices: list[int] = field(default_factory=lambda: [1, 2, 4, 8])
    """Numbers of devices to plan for, beside the run's own."""

    def __post_init__(self) -> None:
        """State the ranges."""
        demand(
            (self.rate is None or self.rate > 0, f"rate = {self.rate}: must be positive, or null"),
            (self.traces is None or self.traces >= 1, f"traces = {self.traces}: must be at least 1, or null"),
            (all(count >= 1 for count in self.devices), f"devices = {self.devices}: each must be at least 1"),
        )


def run_length(trainer: Mapping[str, Any], windows: int, batch: int) -> tuple[int, int]:
    """How many optimizer steps a run takes.

    Args:
        trainer: the section ``trainer``.
        windows: of an epoch.
        batch: windows that all devices take at once.

    Returns:
        (steps of the run, steps of an epoch); 0 where no batch fits.
    """
    batches, limit = windows // batch, trainer["limit_train_batches"]
    batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    epoch = math.ceil(batches / trainer["accumulate_grad_batches"])
    bounds = [trainer["max_steps"], epoch * trainer["max_epochs"]]
    return min((bound for bound in bounds if bound > 0), default=0), epoch
