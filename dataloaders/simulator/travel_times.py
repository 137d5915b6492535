"""First arrivals of P and S at local and regional distances, looked up in tables computed with ObsPy's TauP."""

from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path

import numpy as np

DISTANCE_STEP_KM = 1.0
DEPTH_STEP_KM = 1.0
KM_PER_DEGREE = 6371.0 * np.pi / 180.0


class EarthModel(str, Enum):
    """Which of ObsPy's one-dimensional Earth models gives the travel times."""

    iasp91 = "iasp91"
    """Kennett & Engdahl 1991: crust of 20 km at 5.8 km/s and 15 km at 6.5 km/s, Moho at 35 km."""
    ak135 = "ak135"
    """Kennett, Engdahl & Buland 1995: the same crust, a slightly slower S."""


def table_path(model: EarthModel) -> Path:
    """The table of a model: an .npz file beside this module."""
    return Path(__file__).parent / "tables" / f"{model.value}.npz"


def hypocentral(distance: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Distance from source to station in km, from epicentral distance and depth in km (flat Earth: it only scales)."""
    return np.sqrt(distance * distance + depth * depth)


@dataclass(frozen=True)
class Rays:
    """One wave of ``N`` source–station pairs.

    Attributes:
        time: ``N``, travel time of the first arrival, s.
        crustal: ``N``, travel time of the direct crustal wave (Pg, Sg), s; equals ``time`` where that is the first arrival.
        ray: ``N``, ray parameter of the first arrival, s/km.
        takeoff: ``N``, its angle at the source from the downward vertical, radians.
    """

    time: np.ndarray
    crustal: np.ndarray
    ray: np.ndarray
    takeoff: np.ndarray


class TravelTimes:
    """Travel times of an Earth model, interpolated.

    Times are bilinear in mean slowness: within a millisecond of TauP where its curve is smooth, within a sample where two
    branches cross (Pg and Pn). Ray parameter and angle jump there, so they are those of the nearest node.

    Args:
        model: which Earth.
    """

    def __init__(self, model: EarthModel) -> None:
        with np.load(table_path(model)) as table:
            self._table = {name: table[name] for name in table.files}
        depths, distances = self._table["p_slowness"].shape
        self.max_depth_km = (depths - 1) * DEPTH_STEP_KM
        self.max_distance_km = (distances - 1) * DISTANCE_STEP_KM

    def rays(self, wave: str, distance: np.ndarray, depth: np.ndarray) -> Rays:
        """First arrivals of a wave.

        Args:
            wave: ``p`` or ``s``.
            distance: ``N``, epicentral, km; beyond the table the edge's slowness goes on.
            depth: ``N``, km.
        """
        x = np.clip(distance / DISTANCE_STEP_KM, 0, self.max_distance_km / DISTANCE_STEP_KM)
        z = np.clip(depth / DEPTH_STEP_KM, 0, self.max_depth_km / DEPTH_STEP_KM)
        span = hypocentral(distance, depth)
        nearest = np.rint(z).astype(np.int64), np.rint(x).astype(np.int64)
        return Rays(
            time=span * _bilinear(self._table[f"{wave}_slowness"], z, x),
            crustal=span * _bilinear(self._table[f"{wave}_crustal"], z, x),
            ray=self._table[f"{wave}_ray"][nearest],
            takeoff=np.deg2rad(self._table[f"{wave}_takeoff"][nearest]),
        )


def _bilinear(table: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    i = np.minimum(row.astype(np.int64), table.shape[0] - 2)
    j = np.minimum(column.astype(np.int64), table.shape[1] - 2)
    u, v = row - i, column - j
    upper = table[i, j] * (1 - v) + table[i, j + 1] * v
    lower = table[i + 1, j] * (1 - v) + table[i + 1, j + 1] * v
    return upper * (1 - u) + lower * u


@cache
def travel_times(model: EarthModel) -> TravelTimes:
    """The table of a model, read once."""
    return TravelTimes(model)
