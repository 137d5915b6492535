"""Picks and the references they belong to, one to one."""

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment

from evaluation import frames


def pairs(picks: np.ndarray, references: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """One-to-one pairs within a tolerance: as many as there can be, and of these the ones with the least total distance.

    Times are cut into groups that cannot reach each other, so that each assignment is small.

    Args:
        picks: ``n`` seconds.
        references: ``m`` seconds.
        tolerance: seconds; a distance equal to it counts.

    Returns:
        (numbers of the paired picks, numbers of their references).
    """
    time, kind = np.concatenate([picks, references]), np.repeat([0, 1], [len(picks), len(references)])
    number = np.concatenate([np.arange(len(picks)), np.arange(len(references))])
    order = np.argsort(time, kind="stable")
    reach = tolerance + 1e-6  # times are given to microseconds
    groups = np.split(order, np.flatnonzero(np.diff(time[order]) > reach) + 1)
    found: list[tuple[int, int]] = []
    for group in groups:
        ours, theirs = (number[group[kind[group] == which]] for which in (0, 1))
        if len(ours) and len(theirs):
            distance = np.abs(picks[ours][:, None] - references[theirs])
            cost = np.where(distance <= reach, distance, reach * 2 * (len(group) + 1))  # dearer than any number of pairs
            rows, columns = linear_sum_assignment(cost)
            near = distance[rows, columns] <= reach
            found += list(zip(ours[rows[near]].tolist(), theirs[columns[near]].tolist(), strict=True))
    one, other = np.array(found, np.int64).reshape(-1, 2).T
    return one, other


def matched(picks: pd.DataFrame, reference: pd.DataFrame, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """Which picks are paired with a reference of their station and phase, and which references with a pick.

    Args:
        picks: columns ``station`` (network.station), ``phase`` (P, S), ``time`` (seconds).
        reference: the same.
        tolerance: seconds.

    Returns:
        (``n`` bool, ``m`` bool), with as many True.
    """
    right, found = np.zeros(len(picks), bool), np.zeros(len(reference), bool)
    for phase in ("P", "S"):
        for station in sorted(set(picks["station"]) & set(reference["station"])):
            ours, theirs = (
                np.flatnonzero(frames.is_(table, "phase", phase) & frames.is_(table, "station", station))
                for table in (picks, reference)
            )
            one, other = pairs(frames.numbers(picks, "time")[ours], frames.numbers(reference, "time")[theirs], tolerance)
            right[ours[one]], found[theirs[other]] = True, True
    return right, found
