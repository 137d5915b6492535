"""Seismograms with labelled onsets, picks, and what the model thought at every sample.

Letters: L samples, P arrivals a trace.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots
from scipy.signal import find_peaks

from evaluation.figures import style

TOLERANCE = 0.5
"""Seconds within which a pick is right, as in the protocol."""
_LETTERS = ("P", "S")


class Pick(NamedTuple):
    """A pick.

    Attributes:
        phase: P or S.
        time: seconds from the window's start.
        probability: at it.
    """

    phase: str
    time: float
    probability: float


class Arrival(NamedTuple):
    """A labelled arrival: phase and seconds from the window's start."""

    phase: str
    time: float


def picks(probabilities: NDArray, thresholds: dict[str, float], rate: float) -> list[Pick]:
    """Peaks above their phase's threshold, at least half a second apart, in order of time.

    Args:
        probabilities: ``L 3`` of P, S and noise.
        thresholds: by phase; 0.5 where a phase has none.
        rate: in Hz.
    """
    found = []
    for column, phase in enumerate(_LETTERS):
        padded = np.concatenate([[0.0], probabilities[:, column], [0.0]])  # a peak may lie at the very edge
        places, _ = find_peaks(padded, height=max(thresholds.get(phase, 0.5), 1e-6), distance=max(1, int(TOLERANCE * rate)))
        found += [Pick(phase, (place - 1) / rate, float(padded[place])) for place in places]
    return sorted(found, key=lambda pick: pick.time)


def arrivals(onsets: NDArray, phases: NDArray, rate: float) -> list[Arrival]:
    """The labelled arrivals of a trace, in order of time."""
    known = onsets >= 0
    pairs = zip(onsets[known], phases[known], strict=True)
    return sorted((Arrival(_LETTERS[int(phase)], float(onset) / rate) for onset, phase in pairs), key=lambda a: a.time)


def verdict(
    truth: list[Arrival], found: list[Pick], probabilities: NDArray, rate: float, unlabelled: Sequence[str] = ()
) -> list[str]:
    """What is right and wrong with the picks of a window, one sentence each, the labelled arrivals first.

    Args:
        truth: labelled arrivals.
        found: picks.
        probabilities: ``L 3``; says how near a missed phase came.
        rate: in Hz.
        unlabelled: phases that nobody looked for in this trace: a pick of one is neither right nor wrong.
    """
    told, used = [], set()
    for arrival in truth:
        same = [n for n, pick in enumerate(found) if pick.phase == arrival.phase and n not in used]
        nearest = min(same, key=lambda n: abs(found[n].time - arrival.time), default=None)
        other = [
            n
            for n, pick in enumerate(found)
            if pick.phase != arrival.phase and abs(pick.time - arrival.time) <= TOLERANCE and n not in used
        ]
        if nearest is not None and abs(found[nearest].time - arrival.time) <= 10 * TOLERANCE:
            used.add(nearest)
            late = found[nearest].time - arrival.time
            told.append(f"{arrival.phase} picked {_lateness(late)}")
        elif other:
            used.add(other[0])
            told.append(f"{arrival.phase} taken for {found[other[0]].phase}")
        else:
            first, end = (max(0, round((arrival.time + side * TOLERANCE) * rate)) for side in (-1, 1))
            best = float(probabilities[first : end + 1, _LETTERS.index(arrival.phase)].max(initial=0.0))
            told.append(f"{arrival.phase} at {arrival.time:.1f} s missed: its probability reaches {best:.2f} there")
    for n, pick in enumerate(found):
        if n not in used:
            why = f"where nobody looked for {pick.phase}" if pick.phase in unlabelled else "where none is labelled"
            told.append(f"{pick.phase} picked at {pick.time:.1f} s ({pick.probability:.2f}) {why}")
    return told or ["no arrival is labelled and none is picked"]


def _lateness(late: float) -> str:
    if abs(late) < 0.005:
        return "on time"
    return f"{abs(late):.2f} s {'late' if late > 0 else 'early'}"


def draw(wave: NDArray, probabilities: NDArray, truth: list[Arrival], found: list[Pick], rate: float) -> go.Figure:
    """Z, N and E above the probabilities of P and S; labelled onsets are solid lines, picks dashed.

    Args:
        wave: ``C L``.
        probabilities: ``L 3``.
        truth: labelled arrivals.
        found: picks.
        rate: in Hz.
    """
    channels, time = len(wave), np.arange(wave.shape[1]) / rate
    heights = [*[0.8] * channels, 1.0]
    figure = make_subplots(channels + 1, 1, shared_xaxes=True, vertical_spacing=0.025, row_heights=heights)
    style.dress(figure, 130 + 78 * channels + 60)
    for c in range(channels):
        trace = np.round(wave[c].astype(np.float32), 3)
        figure.add_scatter(
            x0=0, dx=1 / rate, y=trace, mode="lines", line={"color": style.INK, "width": 0.8}, showlegend=False, name="ZNE"[c],
            hovertemplate="%{x:.2f} s", row=c + 1, col=1,
        )  # fmt: skip
        reach = 1.05 * max(float(np.abs(trace).max(initial=0.0)), 1e-6)
        figure.update_yaxes(
            range=[-reach, reach],
            tickvals=[0],
            ticktext=[f"<b>{'ZNE'[c]}</b>"],  # upright: an N on its side is a Z
            ticks="",
            showgrid=False,
            row=c + 1,
        )
    for column, phase in enumerate(_LETTERS):
        figure.add_scatter(
            x0=0, dx=1 / rate, y=np.round(probabilities[:, column].astype(np.float32), 3), mode="lines",
            line={"color": style.PHASES[phase], "width": 1.8, "dash": "solid" if phase == "P" else "6px,2px"},
            name=f"probability of {phase}", hovertemplate="%{x:.2f} s: %{y:.2f}", row=channels + 1, col=1,
        )  # fmt: skip
    _mark(figure, truth, found)
    figure.update_yaxes(title={"text": "probability"}, range=[0, 1.05], tickvals=[0, 0.5, 1], row=channels + 1)
    figure.update_xaxes(title={"text": "time in s"}, range=[0, float(time[-1]) if len(time) else 1.0], row=channels + 1)
    return figure


def _mark(figure: go.Figure, truth: list[Arrival], found: list[Pick]) -> None:
    """Lines through all panels, letters above them, and their names in the legend."""
    for arrival in truth:
        look = {"color": style.PHASES[arrival.phase], "width": 1.6}
        figure.add_shape(
            type="line", x0=arrival.time, x1=arrival.time, y0=0, y1=1, xref="x", yref="paper", line=look, opacity=0.9
        )
        figure.add_annotation(
            x=arrival.time, y=1, xref="x", yref="paper", text=f"<b>{arrival.phase}</b>", showarrow=False, yanchor="bottom",
            font={"color": style.PHASES[arrival.phase], "size": 12},
        )  # fmt: skip
    for pick in found:
        look = {"color": style.PHASES[pick.phase], "width": 1.4, "dash": "4px,3px"}
        figure.add_shape(type="line", x0=pick.time, x1=pick.time, y0=0, y1=1, xref="x", yref="paper", line=look)
    for name, dash, wanted in (("labelled", "solid", truth), ("picked", "4px,3px", found)):
        if wanted:
            figure.add_scatter(x=[None], y=[None], mode="lines", line={"color": style.INK, "width": 1.5, "dash": dash}, name=name)
    figure.update_layout(legend={"y": 1.06}, margin={"t": 56})
