"""Makes the travel-time tables beside this file: ``python -m dataloaders.simulator.make_travel_times``.

TauP (Crotwell, Owens & Ritsema 1999, in ObsPy) takes some 20 ms a source; a simulated trace has well under 1 ms. So it is asked
once, on a fine grid. The tables are part of the repository; this command is only needed to change the grid or the Earth models.
"""

import logging
import sys
from pathlib import Path

import numpy as np
from obspy.taup import TauPyModel
from obspy.taup.taup_time import TauPTime

from dataloaders.simulator.travel_times import DEPTH_STEP_KM, DISTANCE_STEP_KM, KM_PER_DEGREE, EarthModel, hypocentral, table_path

_DISTANCES = np.arange(0.0, 350.0 + DISTANCE_STEP_KM / 2, DISTANCE_STEP_KM)
_DEPTHS = np.arange(0.0, 60.0 + DEPTH_STEP_KM / 2, DEPTH_STEP_KM)
_NAMES = {"p": ("p", "P", "Pn", "Pg"), "s": ("s", "S", "Sn", "Sg")}
_CRUSTAL = {"p": ("p", "Pg"), "s": ("s", "Sg")}

_log = logging.getLogger(__name__)


def _rays(taup: TauPTime, distance: float, crustal: tuple[str, ...]) -> tuple[float, float, float, float]:
    """(first time s, its ray parameter s/km, its take-off angle °, time of the direct crustal wave s)."""
    taup.calc_time(distance / KM_PER_DEGREE)
    first = taup.arrivals[0]
    direct = max((arrival for arrival in taup.arrivals if arrival.name in crustal), key=lambda ray: ray.ray_param, default=first)
    return first.time, first.ray_param / 6371.0, first.takeoff_angle, direct.time


def table(model: EarthModel, distances: np.ndarray = _DISTANCES, depths: np.ndarray = _DEPTHS) -> dict[str, np.ndarray]:
    """The arrays of a table, each depths × distances, float32 (times) or float16.

    Args:
        model: which of ObsPy's Earth models.
        distances: epicentral, km, rising.
        depths: of the source, km, rising.

    Returns:
        for each wave ``p`` and ``s``: ``<wave>_slowness``, first-arrival time over hypocentral distance, s/km (smooth where the
        time itself has a tip above a shallow source); ``<wave>_crustal``, the same of the direct crustal wave; ``<wave>_ray``,
        ray parameter of the first arrival, s/km; ``<wave>_takeoff``, its angle from the downward vertical at the source, degrees.
    """
    taup_model = TauPyModel(model.value).model
    span = np.maximum(hypocentral(distances[None], depths[:, None]), 1e-9)
    arrays: dict[str, np.ndarray] = {}
    for wave, names in _NAMES.items():
        rays = np.empty((len(depths), len(distances), 4))
        for row, depth in enumerate(depths):
            taup = TauPTime(taup_model, list(names), float(depth), 0.0)
            taup.depth_correct(float(depth))
            taup.recalc_phases()
            rays[row] = [_rays(taup, float(distance), _CRUSTAL[wave]) for distance in distances]
            _log.info("%s %s: depth %.0f km", model.value, wave, depth)
        time, ray, takeoff, crustal = np.moveaxis(rays, 2, 0)
        values = {"slowness": time / span, "crustal": crustal / span, "ray": ray, "takeoff": takeoff}
        for name, value in values.items():
            if depths[0] == 0 and distances[0] == 0:
                value[0, 0] = value[0, 1]
            arrays[f"{wave}_{name}"] = value.astype(np.float32 if name in ("slowness", "crustal") else np.float16)
    return arrays


def main() -> int:
    """Writes a table for every :class:`EarthModel`; exit code 0."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for model in EarthModel:
        arrays = table(model)
        Path(table_path(model)).parent.mkdir(exist_ok=True)
        np.savez_compressed(table_path(model), **arrays)  # type: ignore[arg-type]
    return 0


if __name__ == "__main__":
    sys.exit(main())
