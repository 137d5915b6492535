"""``pictures/curves.png``: how a run went, from its ``metrics.csv``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

import matplotlib as mpl
import numpy as np
import pytorch_lightning as pl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from utils.loggers import METRICS
from utils.metrics_file import read

PICTURES = "pictures"
TRAIN, VAL, EXTRA = "#1f5fa8", "#d9730d", "#6b4fa0"
Curve = tuple[Sequence[int], Sequence[float]]
_APART = {"loss", "accuracy", "perplexity", "hard_perplexity", "temperature", "gradient_norm", "hidden_ratio"} | {
    "nonfinite_samples",
    "dead_components",
    "flat_traces",
    "sparse_traces",
}
"""Validation metrics that have a panel of their own, or tell about the data and not about learning."""
_PANELS: tuple[tuple[str, tuple[str, ...], bool], ...] = (
    ("loss", ("train/loss", "val/loss"), False),
    ("accuracy", ("train/accuracy", "val/accuracy"), False),
    ("learning rate", ("learning_rate",), False),
    ("codebook perplexity", ("train/perplexity", "val/perplexity", "val/hard_perplexity"), False),
    ("temperature", ("train/temperature",), False),
    ("gradient norm", ("train/gradient_norm",), True),
    ("samples a second", ("samples_per_s",), False),
)
"""Title, columns, logarithmic axis."""


@final
class Curves(pl.Callback):
    """Draws the curves at the end of training, also when it is interrupted.

    Args:
        folder: the run folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Rank 0 draws."""
        self._save(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """What was logged until now."""
        self._save(trainer)

    def _save(self, trainer: pl.Trainer) -> None:
        curves = read(self.folder / METRICS)
        if trainer.is_global_zero and curves:
            save(draw(curves), self.folder / PICTURES / "curves.png")


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, in one move, so that a viewer never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".new")
    figure.savefig(beside, format="png")
    beside.replace(path)


def draw(curves: Mapping[str, Curve]) -> Figure:
    """Curves of a run, one panel a quantity; quantities that were not logged take no room.

    Args:
        curves: steps and values by name, see :func:`utils.metrics_file.read`.
    """
    panels = [(title, [name for name in names if name in curves], log) for title, names, log in _panels(curves)]
    panels = [panel for panel in panels if panel[1]]
    rows, columns = max(1, -(-len(panels) // 2)), 2 if len(panels) > 1 else 1
    with mpl.rc_context({"axes.spines.top": False, "axes.spines.right": False, "font.size": 9}):
        figure = Figure(figsize=(5.5 * columns, 0.3 + 2.4 * rows), dpi=120, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, (title, names, log) in zip(axes, panels, strict=False):
        _panel(axis, title, {name: curves[name] for name in names}, log=log)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    return figure


def _panels(curves: Mapping[str, Curve]) -> list[tuple[str, tuple[str, ...], bool]]:
    """The known panels, and one for each further metric that validation reports (``mae``, …)."""
    others = [name.removeprefix("val/") for name in curves if name.startswith("val/")]
    further = [(name, (f"train/{name}", f"val/{name}"), False) for name in others if name not in _APART]
    return [*_PANELS[:2], *further, *_PANELS[2:]]


def _panel(axis: Axes, title: str, curves: Mapping[str, Curve], *, log: bool) -> None:
    axis.set_title(title, loc="left", fontweight="bold", fontsize=9)
    axis.set_xlabel("step")
    axis.grid(axis="y", color="#e6e6e6", lw=0.6)
    axis.set_axisbelow(True)
    for name, (steps, values) in curves.items():
        label, color = name.replace("/", " ").replace("_", " "), _color(name)
        if name.startswith("val/"):
            axis.plot(steps, values, "o-", color=color, lw=1.2, ms=3.5, label=label, zorder=3)
        elif len(values) > 12 and name != "learning_rate":
            axis.plot(steps, values, color=color, lw=0.7, alpha=0.3)
            axis.plot(steps, smooth(values), color=color, lw=1.6, label=label)
        else:
            axis.plot(steps, values, color=color, lw=1.6, label=label, marker="." if len(values) < 5 else None)
    if log:
        axis.set_yscale("log")
    if "samples_per_s" in curves:
        axis.set_ylim(bottom=0)
    if len(curves) > 1:
        axis.legend(frameon=False, fontsize=8)


def _color(name: str) -> str:
    if name == "val/hard_perplexity":
        return EXTRA
    return VAL if name.startswith("val/") else TRAIN


def smooth(values: Sequence[float], share: float = 0.05) -> Any:
    """Running mean over a centred window, cut off at the curve's ends.

    Args:
        values: ``N`` of them.
        share: of N that the window reaches to either side, in 0 … 1.
    """
    numbers = np.asarray(values, dtype=np.float64)
    half = max(1, int(len(numbers) * share))
    sums = np.concatenate([[0.0], np.cumsum(numbers)])
    place = np.arange(len(numbers))
    first, end = np.maximum(place - half, 0), np.minimum(place + half + 1, len(numbers))
    return (sums[end] - sums[first]) / (end - first)
