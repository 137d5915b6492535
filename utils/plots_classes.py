"""Pictures of classification: pure functions from arrays to figures, without pyplot and its global state."""

from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray


def confusion(counts: NDArray, classes: Sequence[str], title: str = "") -> Figure:
    """Which class was taken for which: a row a true class, in per cent of its traces, with the number of traces beneath.

    Args:
        counts: ``K K``, traces of the class of the row taken for the class of the column.
        classes: names of the classes.
        title: before accuracy and chance level.
    """
    count = len(classes)
    rows = counts.sum(1, keepdims=True)
    share = np.divide(counts, rows, out=np.zeros_like(counts, dtype=np.float64), where=rows > 0)
    side = 2.4 + 0.62 * count
    figure = Figure(figsize=(side + 0.6, side), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    image = axis.imshow(100 * share, cmap="Blues", vmin=0, vmax=100)
    for row, column in np.ndindex(count, count):
        if counts[row, column]:
            ink = "white" if share[row, column] > 0.55 else "#222222"
            text = f"{share[row, column]:.0%}\n{counts[row, column]:,.0f}"
            axis.text(column, row, text, ha="center", va="center", fontsize=7, color=ink)
    axis.set_xticks(np.arange(count), list(classes), rotation=45 if count > 4 else 0)
    axis.set_yticks(np.arange(count), [f"{name}  ({number:,.0f})" for name, number in zip(classes, rows[:, 0], strict=True)])
    axis.set_xlabel("taken for")
    axis.set_ylabel("class (traces)")
    accuracy = float(np.trace(counts) / max(float(counts.sum()), 1.0))
    mean = float(np.diag(share)[rows[:, 0] > 0].mean()) if counts.any() else 0.0
    head = f"{title}   " if title else ""
    axis.set_title(f"{head}accuracy {accuracy:.1%}, mean over classes {mean:.1%}, chance {1 / count:.1%}", loc="left", fontsize=9)
    axis.tick_params(labelsize=8)
    figure.colorbar(image, ax=axis, label="% of the class's traces", shrink=0.8)
    return figure
