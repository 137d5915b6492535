"""What travels from a source to a task."""

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

import torch
from torch import Tensor

PICK_CLASSES = ("P", "S", "N")
"""Classes of a picker, in the order of its outputs; written into every checkpoint and asserted on load."""


class Target(str, Enum):
    """What a source can label."""

    none = "none"
    picks = "picks"
    event_class = "event_class"


@dataclass(frozen=True)
class DataSpec:
    """What a source offers, known before any batch exists.

    Attributes:
        channels: C, 3 for ZNE, 1 for Z.
        samples: L, window length.
        rate: sampling rate in Hz.
        target: which labels its batches carry.
        classes: names of the classes of that target, in the order of the label.
    """

    channels: int = 3
    samples: int = 4096
    rate: float = 100.0
    target: Target = Target.none
    classes: tuple[str, ...] = ()


class Batch(NamedTuple):
    """A batch of windows (a NamedTuple: Lightning moves those between devices; frozen dataclasses it refuses).

    Attributes:
        wave: ``B L C`` float32, channels in the order ZNE; raw counts from a source, normalised after ``prepare``.
        valid: ``B L`` bool, False where the trace does not reach: padding, gaps, non-finite samples.
        live: ``B C`` bool, False where a component is missing.
        index: ``B`` int64, the trace's fixed number in its source: with seed and epoch it determines every random number.
        epoch: ``B`` int64; of weighted sets the pass over its set that shows the trace (:class:`dataloaders.mixture.Mixture`).
        onsets: ``B P`` int64, sample of each arrival in the window (−1: none); None where the source has no labels.
        phases: ``B P`` int64, 0 for P and 1 for S, beside ``onsets``.
        known: ``B 2`` bool, False where the P (S) of this trace exists but was never picked: nothing may be concluded from its
            absence. None where the source has no labels.
        label: ``B`` int64, class of each trace among ``DataSpec.classes`` (−1: none); None where the source has no classes.
    """

    wave: Tensor
    valid: Tensor
    live: Tensor
    index: Tensor  # pyright: ignore[reportIncompatibleMethodOverride]
    epoch: Tensor
    onsets: Tensor | None = None
    phases: Tensor | None = None
    known: Tensor | None = None
    label: Tensor | None = None  # the class of a trace, not of a sample

    def on(self, device: torch.device) -> "Batch":
        """The batch on a device (not named ``to``: Lightning would call it and lose its asynchronous copies)."""
        labels = (value if value is None else value.to(device) for value in self[5:])
        return Batch(*(value.to(device) for value in self[:5]), *labels)


def raw_batch(wave: Tensor, valid: Tensor | None = None, live: Tensor | None = None) -> Batch:
    """Unlabelled raw windows as a batch, for inference.

    Args:
        wave: ``B L C`` in counts.
        valid: ``B L`` bool, samples that exist; None: all.
        live: ``B C`` bool, components that exist; None: all (constant ones are found by ``prepare``).
    """
    size, length, channels = wave.shape
    return Batch(
        wave=wave.float(),
        valid=torch.ones(size, length, dtype=torch.bool) if valid is None else valid,
        live=torch.ones(size, channels, dtype=torch.bool) if live is None else live,
        index=torch.arange(size),
        epoch=torch.zeros(size, dtype=torch.int64),
    )
