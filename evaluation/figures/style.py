"""One look for all figures: colours that colour-blind readers tell apart, quiet axes, a white ground that prints."""

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from utils.plots import GROUPS, GUESS, INK, TRUTH

P, S = GROUPS[0], GROUPS[1]
"""Blue and orange, as everywhere in the project."""
PHASES = {"P": P, "S": S}
RULE, CHOSEN = TRUTH, GUESS
LINES = (*GROUPS, "#c8102e", "#4f9fb5", "#a8741a", "#555a60")
"""Colours of lines, in order; they differ in lightness too. Beyond eight they come round again with another dash."""
DASHES = ("solid", "dash", "dot", "dashdot")
MARKS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "triangle-down", "star")
SCALE = [[0.0, "#ffffff"], [0.25, "#d5e3f2"], [0.5, "#8fb6dc"], [0.75, "#4a86c2"], [1.0, "#173f6e"]]
"""From nothing to all, for matrices: one hue, so that it survives a grey printer."""
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'DejaVu Sans', sans-serif"


def blank(height: int, *, legend: bool = True) -> go.Figure:
    """An empty figure in the common look.

    Args:
        height: in pixels; the width is the page's.
        legend: whether lines are named above the figure.
    """
    figure = go.Figure()
    dress(figure, height, legend=legend)
    return figure


def dress(figure: go.Figure, height: int, *, legend: bool = True) -> None:
    """Give a figure with any number of panels the common look; call it after its panels were made."""
    figure.update_layout(
        template="none",
        height=height,
        autosize=True,
        font={"family": FONT, "size": 13, "color": INK},
        paper_bgcolor="white",
        plot_bgcolor="white",
        margin={"l": 64, "r": 18, "t": 44, "b": 52},
        showlegend=legend,
        legend={"orientation": "h", "x": 0, "y": 1.0, "xanchor": "left", "yanchor": "bottom", "font": {"size": 12}},
        hoverlabel={"font": {"family": FONT, "size": 12}},
    )
    axis = {"gridcolor": "#e6e6e6", "zeroline": False, "linecolor": "#b5b9bd", "ticks": "outside", "tickcolor": "#b5b9bd"}
    figure.update_xaxes(**axis, showline=True, automargin=True, title={"font": {"size": 13}})
    figure.update_yaxes(**axis, showline=False, automargin=True, title={"font": {"size": 13}})


def line(place: int) -> dict[str, str]:
    """Colour and dash of the line at a place in a legend: no two of the first 32 look alike."""
    return {"color": LINES[place % len(LINES)], "dash": DASHES[place // len(LINES) % len(DASHES)]}


def diagonal(figure: go.Figure, name: str) -> None:
    """The line from (0, 0) to (1, 1), named in the legend."""
    look = {"color": RULE, "dash": "dot", "width": 1}
    figure.add_scatter(x=[0, 1], y=[0, 1], mode="lines", line=look, name=name, hoverinfo="skip")


def of_source(place: int, name: str) -> str:
    """Colour of a source: the one of its place, ink for all sources together."""
    return INK if name.startswith("all") else line(place)["color"]


def panel_titles(figure: go.Figure, titles: Sequence[str]) -> None:
    """Move the titles of panels to the left and make them plain; ``titles`` are those given to ``make_subplots``."""
    for note in figure.layout.annotations:  # type: ignore[attr-defined]
        if note.text in titles:
            x = next(x for axis, x in _lefts(figure) if abs(axis - note.x) < 1e-6)
            note.update(x=x, xanchor="left", font={"size": 13, "color": INK})


def _lefts(figure: go.Figure) -> list[tuple[float, float]]:
    """(middle, left edge) of every panel."""
    axes: list[Any] = list(figure.select_xaxes())
    domains = [axis.domain or (0.0, 1.0) for axis in axes]
    return [((low + high) / 2, low) for low, high in domains]
