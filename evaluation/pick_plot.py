"""A picture of a stretch of record: the components, the probabilities of P and S, and the picks."""

from collections.abc import Mapping, Sequence

import matplotlib.dates as mdates
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from obspy import UTCDateTime

from dataloaders.sets.resample import RATE
from evaluation.picks import PickedPhase
from evaluation.streams import Segment, seconds
from utils.plots import INK, PHASES

COLUMNS = 2400
"""Columns a trace is drawn with: each shows the range of its samples, so that nothing short is lost."""
_DAY = 86_400.0


def picture(
    curves: Sequence[tuple[Segment, NDArray[np.float32]]],
    picks: Sequence[PickedPhase],
    start: UTCDateTime,
    end: UTCDateTime,
    *,
    components: str,
    title: str,
    thresholds: Mapping[str, float] | None = None,
) -> Figure:
    """Components above, probabilities of P and S below, picks as lines through both.

    Args:
        curves: segments of one instrument, and their probabilities ``N 3``; what lies outside the times is cut off.
        picks: of the same instrument.
        start, end: times of the picture.
        components: letters of the segments' rows.
        title: heads the picture.
        thresholds: by phase, drawn as dotted lines where they are given.
    """
    figure = Figure(figsize=(13, 1.4 + 1.25 * len(components) + 1.5), layout="constrained")
    FigureCanvasAgg(figure)
    heights = [1.25] * len(components) + [1.5]
    rows: list[Axes] = list(figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0])
    for segment, curve in curves:
        low = max(0, int(seconds(segment.start, start) * RATE))
        high = min(len(curve), int(seconds(segment.start, end) * RATE))
        if high <= low:
            continue
        first = _days(segment.start + low / RATE)
        for axis, wave in zip(rows, segment.wave[:, low:high], strict=False):
            _trace(axis, wave - np.nanmedian(wave) if np.isfinite(wave).any() else wave, first)
        for phase, color in enumerate(PHASES):
            _probability(rows[-1], curve[low:high, phase], first, color)
    _mark(rows, [pick for pick in picks if start <= pick.time < end])
    for axis, letter in zip(rows, components, strict=False):
        axis.set_ylabel(letter, rotation=0, labelpad=12, fontsize=11)
        axis.ticklabel_format(axis="y", style="sci", scilimits=(-2, 4))
    for phase, color in zip("PS", PHASES, strict=True):
        if thresholds:
            rows[-1].axhline(thresholds[phase], color=color, lw=0.8, ls=":")
    _dress(rows, start, end)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    handles: list[Artist] = [Line2D([], [], color=color, lw=2) for color in PHASES]
    counts = [sum(pick.phase == phase and start <= pick.time < end for pick in picks) for phase in "PS"]
    figure.legend(handles, [f"P ({counts[0]})", f"S ({counts[1]})"], loc="outside upper right", ncols=2, frameon=False)
    return figure


def _days(time: UTCDateTime) -> float:
    """A time in Matplotlib's days."""
    return float(mdates.date2num(time.datetime))


def envelope(values: NDArray[np.float32], columns: int) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
    """(sample in the middle, lowest, highest) of each of at most ``columns`` stretches of a curve ``N``; NaN where all is NaN."""
    size = max(1, -(-len(values) // columns))
    padded = np.pad(values, (0, -len(values) % size), constant_values=np.nan).reshape(-1, size)
    some = np.isfinite(padded).any(1)
    low = np.where(some, np.min(np.where(np.isfinite(padded), padded, np.inf), 1), np.nan)
    high = np.where(some, np.max(np.where(np.isfinite(padded), padded, -np.inf), 1), np.nan)
    return np.arange(len(padded)) * size + size // 2, low.astype(np.float32), high.astype(np.float32)


def _trace(axis: Axes, wave: NDArray[np.float32], first: float) -> None:
    middle, low, high = envelope(wave, COLUMNS)
    time = first + middle / RATE / _DAY
    axis.fill_between(time, low, high, color=INK, lw=0.4)


def _probability(axis: Axes, curve: NDArray[np.float32], first: float, color: str) -> None:
    middle, _, high = envelope(curve, COLUMNS)
    time = first + middle / RATE / _DAY
    axis.plot(time, high, color=color, lw=0.9)
    axis.fill_between(time, 0, high, color=color, alpha=0.25, lw=0)


def _mark(rows: Sequence[Axes], picks: Sequence[PickedPhase]) -> None:
    """A thin line through the components for each pick, and a dot at its probability."""
    alpha = 0.8 if len(picks) <= 40 else 0.35  # hundreds of lines would hide the waveforms
    for phase, color in zip("PS", PHASES, strict=True):
        own = [pick for pick in picks if pick.phase == phase]
        times = [_days(pick.time) for pick in own]
        for axis in rows[:-1]:
            axis.vlines(times, 0, 1, transform=axis.get_xaxis_transform(), color=color, lw=0.8, alpha=alpha)
        rows[-1].plot(times, [pick.probability for pick in own], "o", ms=3, color=color, alpha=0.9)


def _dress(rows: Sequence[Axes], start: UTCDateTime, end: UTCDateTime) -> None:
    for axis in rows:
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
    below = rows[-1]
    below.set_ylim(0, 1.05)
    below.set_ylabel("probability", fontsize=9)
    below.set_xlim(_days(start), _days(end))
    locator = mdates.AutoDateLocator()
    below.xaxis.set_major_locator(locator)
    below.xaxis.set_major_formatter(mdates.ConciseDateFormatter(locator))
    below.set_xlabel("UTC", fontsize=9)
