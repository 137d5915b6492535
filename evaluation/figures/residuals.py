"""How far picks are from the labelled onsets: histograms, and the share of picks within any tolerance."""

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from evaluation.figures import style

REACH, BIN = 1.5, 0.05
"""Histograms show ±1.5 s in bins of 0.05 s; what lies outside is counted in words."""


def outside(residuals: NDArray) -> tuple[int, int]:
    """How many picks are more than 1.5 s early, and late."""
    return int((residuals < -REACH).sum()), int((residuals > REACH).sum())


def histogram(residuals: Mapping[str, NDArray]) -> go.Figure:
    """A panel a phase, in bins of 0.05 s centred on zero, with the counts outside.

    Args:
        residuals: by phase, in seconds, picked minus labelled; NaN without a pick.
    """
    titles = [f"{phase}   {int(np.isfinite(values).sum())} picks" for phase, values in residuals.items()]
    figure = make_subplots(1, max(1, len(residuals)), subplot_titles=titles, horizontal_spacing=0.09)
    style.dress(figure, 360, legend=False)
    style.panel_titles(figure, titles)
    edges = np.arange(-REACH - BIN / 2, REACH + BIN, BIN)
    for column, (phase, values) in enumerate(residuals.items(), start=1):
        counts, _ = np.histogram(values[np.abs(values) <= REACH], edges)
        centres = (edges[:-1] + edges[1:]) / 2
        figure.add_bar(
            x=centres,
            y=counts,
            width=BIN,
            marker={"color": style.PHASES.get(phase, style.LINES[2]), "line": {"color": "white", "width": 0.5}},
            hovertemplate="%{x:.2f} s: %{y} picks<extra></extra>",
            row=1,
            col=column,
        )
        early, late = outside(values)
        for x, anchor, text in ((-REACH, "left", f"◀ {early} earlier"), (REACH, "right", f"{late} later ▶")):
            figure.add_annotation(
                x=x, y=1, yref="y domain", text=text, showarrow=False, xanchor=anchor, yanchor="top", row=1, col=column
            )
        figure.add_vline(x=0, line={"color": style.RULE, "width": 1, "dash": "dot"}, row=1, col=column)  # type: ignore[arg-type]
    figure.update_xaxes(title={"text": "residual in s (late is right)"}, range=[-REACH - BIN, REACH + BIN])
    figure.update_yaxes(title={"text": "picks"}, col=1)
    return figure


def within(residuals: Mapping[str, Mapping[str, NDArray]]) -> go.Figure:
    """The share of onsets picked within a tolerance, against the tolerance: a panel a phase, a line a source.

    Args:
        residuals: by phase, then by source, in seconds; NaN without a pick, which is within no tolerance.
    """
    titles = list(residuals)
    figure = make_subplots(1, max(1, len(titles)), subplot_titles=titles, shared_yaxes=True, horizontal_spacing=0.05)
    style.dress(figure, 400)
    style.panel_titles(figure, titles)
    tolerance = np.geomspace(0.01, 10, 121)
    sources = sorted({source for by_source in residuals.values() for source in by_source})
    named: set[str] = set()
    for column, by_source in enumerate(residuals.values(), start=1):
        for source, values in by_source.items():
            size = np.sort(np.nan_to_num(np.abs(values), nan=np.inf))
            figure.add_scatter(
                x=tolerance,
                y=np.searchsorted(size, tolerance + 1e-9, side="right") / max(1, len(size)),
                mode="lines",
                line={**style.line(sources.index(source)), "width": 2},
                name=source,
                legendgroup=source,
                showlegend=source not in named,
                hovertemplate="within %{x:.2f} s: %{y:.1%}",
                row=1,
                col=column,
            )
            named.add(source)
        for guide in (0.1, 0.5):
            figure.add_vline(x=guide, line={"color": style.RULE, "width": 1, "dash": "dot"}, row=1, col=column)  # type: ignore[arg-type]
    ticks = [0.01, 0.03, 0.1, 0.5, 1, 3, 10]
    figure.update_xaxes(type="log", title={"text": "tolerance in s"}, tickvals=ticks, ticktext=[f"{t:g}" for t in ticks])
    figure.update_yaxes(range=[0, 1.02], tickformat=".0%")
    figure.update_yaxes(title={"text": "onsets picked within it"}, col=1)
    figure.update_layout(margin={"t": 64}, legend={"y": 1.08})
    return figure
