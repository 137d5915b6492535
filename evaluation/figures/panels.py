"""What figures of a comparison show, whoever draws them: the report's interactive ones and the PNGs hold the same numbers."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Dot(NamedTuple):
    """A model on a source.

    Attributes:
        model: name, a line of the panel.
        source: name, told by colour and mark.
        values: of its runs.
        low, high: bar; NaN where there is none.
    """

    model: str
    source: str
    values: tuple[float, ...]
    low: float
    high: float


class Dots(NamedTuple):
    """A figure of merit: every model on every source.

    Attributes:
        title: of the panel.
        dots: in order.
        percent: whether values are shares.
    """

    title: str
    dots: Sequence[Dot]
    percent: bool


class Curve(NamedTuple):
    """A model along the share of labels.

    Attributes:
        name: in the legend.
        fraction: shares 0 … 1, rising.
        mean, low, high: at each; the band is the range over runs.
    """

    name: str
    fraction: NDArray
    mean: NDArray
    low: NDArray
    high: NDArray


class Curves(NamedTuple):
    """Label-fraction curves of a figure of merit; attributes as in :class:`Dots`."""

    title: str
    curves: Sequence[Curve]
    percent: bool


class Matrix(NamedTuple):
    """Trained on × evaluated on.

    Attributes:
        title: of the panel.
        rows, columns: training sets, sources.
        values: ``R C``, NaN where that pair was not run or is undefined.
        told: ``R C`` texts.
        better: 1 where more is better, −1 where less is: what is better is darker.
    """

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    values: NDArray
    told: Sequence[Sequence[str]]
    better: int = 1

    def shade(self) -> NDArray:
        """``R C`` in 0.1 … 1 from the worst to the best cell, NaN where a cell is."""
        signed = self.values * (self.better or 1)
        known = signed[np.isfinite(signed)]
        if not known.size:
            return signed
        reach = float(known.max() - known.min())
        return 0.1 + 0.9 * (signed - known.min()) / reach if reach > 1e-9 else np.where(np.isfinite(signed), 0.5, np.nan)
