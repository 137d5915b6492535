"""The classical line: ObsPy's ``ar_pick``, an autoregressive AIC picker that needs no training."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from utils.errors import DataError

PEAK = 1e4
"""Largest amplitude that records are brought to: ``ar_pick`` computes in float32 and finds nothing in large numbers."""
SHORTEST = 5.0
"""Seconds: room for the long-term average of the S picker (4 s) and a second to find something in."""


class Tuning(NamedTuple):
    """Arguments of :func:`obspy.signal.trigger.ar_pick`; the values are those of ObsPy's tutorial.

    Attributes:
        f1, f2: pass band, Hz.
        lta_p, sta_p, lta_s, sta_s: lengths of long- and short-term averages, s.
        m_p, m_s: number of autoregressive coefficients.
        l_p, l_s: lengths of the variance window, s.
    """

    f1: float = 1.0
    f2: float = 20.0
    lta_p: float = 1.0
    sta_p: float = 0.1
    lta_s: float = 4.0
    sta_s: float = 1.0
    m_p: int = 2
    m_s: int = 8
    l_p: float = 0.1
    l_s: float = 0.2


TUTORIAL = Tuning()


def ar_picks(wave: Tensor, rate: float, tuning: Tuning = TUTORIAL) -> tuple[np.ndarray, np.ndarray]:
    """One P and one S a window (AR-AIC with STA/LTA: Akazawa 2004, 13th WCEE, paper 786).

    The picker always looks for one P and one S and gives no score: of a window of noise it picks the noise, and a threshold, an
    AUC or a detection rate is undefined for it. It reads the vertical for P and both horizontals for S.

    Constant stretches at both ends of a window (padding) are cut off, non-finite samples become 0, and amplitudes are scaled, so
    that neither units nor gain matter. Nothing is picked in a window shorter than 5 s, P not where the vertical is flat, and S
    not without P or where both horizontals are flat.

    Args:
        wave: ``B L 3`` in counts, components ZNE, not normalised by a filter.
        rate: sampling rate in Hz.
        tuning: settings of the picker.

    Returns:
        (sample of P ``B``, sample of S ``B``) float64, NaN where there is none.

    Raises:
        DataError: the wave has not three components, or its sampling rate does not hold the pass band.
    """
    if wave.ndim != 3 or wave.shape[-1] != 3:
        raise DataError(f"ar_pick reads windows B L 3 of the components ZNE, got shape {tuple(wave.shape)}")
    if rate <= 2 * tuning.f2:
        raise DataError(
            f"ar_pick filters up to {tuning.f2:g} Hz, which needs more than {2 * tuning.f2:g} samples a second; the data have "
            f"{rate:g}. Resample them, or lower f2"
        )
    records = wave.detach().to("cpu", torch.float64).transpose(1, 2).numpy()
    picks = np.array([_picks(np.nan_to_num(record, posinf=0.0, neginf=0.0), rate, tuning) for record in records])
    picks = picks.reshape(-1, 2)
    return picks[:, 0], picks[:, 1]


def _picks(record: np.ndarray, rate: float, tuning: Tuning) -> tuple[float, float]:
    """(P, S) in samples of a finite record ``3 L``, NaN where there is none."""
    from obspy.signal.trigger import ar_pick

    moves = np.flatnonzero((np.diff(record, axis=1) != 0).any(0))
    if len(moves) == 0 or moves[-1] + 2 - moves[0] < SHORTEST * rate:
        return np.nan, np.nan
    first = int(moves[0])
    z, n, e = record[:, first : moves[-1] + 2]
    horizontals = _scaled(np.stack([n, e]))
    vertical = _scaled(z[None])
    if not vertical.any():
        return np.nan, np.nan
    with_s = bool(horizontals.any())
    n, e = horizontals if with_s else vertical.repeat(2, 0)
    p, s = ar_pick(vertical[0], n, e, rate, *tuning, s_pick=with_s)
    # the library's own sign for "none" is a time that is not positive
    found_p = p > 0
    return (first + p * rate if found_p else np.nan), (first + s * rate if found_p and with_s and s > p else np.nan)


def _scaled(components: np.ndarray) -> np.ndarray:
    """Components ``C L`` without their means, the largest amplitude of all of them at :data:`PEAK`; zeros where all are flat."""
    centred = components - components.mean(1, keepdims=True)
    flat = np.ptp(components, axis=1, keepdims=True) == 0
    centred[np.broadcast_to(flat, centred.shape)] = 0.0
    largest = np.abs(centred).max()
    return centred * (PEAK / largest) if largest > 0 else centred
