"""Which parameters weight decay leaves alone."""

from torch import nn


def no_decay(parameter: nn.Parameter) -> nn.Parameter:
    """Mark a parameter of two or more dimensions that must not decay (gates, embeddings, mask tokens).

    Biases and norms (fewer than two dimensions) never decay and need no mark.
    """
    parameter.no_weight_decay = True  # type: ignore[attr-defined]
    return parameter


def decays(parameter: nn.Parameter) -> bool:
    """Whether weight decay applies."""
    return parameter.ndim >= 2 and not getattr(parameter, "no_weight_decay", False)
