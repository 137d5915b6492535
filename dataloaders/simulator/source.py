"""What leaves the fault: moment, Brune's spectrum, and how a double couple radiates P, SV and SH."""

import numpy as np

CRUST_P = 6000.0
"""Speed of P at the source, m/s."""
CRUST_S = 3460.0
"""Speed of S at the source, m/s."""
DENSITY = 2700.0
"""Density at the source, kg/m³."""
MEAN_P = np.sqrt(4 / 15)
"""Root mean square of the P radiation pattern over the focal sphere (Aki & Richards 2002, sec. 4.3)."""
MEAN_S = np.sqrt(2 / 5)
"""The same of S: SV and SH together."""


def moment(magnitude: np.ndarray) -> np.ndarray:
    """Seismic moment in N·m of a moment magnitude (Hanks & Kanamori 1979; IASPEI form)."""
    return 10.0 ** (1.5 * magnitude + 9.1)


def corner(magnitude: np.ndarray, stress_drop: np.ndarray, *, p_wave: bool = False) -> np.ndarray:
    """Corner frequency in Hz of a circular crack (Brune 1970, with his correction of 1971).

    Args:
        magnitude: moment magnitude.
        stress_drop: Pa.
        p_wave: the corner of P lies 1.5 times higher (Madariaga 1976).
    """
    radius = np.cbrt(7 / 16 * moment(magnitude) / stress_drop)
    return (1.5 if p_wave else 1.0) * 2.34 * CRUST_S / (2 * np.pi * radius)


def brune(frequency: np.ndarray, corner_hz: np.ndarray) -> np.ndarray:
    """Spectrum of far-field displacement over moment, complex: 1 on the plateau, falling with f² above the corner.

    ``1 / (1 + i f / fc)²`` has Brune's amplitude ``1 / (1 + (f / fc)²)`` and the phase of his causal pulse ``t exp(−2π fc t)``.

    Args:
        frequency: ``F``, Hz.
        corner_hz: ``N``.

    Returns:
        ``N F`` complex64.
    """
    x = (frequency / corner_hz[:, None]).astype(np.float32)
    size = 1 / (1 + x * x)
    size *= size
    out = np.empty(x.shape, np.complex64)
    out.real = (1 - x * x) * size
    out.imag = -2 * x * size
    return out


def radiation(
    strike: np.ndarray, dip: np.ndarray, rake: np.ndarray, takeoff: np.ndarray, azimuth: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Radiation of a double couple in (P, SV, SH) (Aki & Richards 2002, eqs. 4.89–4.91). All angles in radians.

    Args:
        strike: clockwise from north.
        dip: from the horizontal, 0 … π/2.
        rake: of the slip, counted from the strike.
        takeoff: of the ray at the source, from the downward vertical, 0 … π.
        azimuth: of the station as the source sees it, clockwise from north.
    """
    cos_rake, sin_rake = np.cos(rake), np.sin(rake)
    cos_i, sin_i = np.cos(takeoff), np.sin(takeoff)
    cos_2i, sin_2i = np.cos(2 * takeoff), np.sin(2 * takeoff)
    phi = azimuth - strike
    cos_phi, sin_phi, cos_2phi, sin_2phi = np.cos(phi), np.sin(phi), np.cos(2 * phi), np.sin(2 * phi)
    strike_slip = cos_rake * np.sin(dip)
    dip_slip = sin_rake * np.sin(2 * dip)
    oblique_strike = cos_rake * np.cos(dip)
    oblique_dip = sin_rake * np.cos(2 * dip)
    p = (
        strike_slip * sin_i**2 * sin_2phi
        - oblique_strike * sin_2i * cos_phi
        + dip_slip * (cos_i**2 - sin_i**2 * sin_phi**2)
        + oblique_dip * sin_2i * sin_phi
    )
    sv = (
        oblique_dip * cos_2i * sin_phi
        - oblique_strike * cos_2i * cos_phi
        + 0.5 * strike_slip * sin_2i * sin_2phi
        - 0.5 * dip_slip * sin_2i * (1 + sin_phi**2)
    )
    sh = (
        oblique_strike * cos_i * sin_phi
        + strike_slip * sin_i * cos_2phi
        + oblique_dip * cos_i * cos_phi
        - 0.5 * dip_slip * sin_i * sin_2phi
    )
    return p, sv, sh
