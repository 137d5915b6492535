"""Pictures of waveforms, masks and codes: pure functions from arrays to figures, without pyplot and its global state.

Shapes: B batch, L samples, C components (ZNE), T tokens, G groups of codes, V codes a group.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

INK, TRUTH, GUESS, HIDDEN, RIGHT, WRONG = "#222222", "#80868b", "#c8102e", "#faf0d2", "#1b7f4b", "#e39aa4"
PHASES = ("#1f5fa8", "#c8102e")
"""P and S."""
GROUPS = ("#1f5fa8", "#d9730d", "#6b4fa0", "#1b7f4b")


def reconstruction(
    wave: NDArray, guess: NDArray, hidden: NDArray, *, rate: float, examples: int = 3, everywhere: bool = False, zoom: float = 5.0
) -> Figure:
    """Waveforms, the truth in grey and the network's guess in red where it was hidden; beside each its strongest seconds.

    Args:
        wave, guess: ``B L C``.
        hidden: ``B L C`` bool.
        rate: in Hz.
        examples: traces shown at most.
        everywhere: draw the guess on every sample.
        zoom: length of the closer look in seconds.
    """
    traces, channels = min(examples, len(wave)), wave.shape[2]
    figure = _figure(13, 0.6 + traces * (0.5 + 0.75 * channels))
    end = wave.shape[1] / rate
    zoom = min(zoom, end)
    axes = figure.subplots(traces, 2, squeeze=False, width_ratios=(2.2, 1))
    for b, (whole, close) in enumerate(axes):
        shown = np.ones_like(hidden[b]) if everywhere else hidden[b]
        error = float(np.mean((wave[b] - guess[b])[shown] ** 2)) if shown.any() else float("nan")
        start = float(np.clip(_loudest(wave[b]) / rate - zoom / 2, 0, end - zoom))
        for axis in (whole, close):
            _three(axis, wave[b], guess[b], hidden[b], shown, rate)
            _tidy(axis, None)
        whole.set_xlim(0, end)
        whole.axvspan(start, start + zoom, fill=False, ec=INK, lw=0.6, ls=":")
        whole.set_title(f"example {b + 1}   mean squared error {error:.3f}", loc="left", fontsize=9)
        close.set_xlim(start, start + zoom)
        close.set_title("closer", loc="left", fontsize=9)
    for axis in axes[-1]:
        axis.set_xlabel("time in s", fontsize=9)
    handles: list[Artist] = [Line2D([], [], color=TRUTH), Line2D([], [], color=GUESS), Patch(color=HIDDEN)]
    kinds = 2 if everywhere else 3
    labels = ["truth", "network", "hidden"][:kinds]
    figure.legend(handles[:kinds], labels, loc="outside upper right", ncols=kinds, frameon=False, fontsize=9)
    return figure


def contrastive(
    wave: NDArray, hidden: NDArray, outcomes: NDArray, codes: NDArray | None, *, rate: float, examples: int = 2
) -> Figure:
    """The vertical component with hidden spans, right and wrong answers beneath, and the codes of each group along time.

    Args:
        wave: ``B L C``.
        hidden: ``B T`` bool.
        outcomes: ``B T``, 1 where the right code was picked, 0 where not, −1 where nothing was asked.
        codes: ``B T G`` chosen codes; None where there are none.
        rate: in Hz.
        examples: traces shown at most.
    """
    traces, tokens = min(examples, len(wave)), hidden.shape[1]
    length = wave.shape[1] / rate
    time = (np.arange(tokens) + 0.5) * length / tokens
    heights = [2.0, 0.25] + ([1.5] if codes is not None else [])
    figure = _figure(11, 0.4 + 1.05 * traces * sum(heights))
    rows = figure.subplots(traces * len(heights), 1, sharex=True, squeeze=False, height_ratios=heights * traces)[:, 0]
    for b in range(traces):
        top, strip, *rest = rows[b * len(heights) : (b + 1) * len(heights)]
        _shade(top, hidden[b], tokens / length)
        top.plot(np.arange(wave.shape[1]) / rate, wave[b, :, 0], color=INK, lw=0.6)
        asked = outcomes[b] >= 0
        share = outcomes[b][asked].mean() if asked.any() else float("nan")
        title = f"example {b + 1}   {_components(wave.shape[2])[0]}   {share:.0%} of {asked.sum()} hidden tokens recognised"
        top.set_title(title, loc="left", fontsize=9)
        top.set_yticks([])
        colors = ListedColormap(["white", WRONG, RIGHT])
        strip.imshow(
            outcomes[b][None], cmap=colors, vmin=-1, vmax=1, aspect="auto", extent=(0, length, 0, 1), interpolation="none"
        )
        strip.set_yticks([])
        for axis in rest:
            _code_track(axis, time, codes[b] if codes is not None else np.empty((tokens, 0)))
        for axis in (top, strip, *rest):
            _tidy(axis, length)
    rows[-1].set_xlabel("time in s", fontsize=9)
    handles: list[Artist] = [Patch(color=HIDDEN), Patch(color=RIGHT), Patch(color=WRONG)]
    labels = ["hidden", "recognised", "mistaken"]
    for g in range(0 if codes is None else codes.shape[2]):
        handles.append(Line2D([], [], color=GROUPS[g % len(GROUPS)], marker="o", ls=""))
        labels.append(f"code of group {g + 1}")
    figure.legend(handles, labels, loc="outside upper right", ncols=len(labels), frameon=False, fontsize=9)
    return figure


def picks(wave: NDArray, chance: NDArray, onsets: NDArray, phases: NDArray, *, rate: float, examples: int = 4) -> Figure:
    """Windows with their labelled onsets, and the probabilities of P and S beneath.

    Args:
        wave: ``B L C``.
        chance: ``B L 3``, probabilities of P, S, N.
        onsets: ``B P`` samples, −1: none.
        phases: ``B P``, 0 for P, 1 for S.
        rate: in Hz.
        examples: windows shown at most; those with arrivals first.
    """
    order = np.argsort(-(onsets >= 0).sum(1), kind="stable")[:examples]
    channels, end = wave.shape[2], wave.shape[1] / rate
    time = np.arange(wave.shape[1]) / rate
    figure = _figure(11, 0.5 + len(order) * (0.9 + 0.55 * channels))
    heights = [0.55 * channels, 0.9] * len(order)
    rows = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for number, b in enumerate(order.tolist()):
        top, below = rows[2 * number : 2 * number + 2]
        nowhere = np.zeros(wave[b].shape, bool)
        _three(top, wave[b], wave[b], nowhere, nowhere, rate)
        for phase, (name, color) in enumerate(zip("PS", PHASES, strict=True)):
            below.plot(time, chance[b, :, phase], color=color, lw=1.1, label=name)
            for onset in onsets[b][(onsets[b] >= 0) & (phases[b] == phase)]:
                for axis in (top, below):
                    axis.axvline(onset / rate, color=color, lw=1.0, ls="--")
        below.set_ylim(0, 1.05)
        below.set_ylabel("probability", fontsize=8)
        top.set_title(f"example {number + 1}", loc="left", fontsize=9)
        for axis in (top, below):
            _tidy(axis, end)
    rows[-1].set_xlabel("time in s", fontsize=9)
    handles: list[Artist] = [Line2D([], [], color=color) for color in PHASES]
    handles.append(Line2D([], [], color=INK, ls="--"))
    figure.legend(handles, ["P", "S", "labelled onset"], loc="outside upper right", ncols=3, frameon=False, fontsize=9)
    return figure


def code_usage(indices: NDArray, valid: NDArray, *, codes: int) -> Figure:
    """How often each code is chosen, most frequent first, against even use.

    Args:
        indices: ``B T G`` chosen codes.
        valid: ``B T`` bool, tokens that count.
        codes: V.
    """
    groups = indices.shape[2]
    figure = _figure(10, 0.4 + 1.9 * groups)
    axes = figure.subplots(groups, 1, sharex=True, squeeze=False)[:, 0]
    for g, axis in enumerate(axes):
        share = np.bincount(indices[..., g][valid], minlength=codes) / max(1, valid.sum())
        used = share[share > 0]
        perplexity = float(np.exp(-(used * np.log(used)).sum())) if used.size else 0.0
        axis.bar(np.arange(codes), 100 * np.sort(share)[::-1], width=1.0, color=GROUPS[g % len(GROUPS)])
        axis.axhline(100 / codes, color=INK, lw=0.8, ls="--")
        axis.text(codes, 100 / codes, " even", va="center", fontsize=8)
        title = f"group {g + 1}   {used.size} of {codes} codes used   hard perplexity {perplexity:.1f}"
        axis.set_title(title, loc="left", fontsize=9)
        axis.set_ylabel("% of tokens")
        _tidy(axis, codes)
    axes[-1].set_xlabel("code, by frequency")
    return figure


def code_neighbours(
    wave: NDArray,
    indices: NDArray,
    valid: NDArray,
    *,
    stride: int,
    rate: float,
    frequent: int = 5,
    snippets: int = 24,
    width: int = 96,
) -> Figure:
    """What the frequent codes look like: for each, the snippets around tokens that carry it, and their mean.

    Snippets are of the vertical component, each without mean and scaled to unit peak, aligned on their token.

    Args:
        wave: ``B L C``.
        indices: ``B T G`` chosen codes.
        valid: ``B T`` bool.
        stride: samples a token.
        rate: in Hz.
        frequent: codes shown a group.
        snippets: snippets a code.
        width: samples a snippet.
    """
    groups = indices.shape[2]
    figure = _figure(11, 0.5 + 1.75 * groups)
    axes = figure.subplots(groups, frequent, squeeze=False, sharex=True, sharey=True)
    time = (np.arange(width) - width / 2) / rate
    for g in range(groups):
        count = np.bincount(indices[..., g][valid])
        order = np.argsort(count)[::-1][:frequent]
        for axis, code in zip(axes[g], [*order, *[-1] * (frequent - len(order))], strict=True):
            found = list(_snippets(wave, (indices[..., g] == code) & valid, stride, width, snippets))
            _tidy(axis, None)
            axis.set_yticks([])
            if not found:
                axis.set_axis_off()
                continue
            axis.axvspan(-stride / 2 / rate, stride / 2 / rate, color="#f0d990", lw=0)
            axis.plot(time, np.stack(found).T, color=TRUTH, lw=0.4, alpha=0.7)
            axis.plot(time, np.mean(found, axis=0), color=GROUPS[g % len(GROUPS)], lw=1.6)
            axis.set_title(f"code {code}   {count[code] / max(1, valid.sum()):.1%}", loc="left", fontsize=8)
        axes[g, 0].set_ylabel(f"group {g + 1}")
    for axis in axes[-1]:
        axis.set_xlabel("s from the token", fontsize=8)
    return figure


def _snippets(wave: NDArray, carries: NDArray, stride: int, width: int, most: int) -> Iterator[NDArray]:
    """Snippets around evenly chosen tokens that carry a code, away from the window's ends."""
    trace, token = np.nonzero(carries)
    start = token * stride + stride // 2 - width // 2
    inside = (start >= 0) & (start + width <= wave.shape[1])
    trace, start = trace[inside], start[inside]
    for n in np.unique(np.linspace(0, len(start) - 1, min(most, len(start))).astype(int)):
        snippet = wave[trace[n], start[n] : start[n] + width, 0]
        snippet = snippet - snippet.mean()
        yield snippet / max(float(np.abs(snippet).max()), 1e-12)


def _code_track(axis: Axes, time: NDArray, codes: NDArray) -> None:
    """Codes ``T G`` along time."""
    for g in range(codes.shape[1]):
        axis.scatter(time, codes[:, g], s=3.0, lw=0, color=GROUPS[g % len(GROUPS)])
    axis.set_ylabel("code", fontsize=9)


def _three(axis: Axes, wave: NDArray, guess: NDArray, hidden: NDArray, shown: NDArray, rate: float) -> None:
    """The components of a trace ``L C`` above one another, shaded where ``hidden``, with the guess where it is ``shown``."""
    channels, step, time = wave.shape[1], _spacing(wave), np.arange(len(wave)) / rate
    for c in range(channels):
        shift = (channels - 1 - c) * step
        _shade(axis, hidden[:, c], rate, (shift - 0.5 * step, shift + 0.5 * step))
        axis.plot(time, wave[:, c] + shift, color=TRUTH, lw=0.7)
        axis.plot(time, np.where(shown[:, c], guess[:, c], np.nan) + shift, color=GUESS, lw=0.8)
    axis.set_yticks([(channels - 1 - c) * step for c in range(channels)], _components(channels))
    axis.set_ylim(-0.75 * step, (channels - 0.25) * step)


def _loudest(trace: NDArray, over: int = 100) -> int:
    """Sample in the middle of the ``over`` samples with the most energy."""
    energy = np.cumsum(np.concatenate([[0.0], (trace**2).sum(1)]))
    over = min(over, len(trace))
    return int(np.argmax(energy[over:] - energy[:-over])) + over // 2


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _shade(axis: Axes, hidden: NDArray, rate: float, between: tuple[float, float] | None = None) -> None:
    """Shade the hidden runs of ``hidden`` (``T`` bool, ``rate`` positions a second) over the axis or between two values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], hidden.astype(np.int8), [0]])))
    for begin, end in edges.reshape(-1, 2) / rate:
        if between is None:
            axis.axvspan(begin, end, color=HIDDEN, lw=0)
        else:
            axis.fill_between([begin, end], *between, color=HIDDEN, lw=0)


def _spacing(trace: NDArray) -> float:
    """Distance between the components of a trace: most of its amplitude, untroubled by a single peak."""
    return float(max(2.5 * np.quantile(np.abs(trace), 0.995), 1e-6))


def _components(channels: int) -> Sequence[str]:
    return "ZNE"[:channels] if channels <= 3 else [str(c) for c in range(channels)]


def _tidy(axis: Axes, end: float | None) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8)
    if end is not None:
        axis.set_xlim(0, end)
