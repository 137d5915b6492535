"""The figures of a comparison as PNG, for documents: the same panels as in the report, drawn by matplotlib."""

import math

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from evaluation.figures import style
from evaluation.figures.panels import Curves, Dots, Matrix

_MARKS = ("o", "s", "D", "^", "P", "X", "v", "*")
_DASHES = {"solid": "-", "dash": "--", "dot": ":", "dashdot": "-."}


def dots(panels: list[Dots]) -> Figure:
    """See :func:`evaluation.figures.comparison.dots`."""
    models = list(dict.fromkeys(dot.model for panel in panels for dot in panel.dots))
    sources = sorted({dot.source for panel in panels for dot in panel.dots}, key=lambda name: (name == "all sources", name))
    figure, axes = _grid(len(panels), 3, 3.4, 0.9 + 0.42 * len(models))
    for axis, panel in zip(axes, panels, strict=False):
        for dot in panel.dots:
            if not dot.values:
                continue
            place = sources.index(dot.source)
            at = models.index(dot.model) + (place - (len(sources) - 1) / 2) * min(0.18, 0.6 / len(sources))
            color, mean = style.of_source(place, dot.source), float(np.mean(dot.values))
            if math.isfinite(dot.low):
                axis.plot([dot.low, dot.high], [at, at], color=color, lw=1.2)
            if len(dot.values) > 1:
                axis.plot(dot.values, [at] * len(dot.values), ".", color=color, alpha=0.5, ms=4)
            axis.plot(mean, at, _MARKS[place % len(_MARKS)], color=color, mec="white", mew=0.6, ms=6, label=dot.source)
        axis.set_ylim(len(models) - 0.5, -0.5)
        axis.set_yticks(range(len(models)), models, fontsize=8)
        axis.label_outer()
        axis.tick_params(labelbottom=True)
        _finish(axis, panel.title, along="x", percent=panel.percent)
    _legend(figure, axes)
    return figure


def curves(panels: list[Curves]) -> Figure:
    """See :func:`evaluation.figures.comparison.curves`."""
    names = list(dict.fromkeys(curve.name for panel in panels for curve in panel.curves))
    figure, axes = _grid(len(panels), 2, 4.4, 3.0)
    for axis, panel in zip(axes, panels, strict=False):
        for curve in panel.curves:
            place = names.index(curve.name)
            look = style.line(place)
            axis.fill_between(curve.fraction, curve.low, curve.high, color=look["color"], alpha=0.15, lw=0)
            marked = {"marker": _MARKS[place % len(_MARKS)], "ms": 5.0, "lw": 1.6}
            axis.plot(curve.fraction, curve.mean, color=look["color"], ls=_DASHES[look["dash"]], label=curve.name, **marked)
        every = sorted({float(share) for curve in panel.curves for share in curve.fraction})
        axis.set_xscale("log")
        axis.set_xticks(every, [f"{100 * share:g} %" for share in every])
        axis.minorticks_off()
        axis.set_xlabel("share of the labels", fontsize=9)
        _finish(axis, panel.title, along="y", percent=panel.percent)
    _legend(figure, axes)
    return figure


def matrices(panels: list[Matrix]) -> Figure:
    """Trained on × evaluated on, a panel a figure of merit, the number in every cell."""
    widest = max(len(panel.columns) for panel in panels)
    figure, axes = _grid(len(panels), 2, 2.0 + 0.9 * widest, 1.2 + 0.45 * len(panels[0].rows))
    hue = LinearSegmentedColormap.from_list("one hue", [color for _, color in style.SCALE])
    for axis, panel in zip(axes, panels, strict=False):
        shade = panel.shade()
        axis.imshow(shade, cmap=hue, vmin=0.0, vmax=1.0, aspect="auto")
        for i, texts in enumerate(panel.told):
            for j, text in enumerate(texts):
                dark = np.isfinite(shade[i, j]) and shade[i, j] > 0.5
                axis.text(
                    j, i, text.replace("<br>", "\n"), ha="center", va="center", fontsize=8, color="white" if dark else style.INK
                )
        axis.set_xticks(range(len(panel.columns)), panel.columns, fontsize=8)
        axis.set_yticks(range(len(panel.rows)), panel.rows, fontsize=8)
        axis.set_xlabel("evaluated on", fontsize=9)
        axis.set_ylabel("trained on", fontsize=9)
        axis.set_title(panel.title, loc="left", fontsize=9, fontweight="bold")
        axis.spines[:].set_visible(False)
        axis.tick_params(length=0)
    return figure


def _grid(panels: int, most: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """A figure with room for so many panels in rows of ``most``; sizes in inches."""
    columns = min(most, panels)
    rows = -(-panels // columns)
    figure = Figure(figsize=(0.8 + width * columns, 0.5 + height * rows), dpi=140, layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for axis in axes[panels:]:
        axis.set_axis_off()
    return figure, axes[:panels]


def _finish(axis: Axes, title: str, *, along: str, percent: bool) -> None:
    axis.set_title(title, loc="left", fontsize=9, fontweight="bold")
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="both", color="#e6e6e6", lw=0.6)
    axis.set_axisbelow(True)
    axis.tick_params(labelsize=8)
    if percent:
        scale = axis.xaxis if along == "x" else axis.yaxis
        scale.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")


def _legend(figure: Figure, axes: list[Axes]) -> None:
    """Every line of every panel, named once above them."""
    named: dict[str, Artist] = {}
    for axis in axes:
        handles, labels = axis.get_legend_handles_labels()
        named |= dict(zip(labels, handles, strict=True))
    columns = min(4, max(1, len(named)))
    named = dict(sorted(named.items(), key=lambda item: (item[0] == "all sources", item[0])))
    figure.legend(list(named.values()), list(named), loc="outside upper left", ncols=columns, frameon=False, fontsize=8)
