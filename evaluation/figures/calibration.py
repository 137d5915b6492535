"""Reliability: how often a phase is there, against how sure the model was (Guo et al. 2017)."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from evaluation.figures import style


def error(table: pd.DataFrame) -> float:
    """Expected calibration error: the mean distance of confidence and frequency, weighted by samples; NaN without samples.

    Args:
        table: bins of one phase: ``confidence``, ``frequency``, ``n``.
    """
    filled = table[table["n"] > 0]
    if filled.empty:
        return float("nan")
    distance = (filled["confidence"] - filled["frequency"]).abs()
    return float(np.average(distance, weights=filled["n"]))


def draw(table: pd.DataFrame) -> go.Figure:
    """A line a phase; on the diagonal a probability means what it says. Points grow with the samples in their bin.

    Args:
        table: ``phase, bin_low, bin_high, confidence, frequency, n``.
    """
    figure = style.blank(430)
    figure.add_scatter(
        x=[0, 1], y=[0, 1], mode="lines", line={"color": style.RULE, "dash": "dot", "width": 1}, name="perfect", hoverinfo="skip"
    )
    for place, (phase, bins) in enumerate(table[table["n"] > 0].groupby("phase", sort=True)):
        bins = bins.sort_values("confidence")
        size = 6 + 3 * np.log10(bins["n"].to_numpy(dtype=float))
        color = style.PHASES.get(str(phase), style.LINES[2 + place])
        figure.add_scatter(
            x=bins["confidence"],
            y=bins["frequency"],
            customdata=bins["n"],
            mode="lines+markers",
            line={"color": color, "width": 2},
            marker={"size": size, "symbol": style.MARKS[place], "color": color, "line": {"color": "white", "width": 1}},
            name=f"{phase} (ECE {error(bins):.3f})",
            hovertemplate="said %{x:.2f}, was %{y:.2f}<br>%{customdata:,} samples",
        )
    figure.update_xaxes(title={"text": "probability the model gave"}, range=[-0.02, 1.02])
    figure.update_yaxes(title={"text": "how often it was so"}, range=[-0.02, 1.02])
    figure.update_layout(legend={"orientation": "v", "x": 0.02, "y": 0.98, "yanchor": "top"})
    return figure
