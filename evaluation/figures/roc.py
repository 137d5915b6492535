"""ROC curves with the operating point that was chosen on dev."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score, roc_curve

from evaluation.figures import style

MOST_POINTS = 600
"""Points drawn of a curve; more cannot be told apart."""


class Scored(NamedTuple):
    """Answers to a yes-or-no question.

    Attributes:
        name: of the group.
        truth: ``N`` bool.
        score: ``N``, higher means yes; may be infinite where it is a ratio.
        together: whether it holds all other groups.
    """

    name: str
    truth: NDArray
    score: NDArray
    together: bool = False


class Curve(NamedTuple):
    """A ROC curve.

    Attributes:
        name: of the group.
        false, true: rates, rising.
        threshold: at each point.
        area: under it.
        point: (false, true) rates at the chosen threshold; None where none was chosen.
        together: whether it is of all groups together.
    """

    name: str
    false: NDArray
    true: NDArray
    threshold: NDArray
    area: float
    point: tuple[float, float] | None
    together: bool


def curve(group: Scored, threshold: float | None) -> Curve | str:
    """The ROC curve of a group, or why there is none.

    A score that is no number counts against neither side: it is left out, and the caller counts such rows.
    """
    known = ~np.isnan(group.score)
    truth, score = group.truth[known].astype(bool), group.score[known]
    if not truth.any() or truth.all():
        return f"{group.name}: undefined: all {len(truth)} windows are of one class" if len(truth) else f"{group.name}: no scores"
    limit = np.finfo(np.float64).max
    finite = np.clip(score.astype(np.float64), -limit, limit)
    false, true, cuts = roc_curve(truth, finite)
    keep = np.unique(np.linspace(0, len(false) - 1, min(MOST_POINTS, len(false))).astype(int))
    point = None
    if threshold is not None:
        claimed = finite >= threshold
        point = float(claimed[~truth].mean()), float(claimed[truth].mean())
    return Curve(group.name, false[keep], true[keep], cuts[keep], float(roc_auc_score(truth, finite)), point, group.together)


def draw(curves: Sequence[Curve], *, yes: str, no: str) -> go.Figure:
    """One line a group over the diagonal of guessing; the chosen threshold is a ringed point on each.

    Args:
        curves: see :func:`curve`.
        yes: what a true positive is: ``earthquake``.
        no: what a negative is: ``noise``.
    """
    figure = style.blank(470)
    style.diagonal(figure, "guessing")
    for place, item in enumerate(curves):
        look = {"color": style.INK, "dash": "solid"} if item.together else style.line(place)
        figure.add_scatter(
            x=item.false,
            y=item.true,
            customdata=item.threshold,
            mode="lines",
            line={**look, "width": 2},
            name=f"{item.name} (AUC {item.area:.3f})",
            hovertemplate="false %{x:.3f}, true %{y:.3f}<br>threshold %{customdata:.3g}",
        )
        if item.point:
            ring = {"size": 11, "color": "white", "line": {"color": look["color"], "width": 2.5}}
            figure.add_scatter(
                x=[item.point[0]],
                y=[item.point[1]],
                mode="markers",
                marker={**ring, "symbol": style.MARKS[place % len(style.MARKS)]},
                showlegend=False,
                name=f"{item.name}, threshold from dev",
                hovertemplate="false %{x:.3f}, true %{y:.3f}",
            )
    figure.update_xaxes(title={"text": f"share of {no} windows claimed"}, range=[-0.02, 1.0])
    figure.update_yaxes(title={"text": f"share of {yes} windows found"}, range=[0, 1.02])
    figure.update_layout(legend={"orientation": "v", "x": 0.98, "xanchor": "right", "y": 0.04, "yanchor": "bottom"})
    return figure
