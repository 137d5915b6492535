"""From ObsPy streams, as archives deliver them, to arrays at 100 Hz: pure functions, nothing dropped without being told.

A *segment* is a stretch of one instrument (``NET.STA.LOC`` and the first two letters of the channel) without a gap longer than
half a window. Shorter gaps, masked samples, non-finite samples and components that start late are NaN in it, which
:func:`dataloaders.normalise.prepare` makes invalid samples and missing components, as in training.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from obspy import Trace, UTCDateTime

from dataloaders.sets.resample import RATE, ratio_of, resample

MIN_RATE = 10.0
"""Hz. Slower channels hold nothing of what a picker at 100 Hz looks at."""
MIN_SAMPLES = 400
"""Samples at 100 Hz, 4 s: shorter segments are listed, not picked; training leaves such traces out too."""
_HORIZONTAL = {"1": "N", "2": "E"}
"""Horizontals of unknown azimuth, and whose place they take."""


@dataclass(frozen=True)
class Segment:
    """A stretch of one instrument.

    Attributes:
        trace_id: ``NET.STA.LOC``.
        instrument: band and instrument code: ``HH``.
        start: time of the first sample.
        wave: ``C N`` float32 at 100 Hz, components in the order asked for, NaN where there is no sample.
    """

    trace_id: str
    instrument: str
    start: UTCDateTime
    wave: NDArray[np.float32]

    @property
    def number(self) -> int:
        """Samples at 100 Hz from 1970 to the first one."""
        step = round(1e9 / RATE)
        return (self.start.ns + step // 2) // step


@dataclass
class Findings:
    """What was met on the way.

    Attributes:
        skipped: (what, why) of everything that is not used.
        counts: what was repaired, and how often.
        seconds: length of all segments, gaps within them included.
    """

    skipped: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    seconds: float = 0.0
    counts: Counter[str] = field(default_factory=Counter[str])


class _Piece(NamedTuple):
    """Contiguous finite samples of one component; ``rate`` in Hz, ``data`` float64."""

    component: str
    rate: float
    start: UTCDateTime
    data: NDArray[np.float64]

    @property
    def end(self) -> UTCDateTime:
        return self.start + len(self.data) / self.rate


def segments(
    stream: Iterable[Trace], *, window: int, components: str = "ZNE", flexible: bool = True, strict: bool = False
) -> tuple[list[Segment], Findings]:
    """All segments of a stream, in order of instrument and time.

    Args:
        stream: any traces: several stations, rates, overlaps, masked arrays. Not changed.
        window: samples at 100 Hz of the network's window; gaps longer than half of it separate segments.
        components: which, in which order.
        flexible: ``1`` and ``2`` stand in for ``N`` and ``E`` where those are absent.
        strict: only samples where every component exists.

    Returns:
        (segments, what was skipped or repaired).
    """
    findings, instruments = Findings(), defaultdict[tuple[str, str], list[_Piece]](list)
    for trace in stream:
        stats = trace.stats
        component = _component(trace, components, flexible)
        reason = _unusable(trace, component, components)
        if reason:
            findings.skipped.append((trace.id, reason))
            continue
        key = f"{stats.network}.{stats.station}.{stats.location}", stats.channel[:-1]
        instruments[key].extend(_pieces(trace, component, findings.counts))
    found = []
    for (trace_id, instrument), pieces in sorted(instruments.items()):
        kept = _one_horizontal(pieces, f"{trace_id}.{instrument}", findings)
        for cluster in _clusters(kept, 0.5 * window / RATE):
            wave, start = _lay_out(cluster, components, findings.counts)
            if strict:
                wave[:, ~np.isfinite(wave).all(0)] = np.nan
            found.append(Segment(trace_id, instrument, start, wave.astype(np.float32)))
    return _long_enough(found, findings), findings


def _component(trace: Trace, components: str, flexible: bool) -> str:
    """The letter of a trace's component as it was recorded; empty where it is none of those wanted."""
    letter = trace.stats.channel[-1:].upper()
    stands_for = _HORIZONTAL.get(letter, letter) if flexible else letter
    return letter if stands_for and stands_for in components else ""


def _unusable(trace: Trace, component: str, components: str) -> str:
    """Why a trace cannot be used; empty where it can."""
    rate = float(trace.stats.sampling_rate)
    if not component:
        return f"channel '{trace.stats.channel}' is no component of {components}"
    if trace.stats.npts == 0:
        return "no samples"
    if rate < MIN_RATE or ratio_of(rate) is None:
        return f"{rate:g} Hz cannot be used: at least {MIN_RATE:g} Hz, in a simple ratio to {RATE:g} Hz"
    if not np.issubdtype(trace.data.dtype, np.number) or not np.isfinite(np.ma.filled(_numbers(trace), np.nan)).any():
        return "no finite sample"
    return ""


def _numbers(trace: Trace) -> NDArray[np.float64]:
    """Samples as float64, NaN where they are masked."""
    return np.ma.filled(np.ma.asarray(trace.data).astype(np.float64), np.nan)


def _pieces(trace: Trace, component: str, counts: Counter[str]) -> Iterator[_Piece]:
    """The contiguous finite stretches of a trace."""
    data, rate = _numbers(trace), float(trace.stats.sampling_rate)
    counts["masked or non-finite samples"] += int((~np.isfinite(data)).sum())
    if ratio_of(rate) != 1:
        counts["traces resampled to 100 Hz"] += 1
    for low, high in runs(np.isfinite(data)):
        yield _Piece(component, rate, trace.stats.starttime + low / rate, data[low:high])


def seconds(earlier: UTCDateTime, later: UTCDateTime) -> float:
    """From one time to another, to the nanosecond."""
    return (later.ns - earlier.ns) / 1e9


def runs(where: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Half-open ranges of an array ``N`` in which it is True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], where, [False]]).astype(np.int8)))
    return [(int(low), int(high)) for low, high in edges.reshape(-1, 2)]


def _one_horizontal(pieces: list[_Piece], name: str, findings: Findings) -> list[_Piece]:
    """Pieces with ``1`` and ``2`` renamed; where the same instrument has ``N`` and ``1``, the latter is left out."""
    have = {piece.component for piece in pieces}
    double = {letter for letter, stands_for in _HORIZONTAL.items() if {letter, stands_for} <= have}
    findings.skipped += [(f"{name}{letter}", f"{name}{_HORIZONTAL[letter]} is there too") for letter in sorted(double)]
    return [
        piece._replace(component=_HORIZONTAL.get(piece.component, piece.component))
        for piece in pieces
        if piece.component not in double
    ]


def _clusters(pieces: list[_Piece], gap: float) -> Iterator[list[_Piece]]:
    """Pieces of one instrument in groups that are more than ``gap`` seconds apart."""
    cluster: list[_Piece] = []
    end = UTCDateTime(0)
    for piece in sorted(pieces, key=lambda piece: piece.start):
        if cluster and seconds(end, piece.start) > gap:
            yield cluster
            cluster = []
        end = max(end, piece.end) if cluster else piece.end
        cluster.append(piece)
    if cluster:
        yield cluster


def _lay_out(cluster: list[_Piece], components: str, counts: Counter[str]) -> tuple[NDArray[np.float64], UTCDateTime]:
    """Pieces as one array ``C N`` at 100 Hz, NaN in between, and the time of its first sample.

    Pieces of one rate are joined before they are resampled, so that files that end where the next begins leave no seam.
    """
    start = cluster[0].start
    rows = []
    for component in components:
        mine = [piece for piece in cluster if piece.component == component]
        resampled: list[tuple[float, NDArray[np.float64]]] = []
        for rate in sorted({piece.rate for piece in mine}):
            offsets = [(seconds(start, piece.start), piece.data) for piece in mine if piece.rate == rate]
            first = min(offset for offset, _ in offsets)
            joined = _join([(offset - first, data) for offset, data in offsets], rate, counts)
            resampled += [(first + low / rate, to_100_hz(joined[low:high], rate)) for low, high in runs(np.isfinite(joined))]
        rows.append(_join(resampled, RATE, counts))
    wave = np.full((len(components), max(len(row) for row in rows)), np.nan)
    for row, values in zip(wave, rows, strict=True):
        row[: len(values)] = values
    return wave, start


def _join(pieces: list[tuple[float, NDArray[np.float64]]], rate: float, counts: Counter[str]) -> NDArray[np.float64]:
    """Pieces (seconds from the first sample, samples) on one grid, NaN in between and where two of them disagree."""
    places = [(round(offset * rate), data) for offset, data in pieces]
    joined = np.full(max((place + len(data) for place, data in places), default=0), np.nan)
    clash = np.zeros(len(joined), bool)
    for place, data in places:
        there = slice(place, place + len(data))
        clash[there] |= np.isfinite(joined[there]) & (joined[there] != data)
        joined[there] = data
    joined[clash] = np.nan
    counts["samples of overlapping records that disagree"] += int(clash.sum())
    return joined


def to_100_hz(data: NDArray[np.float64], rate: float) -> NDArray[np.float64]:
    """Samples at ``rate`` (Hz) to 100 Hz; the first stays where it is, and all are in their place to half a sample.

    Args:
        data: ``N``, finite.
        rate: one that :func:`dataloaders.sets.resample.ratio_of` knows.
    """
    ratio = ratio_of(rate)
    assert ratio is not None, "rates are checked when a trace comes in"
    if ratio != 1:
        beyond = 20 * max(ratio.numerator, ratio.denominator)  # more than the filter reaches: its zeros stay outside
        beyond -= beyond % ratio.denominator
        padded = np.pad(data, beyond, mode="edge")[None]
        first, count = beyond * ratio.numerator // ratio.denominator, -(-len(data) * ratio.numerator // ratio.denominator)
        data = resample(padded, ratio)[0, first : first + count]
    rate_now = rate * float(ratio)  # 100 Hz but for what metadata say of the recorder's clock
    if abs(rate_now / RATE - 1) * len(data) < 0.5:
        return data
    nearest = np.round(np.arange(int((len(data) - 1) * RATE / rate_now) + 1) * rate_now / RATE).astype(np.int64)
    return data[nearest]


def _long_enough(found: list[Segment], findings: Findings) -> list[Segment]:
    """Segments with enough samples; the others are listed."""
    kept = []
    for segment in found:
        samples = int(np.isfinite(segment.wave).any(0).sum())
        if samples >= MIN_SAMPLES:
            kept.append(segment)
            findings.seconds += segment.wave.shape[1] / RATE
            continue
        name = f"{segment.trace_id}.{segment.instrument} at {segment.start}"
        findings.skipped.append((name, f"{samples} samples at 100 Hz: at least {MIN_SAMPLES} are needed"))
    return kept


def without_sparse_components(windows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Windows ``B C W`` in which a component with fewer than half of the samples of the fullest one is wholly NaN.

    A sample is valid only where all components of its window exist: a component that ends early would take the others along.
    """
    there = np.isfinite(windows).sum(2, keepdims=True)
    return np.where(there * 2 < there.max(1, keepdims=True), np.float32(np.nan), windows)
