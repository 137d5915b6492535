"""Guard zones around every tensor that code under test allocates: what is written outside is noticed and does no harm."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, final

import torch
from torch import Tensor

GUARD = 4096
"""Bytes on either side; a multiple of every alignment that kernels count on, and more than a padded row of 256 features."""
PATTERN = 0xA5
"""Of every guard byte: no zero, no float that a kernel would come to."""
ALLOCATORS: tuple[tuple[Any, str], ...] = (
    *((torch, name) for name in ("empty", "empty_like", "empty_strided", "zeros", "zeros_like", "ones", "ones_like", "full")),
    *((torch.Tensor, name) for name in ("new_empty", "new_empty_strided", "new_zeros", "new_ones", "new_full")),
)
"""Functions whose results are filled by others."""


@final
class Fence:
    """Buffers with guard zones, and whether these are whole. For a process that does nothing else: torch itself is changed."""

    def __init__(self) -> None:
        self._buffers: list[tuple[Tensor, str]] = []

    def around(self, x: Tensor) -> Tensor:
        """A copy of ``x``, same sizes and strides, with a guard zone on either side; ``x`` itself where it holds nothing."""
        if not x.numel() or x.device.type == "meta":
            return x
        span = 1 + sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True))
        used = span * x.element_size()
        raw = torch.tensor(PATTERN, dtype=torch.uint8, device=x.device).repeat(2 * GUARD + used)
        inside = raw[GUARD : GUARD + used].view(x.dtype).as_strided(x.shape, x.stride())
        self._buffers.append((raw, f"{str(x.dtype).removeprefix('torch.')} tensor of {list(x.shape)}"))
        return inside.copy_(x)

    @contextmanager
    def up(self) -> Iterator[None]:
        """Within this context torch allocates between guard zones; empty floats are NaN, so that reading one shows."""
        plain = [(place, name, getattr(place, name)) for place, name in ALLOCATORS]
        try:
            for place, name, function in plain:
                setattr(place, name, self._fenced(function, empty="empty" in name))
            yield
        finally:
            for place, name, function in plain:
                setattr(place, name, function)

    def _fenced(self, function: Callable[..., Tensor], *, empty: bool) -> Callable[..., Tensor]:
        def allocate(*args: Any, **given: Any) -> Tensor:
            x = function(*args, **given)
            return self.around(x.fill_(torch.nan) if empty and x.is_floating_point() else x)

        return allocate

    def broken(self) -> str | None:
        """Which tensor was written beyond; None where none was."""
        for raw, what in self._buffers:
            for zone, side in ((raw[:GUARD], "before"), (raw[-GUARD:], "behind")):
                if not (zone == PATTERN).all():
                    return f"{side} a {what}"
        return None
