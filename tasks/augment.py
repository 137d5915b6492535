"""Changes of training windows that leave onsets where they are: on the batch, each a function of (seed, epoch, index)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dataloaders.batch import Batch
from utils.errors import demand
from utils.rng import Draw


@dataclass(kw_only=True)
class AugmentConfig:
    """What may happen to a training window; all 0 or false leaves it alone."""

    rotate: bool = False
    """Turn the horizontal components by a random angle (any back-azimuth is as likely), where both were recorded."""
    flip: bool = False
    """Change the sign of all components, for half of the windows (polarity depends on the mechanism)."""
    vertical: float = 0.0
    """Share of windows shown as if only Z existed: N and E become copies of Z, as for vertical stations."""
    noise: float = 0.0
    """Largest standard deviation of added coloured noise, relative to the window's own; each window draws its share of it."""

    def __post_init__(self) -> None:
        """State the ranges."""
        demand(
            (0 <= self.vertical <= 1, f"vertical = {self.vertical}: must be 0 … 1"),
            (self.noise >= 0, f"noise = {self.noise}: must be 0 or more"),
        )

    @property
    def idle(self) -> bool:
        """Nothing is changed."""
        return not (self.rotate or self.flip or self.vertical or self.noise)


def augment(batch: Batch, cfg: AugmentConfig, draw: Draw) -> Batch:
    """A prepared batch with its windows changed; invalid samples stay 0, labels stay as they are.

    Missing components stay what :func:`dataloaders.normalise.prepare` made of them, as they are when a picker is used.

    Args:
        batch: normalised, ``wave`` ``B L C``; rotation and ``vertical`` need C = 3 and leave other batches alone.
        cfg: what may happen.
        draw: random numbers of the batch's windows.
    """
    if cfg.idle:
        return batch
    wave = batch.wave
    zne = wave.shape[2] == 3
    if cfg.rotate and zne:
        turned = _rotated(wave, 2 * torch.pi * draw.uniform("augment/rotate"))
        wave = torch.where(batch.live[:, 1:].all(1)[:, None, None], turned, wave)  # a copy of Z has no azimuth
    if cfg.flip:
        wave = wave * torch.where(draw.uniform("augment/flip") < 0.5, -1.0, 1.0)[:, None, None]
    if cfg.noise:
        level = cfg.noise * draw.uniform("augment/level")[:, None, None]
        wave = (wave + level * _coloured(wave.shape[1], wave.shape[2], draw)) / (1 + level**2).sqrt()
    wave = _as_recorded(wave, batch)
    if cfg.vertical and zne:
        alone = draw.uniform("augment/vertical") < cfg.vertical
        wave = torch.where(alone[:, None, None], wave[..., :1], wave)
    return batch._replace(wave=wave * batch.valid[..., None])


def _rotated(wave: Tensor, angle: Tensor) -> Tensor:
    """``B L 3`` (ZNE) with N and E turned by ``B`` angles, each scaled back to the standard deviation it had."""
    cos, sin = angle.cos()[:, None], angle.sin()[:, None]
    z, n, e = wave.unbind(-1)
    turned = torch.stack([cos * n - sin * e, sin * n + cos * e], -1)
    had, has = (each.square().mean(1, keepdim=True).sqrt() for each in (wave[..., 1:], turned))
    # components that cancel (copies of one another) would be blown up: they keep what is left
    turned = turned * torch.where(has > 0.1 * had, had / has.clamp_min(1e-6), 1.0)
    return torch.cat([z[..., None], turned], -1)


def _as_recorded(changed: Tensor, batch: Batch) -> Tensor:
    """``B L C`` with missing components as they were, relative to the live ones: a copy of the first of them, or zeros."""
    first = batch.live.to(torch.uint8).argmax(1)[:, None, None].expand(-1, changed.shape[1], 1)
    copied = batch.wave.abs().amax(1, keepdim=True) > 0
    return torch.where(batch.live[:, None], changed, changed.gather(2, first) * copied)


def _coloured(samples: int, channels: int, draw: Draw) -> Tensor:
    """Noise ``B L C`` of unit variance with an amplitude spectrum f^−a, a random slope 0 … 1.5 a window."""
    white = torch.fft.rfft(draw.normal("augment/noise", samples, channels), dim=1)
    frequency = torch.arange(white.shape[1], device=white.device).float()
    slope = 1.5 * draw.uniform("augment/slope")
    amplitude = torch.where(frequency > 0, frequency.clamp_min(1.0).pow(-slope[:, None]), 0.0)  # no offset
    shaped = torch.fft.irfft(white * amplitude[..., None], n=samples, dim=1)
    return shaped / shaped.std(1, keepdim=True, correction=0).clamp_min(1e-6)
