"""Matrices with a number in every cell: confusion of classes, trained on against evaluated on."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from evaluation.figures import style


def confusion(counts: NDArray, classes: Sequence[str]) -> go.Figure:
    """True classes in rows, answers in columns; colour and percentage are shares of the row, below them the count.

    Args:
        counts: ``K K``.
        classes: ``K`` names.
    """
    rows = counts.sum(1, keepdims=True)
    share = np.divide(counts, rows, out=np.zeros_like(counts, dtype=float), where=rows > 0)
    told = [
        [f"{share[i, j]:.0%}<br>{counts[i, j]:.0f}" if rows[i, 0] else "none" for j in range(len(classes))]
        for i in range(len(classes))
    ]
    figure = heat(share, told, classes, classes)
    figure.update_layout(height=150 + 58 * len(classes))
    figure.update_xaxes(title={"text": "answer"})
    figure.update_yaxes(title={"text": "truth"})
    return figure


def heat(values: NDArray, told: Sequence[Sequence[str]], rows: Sequence[str], columns: Sequence[str]) -> go.Figure:
    """A matrix in one hue with a text in every cell, dark on light and light on dark.

    Args:
        values: ``R C`` in 0 … 1, white to dark; NaN cells stay white.
        told: ``R C`` texts.
        rows, columns: names, shown as they come, first row on top.
    """
    figure = style.blank(140 + 56 * len(rows), legend=False)
    figure.add_heatmap(
        z=values,
        x=[_short(name) for name in columns],
        y=[_short(name) for name in rows],
        colorscale=style.SCALE,
        zmin=0.0,
        zmax=1.0,
        showscale=False,
        xgap=2,
        ygap=2,
        hoverinfo="skip",
    )
    for i, texts in enumerate(told):
        for j, text in enumerate(texts):
            dark = np.isfinite(values[i, j]) and values[i, j] > 0.5
            ink = "white" if dark else style.INK
            figure.add_annotation(x=j, y=i, text=text, showarrow=False, font={"color": ink, "size": 13})
    figure.update_xaxes(side="bottom", showgrid=False, ticks="", type="category")
    figure.update_yaxes(autorange="reversed", showgrid=False, ticks="", type="category")
    return figure


def _short(name: str, most: int = 40) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"
