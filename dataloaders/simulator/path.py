"""What is left of a wave after its path, and what the path scatters out of it."""

import numpy as np

EXPONENT = 0.5
"""Q rises with frequency, Q = Q(1 Hz) · f^0.5, as measured for S in the crust between 1 and 20 Hz."""
CROSSOVER_KM = 80.0
"""Beyond it crustal waves are trapped between surface and Moho and spread over a cylinder."""


def spreading(distance_km: np.ndarray) -> np.ndarray:
    """Geometrical spreading of crustal waves, 1/m: 1/r to 80 km, then 1/√r (Herrmann & Kijko 1983)."""
    near = np.minimum(distance_km, CROSSOVER_KM)
    return 1e-3 / near * np.sqrt(near / np.maximum(distance_km, near))


class Attenuation:
    """Anelastic attenuation exp(−π f t*(f)) with t*(f) = t*(1 Hz) · f^−0.5, and the phase that keeps it causal.

    ``exp(−c (2πif)^β)`` with 0 < β < 1 is the transform of a one-sided stable density: nothing arrives before the arrival,
    and its amplitude is that of Q ∝ f^(1 − β) (Strick 1967; Kjartansson 1979).

    Args:
        frequency: ``F``, Hz.
    """

    def __init__(self, frequency: np.ndarray) -> None:
        beta = 1 - EXPONENT
        decay = np.pi * frequency**beta
        self._decay = decay.astype(np.float32)
        self._turn = (decay * np.tan(np.pi * beta / 2)).astype(np.float32)

    def __call__(self, t_star: np.ndarray) -> np.ndarray:
        """``N F`` complex64 from ``N`` values of t* at 1 Hz, s."""
        t = t_star.astype(np.float32)[:, None]
        size, angle = np.exp(-t * self._decay), t * self._turn
        out = np.empty(size.shape, np.complex64)
        np.multiply(size, np.cos(angle), out=out.real)
        np.multiply(size, np.sin(-angle), out=out.imag)
        return out


def broadened(lapse: np.ndarray, width: np.ndarray) -> np.ndarray:
    """Energy that forward scattering delays: density ``t/w² · exp(−t/w)``, 1/s, 0 before the arrival.

    The shape of the envelope in a medium of broad random heterogeneity (Sato 1989), in its simplest form.

    Args:
        lapse: ``N L`` float32, s after the arrival.
        width: ``N``, s.
    """
    x = np.maximum(lapse / width.astype(np.float32)[:, None], 0)
    return x * np.exp(-x) / width.astype(np.float32)[:, None]


def single_scattered(lapse: np.ndarray, travel: np.ndarray, rate: np.ndarray, loss: np.ndarray) -> np.ndarray:
    """Energy of singly scattered waves over that of the direct one: ``g v K(t / t_direct) exp(−loss · (t − t_direct))``, 1/s.

    ``K(a) = ln((a + 1) / (a − 1)) / a`` for isotropic scattering (Sato 1977); far from the source it falls as t⁻².

    Args:
        lapse: ``N L`` float32, s after the direct wave.
        travel: ``N``, travel time of the direct wave, s.
        rate: ``N``, g v, 1/s: scattering coefficient times speed.
        loss: ``N``, 2π f / Qc, 1/s.
    """
    travel, rate, loss = (value.astype(np.float32)[:, None] for value in (travel, rate, loss))
    late = np.maximum(lapse, 0.05)
    ratio = 1 + late / travel
    energy = rate * np.log((ratio + 1) / (ratio - 1)) / ratio * np.exp(-loss * late)
    return np.where(lapse >= 0, energy, 0)
