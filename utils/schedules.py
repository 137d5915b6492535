"""Learning-rate schedules by name. A schedule's factor multiplies the optimizer's own learning rate."""

import math
from dataclasses import dataclass
from typing import final

import torch
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from utils.errors import demand
from utils.registry import Registry

SCHEDULERS: Registry[LRScheduler] = Registry("scheduler")
"""Parts are constructed as ``cls(settings, optimizer=…, total=…, mode=…)``: total is the number of optimizer steps of the run,
mode says whether the monitored metric is to fall (``"min"``) or rise (``"max"``)."""


@dataclass(kw_only=True)
class WarmupConfig:
    """Warm-up, then decay over the run."""

    warmup_steps: int | None = None
    """Length of the linear warm-up in optimizer steps; give this or warmup_fraction."""
    warmup_fraction: float | None = None
    """The same as a share of the run."""
    total_steps: int | None = None
    """Steps until the decay ends; null is the length of the run."""
    final_factor: float = 0.0
    """Learning rate at the end of the decay, as a share of the peak."""

    def __post_init__(self) -> None:
        """State the ranges."""
        steps, share = self.warmup_steps, self.warmup_fraction
        demand(
            (steps is None or share is None, f"warmup_steps = {steps} and warmup_fraction = {share}: give one, not both"),
            (steps is None or steps >= 0, f"warmup_steps = {steps}: must be 0 or more"),
            (share is None or 0 <= share < 1, f"warmup_fraction = {share}: must be in 0 ≤ fraction < 1"),
            (self.total_steps is None or self.total_steps >= 1, f"total_steps = {self.total_steps}: must be at least 1"),
            (
                steps is None or self.total_steps is None or steps < self.total_steps,
                f"warmup_steps = {steps}: must be below total_steps = {self.total_steps}",
            ),
            (0 <= self.final_factor <= 1, f"final_factor = {self.final_factor}: must be in 0…1"),
        )

    def warmup(self, total: int) -> int:
        """Warm-up steps of a run of ``total`` steps."""
        return self.warmup_steps if self.warmup_steps is not None else round((self.warmup_fraction or 0.0) * total)


def warmup_factor(step: int, warmup: int) -> float:
    """Linear from 1/warmup at step 0 to 1 at step warmup − 1."""
    return min(1.0, (step + 1) / warmup) if warmup else 1.0


def cosine_factor(step: int, warmup: int, total: int, final: float) -> float:
    """Warm-up, then half a cosine from 1 to ``final`` at step ``total``; constant after."""
    if step < warmup:
        return warmup_factor(step, warmup)
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))


@SCHEDULERS.register("cosine_warmup", WarmupConfig)
@final
class CosineWarmup(LambdaLR):
    """Linear warm-up, then a half cosine to ``final_factor`` (Loshchilov & Hutter 2017, without restarts)."""

    def __init__(self, cfg: WarmupConfig, *, optimizer: torch.optim.Optimizer, total: int, mode: str) -> None:
        del mode
        end = cfg.total_steps or total
        warmup = cfg.warmup(end)
        super().__init__(optimizer, lambda step: cosine_factor(step, warmup, end, cfg.final_factor))


@SCHEDULERS.register("linear_warmup", WarmupConfig)
@final
class LinearWarmup(LambdaLR):
    """Linear warm-up, then linear decay to ``final_factor``."""

    def __init__(self, cfg: WarmupConfig, *, optimizer: torch.optim.Optimizer, total: int, mode: str) -> None:
        del mode
        end = cfg.total_steps or total
        warmup = cfg.warmup(end)

        def factor(step: int) -> float:
            progress = min(1.0, max(0.0, (step - warmup) / max(1, end - warmup)))
            return warmup_factor(step, warmup) * (1 - (1 - cfg.final_factor) * progress)

        super().__init__(optimizer, factor)


@dataclass(kw_only=True)
class ConstantConfig:
    """Warm-up, then a constant."""

    warmup_steps: int = 0
    """Length of the linear warm-up in optimizer steps."""

    def __post_init__(self) -> None:
        """State the ranges."""
        demand((self.warmup_steps >= 0, f"warmup_steps = {self.warmup_steps}: must be 0 or more"))


@SCHEDULERS.register("constant", ConstantConfig)
@final
class Constant(LambdaLR):
    """The optimizer's learning rate, after an optional linear warm-up."""

    def __init__(self, cfg: ConstantConfig, *, optimizer: torch.optim.Optimizer, total: int, mode: str) -> None:
        del total, mode
        super().__init__(optimizer, lambda step: warmup_factor(step, cfg.warmup_steps))


@dataclass(kw_only=True)
class StepConfig:
    """Multiply at fixed shares of the run."""

    milestones: list[float]
    """Shares of the run after which the learning rate is multiplied, ascending, e.g. [0.6, 0.9]."""
    gamma: float = 0.1
    """What it is multiplied by."""

    def __post_init__(self) -> None:
        """State the ranges."""
        inside = all(0 < share < 1 for share in self.milestones)
        demand(
            (inside and self.milestones == sorted(self.milestones), f"milestones = {self.milestones}: must ascend within 0…1"),
            (0 < self.gamma <= 1, f"gamma = {self.gamma}: must be in 0 < gamma ≤ 1"),
        )


@SCHEDULERS.register("step", StepConfig)
@final
class Step(LambdaLR):
    """Piecewise constant."""

    def __init__(self, cfg: StepConfig, *, optimizer: torch.optim.Optimizer, total: int, mode: str) -> None:
        del mode
        super().__init__(optimizer, lambda step: cfg.gamma ** sum(step >= share * total for share in cfg.milestones))


@dataclass(kw_only=True)
class PlateauConfig:
    """Multiply when validation stops improving."""

    factor: float = 0.5
    """What the learning rate is multiplied by."""
    patience: int = 3
    """Epochs without improvement before that."""

    def __post_init__(self) -> None:
        """State the ranges."""
        demand(
            (0 < self.factor < 1, f"factor = {self.factor}: must be in 0 < factor < 1"),
            (self.patience >= 0, f"patience = {self.patience}: must be 0 or more"),
        )


@SCHEDULERS.register("plateau", PlateauConfig)
@final
class Plateau(ReduceLROnPlateau):
    """Halve (or so) the learning rate when the task's validation metric stops improving."""

    def __init__(self, cfg: PlateauConfig, *, optimizer: torch.optim.Optimizer, total: int, mode: str) -> None:
        del total
        # eps 0: torch would leave small learning rates alone, and groups would lose their ratio
        super().__init__(optimizer, mode="min" if mode == "min" else "max", factor=cfg.factor, patience=cfg.patience, eps=0.0)
