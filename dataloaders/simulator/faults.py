"""What goes wrong with instruments: spikes, steps, bursts, gaps, dead components, offsets, clipping."""

import numpy as np

from dataloaders.simulator.dice import Dice
from dataloaders.simulator.settings import RATE, SimulatorConfig

FULL_SCALE = 2.0**23
"""Largest count of a 24-bit digitiser."""


def add_faults(cfg: SimulatorConfig, seed: int, index: np.ndarray, wave: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Damages traces in place: offset, glitches, clipping, rounding to counts, gaps, dead components.

    Args:
        cfg: how often.
        seed: of the virtual dataset.
        index: ``N``, numbers of the traces.
        wave: ``N 3 L`` float32, counts; missing samples and dead components become 0.

    Returns:
        (valid ``N L``, False in gaps; live ``N 3``, False for dead components).
    """
    dice = Dice(seed, index, "faults", 24)
    offset = np.stack([dice.uniform(-1, 1) for _ in range(3)], 1) * dice.log_uniform(1, 3e4)[:, None]
    _glitches(wave, dice, dice.chance(cfg.glitch_fraction))
    wave += offset.astype(np.float32)[:, :, None]
    np.clip(wave, -FULL_SCALE, FULL_SCALE - 1, out=wave)
    np.rint(wave, out=wave)
    valid = _gaps(len(index), wave.shape[2], dice, dice.chance(cfg.gap_fraction))
    live = _live(dice, dice.chance(cfg.dead_component_fraction))
    for row in np.flatnonzero(~valid.all(1)):
        wave[row][:, ~valid[row]] = 0
    wave[~live] = 0
    return valid, live


def _glitches(wave: np.ndarray, dice: Dice, hit: np.ndarray) -> None:
    """One glitch in each trace that is hit, 3 … 100 standard deviations of the trace high."""
    kind, start = dice.integers(3), dice.integers(wave.shape[2])
    size, fall, pitch = dice.log_uniform(3, 100), dice.log_uniform(0.2, 1.5), dice.uniform(4, 30)
    component, polarity = dice.integers(3), np.where(dice.chance(0.5), 1.0, -1.0)
    for row in np.flatnonzero(hit):
        height = size[row] * polarity[row] * wave[row].std(1)
        time = np.arange(wave.shape[2] - start[row]) / RATE
        tail = wave[row, :, start[row] :]
        if kind[row] == 0:
            tail[component[row], :2] += height[component[row]]
        elif kind[row] == 1:
            tail[component[row]] += (0.3 * height[component[row]] * np.exp(-time / (20 * fall[row]))).astype(np.float32)
        else:
            shape = time / fall[row] * np.exp(1 - 4 * time / fall[row]) * np.sin(2 * np.pi * pitch[row] * time)
            tail += (height[:, None] * np.roll([1.0, 0.6, -0.8], component[row])[:, None] * shape).astype(np.float32)


def _gaps(count: int, length: int, dice: Dice, hit: np.ndarray) -> np.ndarray:
    """``N L`` bool, False in a stretch of 0.1 … 8 s in each trace that is hit."""
    start, width = dice.integers(length), (dice.log_uniform(0.1, 8) * RATE).astype(np.int64)
    valid = np.ones((count, length), bool)
    for row in np.flatnonzero(hit):
        valid[row, start[row] : start[row] + width[row]] = False
    return valid


def _live(dice: Dice, hit: np.ndarray) -> np.ndarray:
    """``N 3`` bool: one component is dead in each trace that is hit, in every third of them two. Never all."""
    dead, other, two = dice.integers(3), 1 + dice.integers(2), dice.chance(1 / 3)
    live = np.ones((len(hit), 3), bool)
    rows = np.arange(len(hit))
    live[rows, dead] = ~hit
    live[rows, (dead + other) % 3] &= ~(hit & two)
    return live
