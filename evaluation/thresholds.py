"""The probability from which a peak is called a pick: one a phase, chosen on dev, used wherever picks are made.

Whole dev traces are read as a continuous record would be, peaks of the probabilities are matched one to one with the labelled
arrivals within 0.5 s, and the threshold with the highest F1 wins. Test is never looked at.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.signal import find_peaks

from evaluation.picker import Picker
from evaluation.predict import window_batch
from evaluation.records import DEV, Records
from evaluation.sliding import Stack, Stacking, offsets
from utils.errors import DataError

TOLERANCE = 50
"""Samples between a pick and its onset, at most: 0.5 s."""
LEAST = 0.01
"""Peaks below this probability are not considered."""
APART = 50
"""Samples between two peaks of a phase, at least."""
MOST = 2000
"""Dev traces read; of more, a seeded choice."""
PHASES = ("P", "S")


@dataclass(frozen=True)
class Peaks:
    """Peaks of a phase over many traces, and what they should have found.

    Attributes:
        score: ``n``, probability at each peak.
        hit: ``n`` bool, the highest peak within the tolerance of an arrival, one an arrival.
        event: ``m``, the event of each labelled arrival.
    """

    score: np.ndarray
    hit: np.ndarray
    event: np.ndarray

    @property
    def arrivals(self) -> int:
        """Number of labelled arrivals."""
        return len(self.event)


def peaks_of(chance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(samples, heights) of the peaks of a probability curve ``L``; one at either end counts."""
    padded = np.concatenate([[-1.0], chance, [-1.0]])
    at, about = find_peaks(padded, height=LEAST, distance=APART)
    return at - 1, about["peak_heights"]


def match(at: np.ndarray, score: np.ndarray, onsets: np.ndarray, tolerance: float = TOLERANCE) -> np.ndarray:
    """``n`` bool: which peaks are the pick of an arrival.

    Highest first, each peak takes the nearest arrival within the tolerance that is still free: what a peak finds does not depend
    on lower ones, so that the answer for any threshold is the one for all peaks, cut there.

    Args:
        at: ``n`` samples of the peaks.
        score: ``n`` heights.
        onsets: ``m`` samples of the arrivals.
        tolerance: in samples.
    """
    hit, free = np.zeros(len(at), bool), np.ones(len(onsets), bool)
    for peak in np.argsort(-score, kind="stable").tolist():
        distance = np.where(free, np.abs(onsets - at[peak]), np.inf)
        if len(distance) and distance.min() <= tolerance:
            hit[peak] = True
            free[distance.argmin()] = False
    return hit


def best_threshold(peaks: Peaks) -> tuple[float, float]:
    """(threshold with the highest F1, that F1); F1 of n picks with h hits among a arrivals is 2h / (n + a).

    The threshold lies half-way between the lowest pick it keeps and the highest it drops, so that it does not hang on one score.

    Raises:
        DataError: no arrivals, or no peak hits one.
    """
    if not peaks.arrivals or not peaks.hit.any():
        raise DataError("no labelled arrivals in dev" if not peaks.arrivals else "no peak is near a labelled arrival of dev")
    order = np.argsort(-peaks.score, kind="stable")
    score, hits = peaks.score[order], np.cumsum(peaks.hit[order])
    f1 = 2 * hits / (np.arange(1, len(score) + 1) + peaks.arrivals)
    last = np.r_[score[1:] != score[:-1], True]  # equal scores are kept or dropped together
    best = int(np.where(last, f1, -1).argmax())
    below = score[best + 1] if best + 1 < len(score) else LEAST
    return float((score[best] + below) / 2), float(f1[best])


def read_traces(picker: Picker, records: Records, traces: np.ndarray, batch_size: int = 32) -> list[np.ndarray]:
    """Probabilities of whole traces, ``L 3`` each, as those of a continuous record are made: windows overlap by half and are
    averaged with weights that fall towards their edges. A threshold chosen on anything else would not be one for picks.

    Args:
        picker: probabilities of a window.
        records: where the traces are.
        traces: their numbers.
        batch_size: windows at a time.
    """
    samples, length = picker.samples, records.catalogue.length[traces].tolist()
    starts = [offsets(0, size, samples, samples - samples // 2) for size in length]
    trace, start = np.repeat(np.arange(len(traces)), [len(each) for each in starts]), np.concatenate(starts)
    stacks = [Stack(size, samples, 3, Stacking.taper) for size in length]
    for low in range(0, len(trace), batch_size):
        some = slice(low, low + batch_size)
        chance = picker(window_batch(records, traces[trace[some]], start[some], samples)).cpu().numpy()
        for own, first, window in zip(trace[some].tolist(), start[some].tolist(), chance, strict=True):
            stacks[own].add(first, window)
    return [stack.result() for stack in stacks]


def dev_peaks(
    picker: Picker, records: Records, *, most: int = MOST, seed: int = 0, advance: Callable[[int], None] = lambda count: None
) -> dict[str, Peaks]:
    """Peaks of P and S on dev; a trace where the phase is unlabelled says nothing about it.

    Args:
        picker: probabilities.
        records: the traces.
        most: traces read at most, a seeded choice.
        seed: of that choice.
        advance: called with the number of traces read since the last call.
    """
    any_label = np.isfinite(records.onset).any(1) | records.noise
    traces = records.of_split(DEV)
    traces = traces[any_label[traces]]
    if len(traces) > most:
        traces = np.sort(np.random.default_rng(seed).choice(traces, most, replace=False))
    found: dict[str, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = {phase: [] for phase in PHASES}
    for low in range(0, len(traces), 16):
        some = traces[low : low + 16]
        for trace, chance in zip(some.tolist(), read_traces(picker, records, some), strict=True):
            for number, phase in enumerate(PHASES):
                if records.known[trace, number]:
                    onsets = records.onset[trace][records.phase[trace] == number]
                    at, score = peaks_of(chance[:, number])
                    event = np.full(len(onsets), records.catalogue.event[trace])
                    found[phase].append((score, match(at, score, onsets), event))
        advance(len(some))
    empty = np.empty(0)
    return {
        phase: Peaks(
            np.concatenate([empty, *(score for score, _, _ in each)]),
            np.concatenate([empty.astype(bool), *(hit for _, hit, _ in each)]),
            np.concatenate([empty.astype(np.int64), *(event for _, _, event in each)]),
        )
        for phase, each in found.items()
    }


def choose(peaks: Mapping[str, Peaks]) -> tuple[dict[str, float], dict[str, float], dict[str, str]]:
    """(threshold by phase, its F1 on dev by phase, why a phase has none)."""
    chosen, reached, why = {}, {}, {}
    for phase, some in peaks.items():
        try:
            chosen[phase], reached[phase] = best_threshold(some)
        except DataError as error:
            why[phase] = f"undefined: {error}"
    return chosen, reached, why


def choose_thresholds(picker: Picker, records: Records, *, most: int = MOST, seed: int = 0) -> dict[str, float]:
    """Thresholds by phase, ``{"P": …, "S": …}``, that maximise the F1 of picks within 0.5 s on dev.

    A phase that dev cannot decide on (no labelled arrivals, none found) has no entry.

    Args:
        picker: a trained picker.
        records: of the sets it is used on, see :func:`evaluation.records.open_records`.
        most: dev traces read at most.
        seed: of the choice among more.

    Raises:
        DataError: no phase can be decided on.
    """
    chosen, _, why = choose(dev_peaks(picker, records, most=most, seed=seed))
    if not chosen:
        told = "; ".join(f"{phase}: {reason.removeprefix('undefined: ')}" for phase, reason in why.items())
        raise DataError(f"{', '.join(records.sets)}: dev decides on no threshold: {told}. Give another dataset with dataset=…")
    return chosen
