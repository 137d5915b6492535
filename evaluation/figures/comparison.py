"""Figures of a comparison for the report: models as dots, label-fraction curves."""

from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from evaluation.figures import style
from evaluation.figures.panels import Curves, Dots


def dots(panels: list[Dots]) -> go.Figure:
    """A panel a figure of merit, a line a model, a colour and a mark a source; small dots are runs, bars intervals.

    Args:
        panels: with the same models.
    """
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    models = list(dict.fromkeys(dot.model for panel in panels for dot in panel.dots))
    sources = sorted({dot.source for panel in panels for dot in panel.dots}, key=lambda name: (name == "all sources", name))
    titles = [panel.title for panel in panels]
    height = 70 + max(2, len(models)) * (22 + 8 * len(sources))
    figure = make_subplots(
        lines,
        columns,
        shared_yaxes=True,
        subplot_titles=titles,
        horizontal_spacing=0.035,
        vertical_spacing=min(0.3, 80 / (height * lines + 60)),
    )
    style.dress(figure, height * lines + 70)
    style.panel_titles(figure, titles)
    steps = np.linspace(-0.28, 0.28, len(sources)) if len(sources) > 1 else np.zeros(1)
    for number, panel in enumerate(panels):
        where: dict[str, Any] = {"row": number // columns + 1, "col": number % columns + 1}
        for place, source in enumerate(sources):
            own = [dot for dot in panel.dots if dot.source == source and dot.values]
            _dots_of(figure, own, models, place, float(steps[place]), where=where)
        figure.update_xaxes(tickformat=".3~p" if panel.percent else ".4~g", nticks=5, **where)
    for place, source in enumerate(sources):
        look = {"size": 10, "color": style.of_source(place, source), "symbol": style.MARKS[place % len(style.MARKS)]}
        figure.add_scatter(x=[None], y=[None], mode="markers", marker=look, name=source, legendgroup=source)
    ticks = {"tickvals": list(range(len(models))), "ticktext": [_folded(model) for model in models]}
    figure.update_yaxes(range=[len(models) - 0.5, -0.5], ticks="", **ticks)
    figure.update_layout(legend={"y": 1.0 + 34 / (height * lines)}, margin={"t": 76})
    return figure


def _dots_of(figure: go.Figure, own: list, models: list[str], place: int, step: float, *, where: dict[str, int]) -> None:
    """The dots of one source in one panel: means with bars, and runs behind them."""
    source = own[0].source if own else ""
    color, mark = style.of_source(place, source), style.MARKS[place % len(style.MARKS)]
    mean = np.array([np.mean(dot.values) for dot in own])
    height = [models.index(dot.model) + step for dot in own]
    low, high = (np.nan_to_num(np.abs(np.array([getattr(dot, end) for dot in own]) - mean)) for end in ("low", "high"))
    runs = [(value, at) for dot, at in zip(own, height, strict=True) for value in dot.values if len(dot.values) > 1]
    if runs:
        x, y = zip(*runs, strict=True)
        faint = {"size": 5, "color": color, "symbol": mark, "opacity": 0.45}
        figure.add_scatter(
            x=x, y=y, mode="markers", marker=faint, showlegend=False, hovertemplate="%{x:.4g}", name=source, **where
        )
    if own:
        figure.add_scatter(
            x=mean,
            y=height,
            mode="markers",
            marker={"size": 10, "color": color, "symbol": mark, "line": {"color": "white", "width": 1}},
            error_x={
                "type": "data",
                "symmetric": False,
                "array": high,
                "arrayminus": low,
                "color": color,
                "thickness": 1.5,
                "width": 4,
            },
            name=source,
            legendgroup=source,
            showlegend=False,
            hovertemplate="%{x:.4g}",
            **where,
        )


def curves(panels: list[Curves]) -> go.Figure:
    """Figures of merit against the share of labels, a line a model with the range over its runs."""
    columns = min(2, len(panels))
    lines = -(-len(panels) // columns)
    names = list(dict.fromkeys(curve.name for panel in panels for curve in panel.curves))
    titles = [panel.title for panel in panels]
    figure = make_subplots(lines, columns, subplot_titles=titles, horizontal_spacing=0.08, vertical_spacing=0.35 / lines)
    style.dress(figure, 90 + 280 * lines)
    style.panel_titles(figure, titles)
    for number, panel in enumerate(panels):
        where: dict[str, Any] = {"row": number // columns + 1, "col": number % columns + 1}
        for curve in panel.curves:
            look = style.line(names.index(curve.name))
            band = np.concatenate([curve.high, curve.low[::-1]])
            figure.add_scatter(
                x=np.concatenate([curve.fraction, curve.fraction[::-1]]), y=band,
                fill="toself", fillcolor=look["color"],
                opacity=0.15, line={"width": 0}, mode="lines", hoverinfo="skip",
                showlegend=False, legendgroup=curve.name, **where,
            )  # fmt: skip
            figure.add_scatter(
                x=curve.fraction, y=curve.mean, mode="lines+markers", line={**look, "width": 2}, name=curve.name,
                marker={"size": 8, "symbol": style.MARKS[names.index(curve.name) % len(style.MARKS)]}, legendgroup=curve.name,
                showlegend=number == 0, hovertemplate="%{x:.0%} of the labels: %{y:.4g}", **where,
            )  # fmt: skip
        every = sorted({float(share) for curve in panel.curves for share in curve.fraction})
        figure.update_xaxes(type="log", tickvals=every, ticktext=[f"{100 * share:g} %" for share in every], **where)
        figure.update_yaxes(tickformat=".3~p" if panel.percent else ".4~g", **where)
    figure.update_xaxes(title={"text": "share of the labels"}, row=lines)
    figure.update_layout(legend={"y": 1.0 + 34 / (280 * lines)}, margin={"t": 76})
    return figure


def _folded(name: str, most: int = 26) -> str:
    """A long name on two lines, broken where it reads well."""
    if len(name) <= most:
        return name
    cut = max((n for n, letter in enumerate(name) if letter in "/, " and n < most), default=0)
    return f"{name[: cut + 1]}<br>{name[cut + 1 :].strip()}" if cut else name
