"""Reliability: how often a phase is there, against how sure the model was (Guo et al. 2017)."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from evaluation.figures import style


class Bins(NamedTuple):
    """Claims of one phase, binned by how sure the model was, ``N`` bins.

    Attributes:
        confidence: mean probability given.
        frequency: share that was right.
        n: claims.
    """

    confidence: NDArray
    frequency: NDArray
    n: NDArray


def error(bins: Bins) -> float:
    """Expected calibration error: mean distance of confidence and frequency, weighted by claims; NaN without any."""
    filled = bins.n > 0
    if not filled.any():
        return float("nan")
    return float(np.average(np.abs(bins.confidence - bins.frequency)[filled], weights=bins.n[filled]))


def draw(curves: Mapping[str, Bins]) -> go.Figure:
    """A line a phase; on the diagonal a probability means what it says. Points grow with the claims in their bin.

    Args:
        curves: by phase.
    """
    figure = style.blank(430)
    style.diagonal(figure, "perfect")
    for place, (phase, bins) in enumerate(sorted(curves.items())):
        filled = bins.n > 0
        if not filled.any():
            continue
        color = style.PHASES.get(phase, style.LINES[(2 + place) % len(style.LINES)])
        figure.add_scatter(
            x=bins.confidence[filled],
            y=bins.frequency[filled],
            customdata=bins.n[filled],
            mode="lines+markers",
            line={"color": color, "width": 2},
            marker={"size": 6 + 3 * np.log10(bins.n[filled]), "symbol": style.MARKS[place % len(style.MARKS)], "color": color},
            name=f"{phase} (ECE {error(bins):.3f})",
            hovertemplate="said %{x:.2f}, was %{y:.2f}<br>%{customdata:,} claims",
        )
    figure.update_xaxes(title={"text": "probability the model gave"}, range=[-0.02, 1.02])
    figure.update_yaxes(title={"text": "how often it was so"}, range=[-0.02, 1.02])
    figure.update_layout(legend={"orientation": "v", "x": 0.02, "y": 0.98, "yanchor": "top"})
    return figure
