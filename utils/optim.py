"""Optimizers by name, and the parameter groups they get."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import nn

from utils.errors import demand
from utils.optim_params import decays
from utils.registry import Registry

OPTIMIZERS: Registry[torch.optim.Optimizer] = Registry("optimizer")
"""Parts are constructed as ``cls(settings, modules=…, scaled=…, factors=…)``; ``scaled`` says that gradients are scaled (fp16):
a fused optimizer would unscale them only inside its step, after clipping; ``factors`` are those of :func:`parameter_groups`."""

Factors = Mapping[nn.Parameter, float]


def parameter_groups(
    modules: Iterable[nn.Module], lr: float, weight_decay: float, factors: Factors | None = None
) -> list[dict[str, Any]]:
    """Trainable parameters in groups of one learning rate and one weight decay; biases, norms, gates, embeddings do not decay.

    Schedulers scale a group's own learning rate, so that factors hold during the whole run. Groups come with falling learning
    rate, those that decay first; parameters stay in the order of the modules, by which a resumed run finds their moments.

    Args:
        modules: whose parameters train; those without ``requires_grad`` do not.
        lr: learning rate of the factor 1.
        weight_decay: of parameters that decay.
        factors: of the learning rate, by parameter, above 0; 1 for those it does not name.
    """
    factors = factors or {}
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for module in modules:
        for p in module.parameters():
            if p.requires_grad:
                groups.setdefault((factors.get(p, 1.0), decays(p)), []).append(p)
    return [
        {"params": groups[key], "lr": lr * key[0], "weight_decay": weight_decay if key[1] else 0.0}
        for key in sorted(groups, reverse=True)
    ]


def _fused(groups: list[dict[str, Any]]) -> bool:
    """One kernel for all parameters: CPU and CUDA have it for floating-point parameters."""
    return all(p.device.type in ("cpu", "cuda") for group in groups for p in group["params"])


@dataclass(kw_only=True)
class AdamConfig:
    """Adam and AdamW."""

    lr: float = 1e-3
    """Peak learning rate; the scheduler scales it."""
    weight_decay: float = 0.1
    """Decoupled in adamw, in the gradient in adam; never on biases, norms, gates, embeddings or the mask token."""
    betas: list[float] = field(default_factory=lambda: [0.9, 0.95])
    """Decay rates of the first and second moment."""
    eps: float = 1e-8
    """Added to the denominator."""

    def __post_init__(self) -> None:
        """State the ranges."""
        demand(
            (self.lr > 0, f"lr = {self.lr}: must be positive"),
            (self.weight_decay >= 0, f"weight_decay = {self.weight_decay}: must be 0 or more"),
            (
                len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas),
                f"betas = {self.betas}: must be two numbers in 0 ≤ β < 1",
            ),
            (self.eps > 0, f"eps = {self.eps}: must be positive"),
        )


@OPTIMIZERS.register("adamw", AdamConfig)
@final
class AdamW(torch.optim.AdamW):
    """AdamW (Loshchilov & Hutter 2019), fused."""

    def __init__(
        self, cfg: AdamConfig, *, modules: Iterable[nn.Module], scaled: bool = False, factors: Factors | None = None
    ) -> None:
        groups = parameter_groups(modules, cfg.lr, cfg.weight_decay, factors)
        super().__init__(groups, lr=cfg.lr, betas=(cfg.betas[0], cfg.betas[1]), eps=cfg.eps, fused=_fused(groups) and not scaled)


@OPTIMIZERS.register("adam", AdamConfig)
@final
class Adam(torch.optim.Adam):
    """Adam (Kingma & Ba 2015), fused."""

    def __init__(
        self, cfg: AdamConfig, *, modules: Iterable[nn.Module], scaled: bool = False, factors: Factors | None = None
    ) -> None:
        groups = parameter_groups(modules, cfg.lr, cfg.weight_decay, factors)
        super().__init__(groups, lr=cfg.lr, betas=(cfg.betas[0], cfg.betas[1]), eps=cfg.eps, fused=_fused(groups) and not scaled)


@dataclass(kw_only=True)
class SgdConfig:
    """Stochastic gradient descent."""

    lr: float = 0.1
    """Peak learning rate; the scheduler scales it."""
    momentum: float = 0.9
    """Of the gradient; 0 is plain descent."""
    nesterov: bool = True
    """Look ahead along the momentum."""
    weight_decay: float = 0.0
    """Never on biases, norms, gates, embeddings or the mask token."""

    def __post_init__(self) -> None:
        """State the ranges."""
        demand(
            (self.lr > 0, f"lr = {self.lr}: must be positive"),
            (0 <= self.momentum < 1, f"momentum = {self.momentum}: must be in 0 ≤ momentum < 1"),
            (self.momentum > 0 or not self.nesterov, "nesterov = true: needs momentum above 0"),
            (self.weight_decay >= 0, f"weight_decay = {self.weight_decay}: must be 0 or more"),
        )


@OPTIMIZERS.register("sgd", SgdConfig)
@final
class Sgd(torch.optim.SGD):
    """Stochastic gradient descent with (Nesterov) momentum."""

    def __init__(
        self, cfg: SgdConfig, *, modules: Iterable[nn.Module], scaled: bool = False, factors: Factors | None = None
    ) -> None:
        del scaled  # not fused
        groups = parameter_groups(modules, cfg.lr, cfg.weight_decay, factors)
        super().__init__(groups, lr=cfg.lr, momentum=cfg.momentum, nesterov=cfg.nesterov)
