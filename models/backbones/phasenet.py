"""phasenet: PhaseNet (Zhu & Beroza 2019) as SeisBench has it, for comparison in the same harness."""

from dataclasses import dataclass
from functools import lru_cache
from typing import final

from torch import Tensor
from torch.nn import functional as F

from models.baselines.seisbench import networks
from models.contracts import BACKBONES, Backbone, BackboneConfig
from utils.errors import demand

SHORTEST = 101
"""Samples below which the deepest convolution has fewer inputs than its kernel; shorter windows are padded."""


@lru_cache(maxsize=256)
def fitting(samples: int) -> int:
    """The least length, ``samples`` or more, at which the network's skips meet what comes up from below.

    PhaseNet's strides of 4 are padded by hand for windows of 3001 samples. At other lengths an upsampled branch may be
    shorter than its skip: then the network fails, or gives fewer samples than it got.
    """
    length = max(samples, SHORTEST)
    while not _fits(length):
        length += 1
    return length


def _fits(length: int) -> bool:
    for padding in (6, 5, 4, 5):
        below = (length + padding - 7) // 4 + 1
        if 4 * below < length:
            return False
        length = below
    return True


@dataclass(kw_only=True)
class PhaseNetConfig(BackboneConfig):
    """Settings of :class:`PhaseNet`."""

    channels: int = 3
    """C, components of the wave it reads: 3 for ZNE, 1 for Z."""
    filter_factor: int = 1
    """Factor on the number of filters: 1 is the published network, above it is wider (Naoi et al. 2024)."""

    def __post_init__(self) -> None:
        """State the ranges."""
        demand(
            (self.channels in (1, 3), f"channels = {self.channels}: must be 3 (ZNE) or 1 (Z)"),
            (self.filter_factor >= 1, f"filter_factor = {self.filter_factor}: must be at least 1"),
        )


@BACKBONES.register("phasenet", PhaseNetConfig)
@final
class PhaseNet(Backbone):
    """The wave itself (``encoder=identity``) to class scores P, S, N (``decoder=identity``); 268,443 parameters.

    The network is SeisBench's, built with the phases in our order: its weights are those of SeisBench's with ``phases="PSN"``.
    Windows of any length: zeros are appended up to the next length it can compute, and cropped.

    Batch normalisation sees every sample of a batch, also those that are padding or gaps (zeros after ``prepare``): it has no
    mask. In evaluation its statistics are fixed and padding matters within the receptive field alone.

    Args:
        cfg: components and width.

    Attributes:
        net: SeisBench's ``PhaseNet``.
    """

    causal = False

    def __init__(self, cfg: PhaseNetConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.d_in, self.d_out = cfg.channels, 3
        self.net = networks().PhaseNet(in_channels=cfg.channels, phases="PSN", filter_factor=cfg.filter_factor)

    def forward(self, tokens: Tensor) -> Tensor:
        """Wave ``B L C`` to class scores ``B L 3`` float32, whose softmax are PhaseNet's probabilities."""
        samples = tokens.shape[1]
        wave = F.pad(tokens.transpose(1, 2), (0, fitting(samples) - samples))
        return self.net(wave, logits=True)[..., :samples].transpose(1, 2).float()
