"""Ground noise between Peterson's New Low and New High Noise Model (Peterson 1993), with its own colour in every trace."""

import numpy as np

from dataloaders.simulator.dice import Dice, white
from dataloaders.simulator.settings import RATE

KNOTS_HZ = np.array([0.03, 0.2, 0.8, 3.0, 10.0, 40.0])
"""Where the level between the models is drawn: hum, microseism, wind, village, traffic, electronics."""
_LEVEL_LOW, _LEVEL_HIGH = 0.08, 0.88
_LOW_NOISE = (
    (0.10, -162.36, 5.64), (0.17, -166.7, 0.0), (0.40, -170.0, -8.30), (0.80, -166.4, 28.90), (1.24, -168.60, 52.48),
    (2.40, -159.98, 29.81), (4.30, -141.10, 0.0), (5.00, -71.36, -99.77), (6.00, -97.26, -66.49), (10.00, -132.18, -31.57),
    (12.00, -205.27, 36.16), (15.60, -37.65, -104.33), (21.90, -114.37, -47.10), (31.60, -160.58, -16.28), (45.00, -187.50, 0.0),
    (70.00, -216.47, 15.70), (101.00, -185.00, 0.0), (154.00, -168.34, -7.61), (328.00, -217.43, 11.90), (600.00, -258.28, 26.60),
)  # fmt: skip
_HIGH_NOISE = (
    (0.10, -108.73, -17.23), (0.22, -150.34, -80.50), (0.32, -122.31, -23.87), (0.80, -116.85, 32.51), (3.80, -108.48, 18.08),
    (4.60, -74.66, -32.95), (6.30, 0.66, -127.18), (7.90, -93.37, -22.42), (15.40, 73.54, -162.98), (20.00, -151.52, 10.01),
    (354.80, -206.66, 31.63),
)  # fmt: skip
"""Peterson's tables 3 and 4: from this period in s on, A and B of acceleration in dB = A + B log10(period)."""
_MICROSEISM_HZ = 1.0


def peterson(frequency: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both models as power spectral density of ground velocity, dB relative to (m/s)²/Hz.

    The models are of acceleration and end at 10 Hz; above, acceleration goes on flat. Velocity is 20·log10(2πf) lower.

    Args:
        frequency: ``F``, Hz, positive.

    Returns:
        (low, high), each ``F``.
    """
    period = np.log10(np.maximum(1 / frequency, 0.1))
    speed = 20 * np.log10(2 * np.pi * frequency)
    low, high = (_piecewise(period, np.array(model)) - speed for model in (_LOW_NOISE, _HIGH_NOISE))
    return low, high


def _piecewise(log_period: np.ndarray, model: np.ndarray) -> np.ndarray:
    """Acceleration in dB, ``A + B log10(period)`` with the coefficients of the piece a period lies in."""
    piece = np.searchsorted(np.log10(model[:, 0]), log_period + 1e-12, side="right") - 1
    return model[piece, 1] + model[piece, 2] * log_period


def draw_levels(dice: Dice, noisy: np.ndarray) -> np.ndarray:
    """Levels at :data:`KNOTS_HZ`, ``N 6``, 0 for the low-noise model and 1 for the high.

    The sea decides below 1 Hz, the station and the hour above.

    Args:
        dice: of the traces.
        noisy: ``N``, of their stations.
    """
    sea, hour = dice.uniform(0.08, 0.75), dice.normal(0, 0.08)
    base = [sea + dice.normal(0, 0.1), sea, 0.5 * (sea + noisy)] + [noisy + hour + dice.normal(0, 0.09) for _ in range(3)]
    return np.clip(np.stack(base, 1), _LEVEL_LOW, _LEVEL_HIGH)


class Noise:
    """Spectra of ground noise.

    Args:
        seed: of the virtual dataset.
        length: of the discrete Fourier transform.
    """

    def __init__(self, seed: int, length: int) -> None:
        self.seed = seed
        frequency = np.fft.rfftfreq(length, 1 / RATE)
        self.bins = len(frequency)
        frequency[0] = frequency[1]
        low, high = peterson(frequency)
        to_log = np.log(10) / 20
        half = 0.5 * np.log(RATE * length / 4)
        self._low = (low * to_log + half).astype(np.float32)
        self._range = ((high - low) * to_log).astype(np.float32)
        place = np.interp(np.log(frequency), np.log(KNOTS_HZ), np.arange(len(KNOTS_HZ)))
        self._knot = np.minimum(place.astype(np.int64), len(KNOTS_HZ) - 2)
        self._share = (place - self._knot).astype(np.float32)
        self._slow = int(np.searchsorted(frequency, _MICROSEISM_HZ))

    def amplitude(self, levels: np.ndarray) -> np.ndarray:
        """Standard deviation of the real (and of the imaginary) part of each Fourier coefficient, ``N F`` float32, m/s."""
        levels = levels.astype(np.float32)
        level = levels[:, self._knot] * (1 - self._share) + levels[:, self._knot + 1] * self._share
        return np.exp(self._low + level * self._range)

    def spectrum(self, index: np.ndarray, levels: np.ndarray) -> np.ndarray:
        """Fourier transform of ground velocity of traces, ``N 3 F`` complex64, m/s.

        Components are independent, but for the microseism: Rayleigh waves from one direction, whose horizontal motion is a
        quarter of a period behind the vertical. Each component is up to 1 dB louder or quieter than the trace.

        Args:
            index: ``N``, numbers of the traces.
            levels: ``N 6``, as :func:`draw_levels` gives them.
        """
        dice = Dice(self.seed, index, "noise", 8)
        unit = white(self.seed, index, "noise/phase", 3, 2 * self.bins)
        loud = np.stack([10 ** (dice.uniform(-1, 1) / 20) for _ in range(3)], 1).astype(np.float32)
        unit *= np.repeat(self.amplitude(levels), 2, 1)[:, None]
        spectrum = unit.view(np.complex64)
        shared, direction = dice.uniform(0.3, 0.9), dice.uniform(0, 2 * np.pi)
        vertical = spectrum[:, 0, : self._slow]
        for component, part in ((1, np.cos(direction)), (2, np.sin(direction))):
            bound = (shared * part).astype(np.float32)[:, None]
            own = spectrum[:, component, : self._slow]
            spectrum[:, component, : self._slow] = np.complex64(1j) * bound * vertical + np.sqrt(1 - bound * bound) * own
        spectrum *= loud[:, :, None]
        spectrum[:, :, 0] = 0
        return spectrum
