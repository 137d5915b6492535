"""What ``annotate`` and ``classify`` may be told, in SeisBench's words, checked before time is lost."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evaluation.sliding import Stacking
from utils.errors import ConfigError, did_you_mean

DEFAULT_THRESHOLD = 0.3
"""Threshold of a phase for which none was chosen on dev."""
CPU_BATCH, GPU_BATCH = 4, 128
"""Windows at a time where nobody says: on a CPU few of them stay in the cache, a GPU wants many."""

DOCUMENTED: dict[str, tuple[str, Any]] = {
    "batch_size": (f"Windows at a time. None: {CPU_BATCH} on a CPU, {GPU_BATCH} elsewhere.", None),
    "overlap": (
        "Overlap between windows. Below 1 it is a share of the window's length, else a number of samples.",
        0.5,
    ),
    "stacking": (
        "How predictions of overlapping windows are combined: 'taper' (mean, weights fall linearly towards a window's edges), "
        "'avg', or 'max'.",
        Stacking.taper.value,
    ),
    "blinding": ("Samples at the beginning and at the end of each window that are not used: (before, after).", (0, 0)),
    "strict": ("Only where all components exist; otherwise a missing one is filled as in training.", False),
    "flexible_horizontal_components": ("Components 1 and 2 stand in for N and E where those are absent.", True),
    "*_threshold": ("Probability from which a phase is picked: P_threshold, S_threshold.", DEFAULT_THRESHOLD),
    "zerophase_resample": ("Only True: the filter before resampling is zero-phase, as in training.", True),
    "parallelism": ("Without effect, as in SeisBench since 0.4; accepted for old notebooks.", None),
    "copy": ("Without effect: the stream is never changed.", True),
}
"""Argument: (documentation, default), as SeisBench keeps them in ``_annotate_args``."""


@dataclass(frozen=True)
class PickOptions:
    """Arguments of ``annotate`` and ``classify``, checked.

    Attributes:
        batch_size: windows at a time; None: by device.
        hop: samples from one window to the next.
        stacking: how overlapping windows are combined.
        blinding: samples not used at a window's beginning and end.
        strict, flexible: see ``DOCUMENTED``.
        thresholds: by phase.
    """

    batch_size: int | None
    hop: int
    stacking: Stacking
    blinding: tuple[int, int]
    strict: bool
    flexible: bool
    thresholds: Mapping[str, float]


def read_options(given: Mapping[str, Any], *, window: int, phases: tuple[str, ...]) -> PickOptions:
    """Arguments over their defaults.

    Args:
        given: by name.
        window: samples of a window.
        phases: that have a threshold.

    Raises:
        ConfigError: every unknown argument and every value that makes no sense, at once.
    """
    names = [*(name for name in DOCUMENTED if "*" not in name), *(f"{phase}_threshold" for phase in phases)]
    wrong = [f"no argument '{name}'.{did_you_mean(name, names)} Known: {', '.join(names)}" for name in given if name not in names]
    values = {name: given.get(name, DOCUMENTED.get(name, DOCUMENTED["*_threshold"])[1]) for name in names}
    thresholds = {phase: values[f"{phase}_threshold"] for phase in phases}
    before, after = values["blinding"]
    overlap = int(values["overlap"] * window) if values["overlap"] < 1 else int(values["overlap"])
    rules = [
        (values["batch_size"] is None or values["batch_size"] >= 1, f"batch_size = {values['batch_size']}: must be at least 1"),
        (0 <= overlap < window, f"overlap = {values['overlap']}: must be 0 … 1, or samples below the window's {window}"),
        (
            before >= 0 and after >= 0 and before + after <= overlap,
            f"blinding = {(before, after)}: must be 0 or more, together at most the overlap of {overlap} samples",
        ),
        (
            values["stacking"] in [how.value for how in Stacking],
            f"stacking = '{values['stacking']}': must be {', '.join(how.value for how in Stacking)}",
        ),
        (
            bool(values["zerophase_resample"]),
            "zerophase_resample = False: the filter is zero-phase. Resample before, if you must",
        ),
        *((0 < value <= 1, f"{phase}_threshold = {value}: must be above 0, at most 1") for phase, value in thresholds.items()),
    ]
    wrong += [text for holds, text in rules if not holds]
    if wrong:
        raise ConfigError(wrong)
    return PickOptions(
        batch_size=values["batch_size"],
        hop=window - overlap,
        stacking=Stacking(values["stacking"]),
        blinding=(int(before), int(after)),
        strict=bool(values["strict"]),
        flexible=bool(values["flexible_horizontal_components"]),
        thresholds=thresholds,
    )
