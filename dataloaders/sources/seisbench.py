"""SeisBench sets for pretraining: any list of names or folders, without labels."""

import warnings
from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from math import inf
from typing import final

import numpy as np

from dataloaders.batch import DataSpec
from dataloaders.contracts import SOURCES, Outlook, Part, Source, Split
from dataloaders.mixture import Mixture
from dataloaders.normalise import PrepareConfig
from dataloaders.sets.catalogue import Catalogue, open_sets
from dataloaders.sets.part import TracePart
from dataloaders.sets.published import training_traces
from dataloaders.sets.reader import Reader
from dataloaders.sets.resample import RATE, is_100_hz, known
from dataloaders.sets.splits import SPLITS, in_fraction
from utils.errors import DataError, demand, did_you_mean

_REFUSED = """
Networks see 100 Hz. Resample such traces while reading with dataset.other_rates=resample, or leave them out with \
dataset.other_rates=skip"""
_UNKNOWN = """
Correct column 'trace_sampling_rate_hz' of the metadata, or leave all traces that are not at 100 Hz out with \
dataset.other_rates=skip"""


class OtherRates(str, Enum):
    """What happens to traces that are not sampled at 100 Hz."""

    resample = "resample"
    """Their windows are resampled to 100 Hz while they are read; how many and from which rates is in the table at the start."""
    refuse = "refuse"
    """The run stops before training and names them."""
    skip = "skip"
    """They are left out, and counted in the table at the start."""


@dataclass(kw_only=True)
class SeisBenchConfig(PrepareConfig):
    """Settings of SeisBench sets."""

    dataset_name: list[str] = field(
        default_factory=lambda: ["ETHZ", "GEOFON", "STEAD", "InstanceCounts", "MLAAPDE", "Iquique", "PNW", "OBST2024"]
    )
    """SeisBench names, or folders in SeisBench's format; the default is the published pretraining mixture."""
    weights: dict[str, float] = field(default_factory=dict[str, float])
    """How often an epoch shows each training trace of a set, by its name in ``dataset_name``; 1 for those not named, and
    fractions take the set up where the epoch before left off."""
    samples: int = 4096
    """Length of a window; 4096 samples are 40.96 s."""
    training_fraction: float = 1.0
    """Share of the training events that is used, a nested seeded subset; dev and test never change with it."""
    split_seed: int = 0
    """Decides the 60/10/30 split by event of sets without a split, and the subset of ``training_fraction``."""
    min_samples: int = 400
    """Traces shorter than this are left out; longer ones that do not fill a window are padded."""
    other_rates: OtherRates = OtherRates.resample
    """Traces that are not sampled at 100 Hz: resample them while reading, refuse the set, or skip them."""
    preload: bool = False
    """Keep the waveforms in memory as they are stored (float32 at 100 Hz: 1.2 kB a second and trace)."""
    max_damaged_fraction: float = 0.01
    """Share of a split's traces that may turn out damaged while reading before the run stops."""

    def __post_init__(self) -> None:
        super().__post_init__()
        demand(
            (len(self.dataset_name) > 0, "dataset_name = []: must name at least one set or folder"),
            (len(set(self.dataset_name)) == len(self.dataset_name), f"dataset_name = {self.dataset_name}: names a set twice"),
            *((name in self.dataset_name, self._unknown(name)) for name in self.weights),
            *((0 < weight < inf, f"weights: {name} = {weight}: must be above 0") for name, weight in self.weights.items()),
            (self.samples >= 16, f"samples = {self.samples}: must be at least 16"),
            (0 < self.training_fraction <= 1, f"training_fraction = {self.training_fraction}: must be above 0 and at most 1"),
            (self.min_samples >= 1, f"min_samples = {self.min_samples}: must be at least 1"),
            (0 <= self.max_damaged_fraction <= 1, f"max_damaged_fraction = {self.max_damaged_fraction}: must be 0 … 1"),
        )

    def _unknown(self, name: str) -> str:
        hint = did_you_mean(name, self.dataset_name)
        return f"weights: no set '{name}' in dataset_name.{hint} It has: {', '.join(self.dataset_name)}"


@final
@SOURCES.register("seisbench_auto_reg", SeisBenchConfig)
class SeisBench(Source):
    """SeisBench sets read directly from their files; SeisBench itself is not imported.

    Args:
        cfg: settings.
        seed: of the run, decides where training windows start.

    Raises:
        DataError: a set is missing, damaged, or at a rate that is unknown or refused; says which and what to do.
    """

    def __init__(self, cfg: SeisBenchConfig, *, seed: int) -> None:
        self.cfg = cfg
        self.seed = seed
        self.spec = self.outlook(cfg).spec
        stored = open_sets(cfg.dataset_name, cfg.split_seed)
        self.catalogue = stored.at_100_hz() if cfg.other_rates is OtherRates.resample else stored
        self.usable, self.skipped = choose(self.catalogue, cfg)

    @classmethod
    def outlook(cls, cfg: SeisBenchConfig) -> Outlook:
        """Published sizes of sets that are named; nothing of folders."""
        traces, origin = training_traces(cfg.dataset_name, cfg.weights)
        spec = DataSpec(channels=cfg.d_data, samples=cfg.samples, rate=RATE)
        return Outlook(spec, None if traces is None else round(cfg.training_fraction * traces), origin, stored=True)

    def traces(self, split: Split) -> np.ndarray:
        """Numbers of the traces of a split, after ``training_fraction``."""
        chosen = np.flatnonzero(self.usable & (self.catalogue.split == SPLITS.index(split.value)))
        if split is not Split.train or self.cfg.training_fraction == 1:
            return chosen
        kept = []
        for number in range(len(self.catalogue.names)):
            of_set = chosen[self.catalogue.which[chosen] == number]
            kept.append(of_set[in_fraction(self.catalogue.event[of_set], self.cfg.training_fraction, self.cfg.split_seed)])
        return np.concatenate(kept)

    def leave_out(self, reason: str, traces: np.ndarray) -> None:
        """Leave further traces out, counted beside those skipped already.

        Args:
            reason: for the table: ``"… 12 without arrivals"``.
            traces: ``N`` bool.

        Raises:
            DataError: nothing is left of a set.
        """
        drop(self.catalogue, self.usable, self.skipped, {reason: traces})

    def part(self, split: Split) -> Part:
        """Windows of a split: at random positions for training, in the middle of the trace otherwise."""
        return self.windows(split)

    def windows(self, split: Split) -> TracePart:
        """:meth:`part`, for sources that add labels to it."""
        traces = self.traces(split)
        if len(traces) == 0:
            raise DataError(
                f"{', '.join(self.catalogue.names)}: split '{split.value}' has no usable trace.\n{self.describe()}\n"
                f"Add a set that has this split, or remove column 'split' from the metadata to split by event"
            )
        reader = Reader(self.catalogue, self.cfg.max_damaged_fraction * len(traces))
        if self.cfg.preload:
            reader.preload(traces)
        if split is not Split.train:
            return TracePart(reader, traces, self.spec, None)
        return TracePart(reader, traces, self.spec, self.seed, self.mixture(traces))

    def mixture(self, traces: np.ndarray) -> Mixture | None:
        """How much of each set an epoch of these traces holds; None where all weigh the same as without weights."""
        weights = [self.cfg.weights.get(name, 1.0) for name in self.catalogue.names]
        return Mixture(self.catalogue.which[traces], weights, self.catalogue.names) if set(weights) != {1.0} else None

    def describe(self) -> str:
        """A line a set: traces a split, what was skipped, and how many of the traces used are resampled from which rates."""
        width = max(len("set"), *map(len, self.catalogue.names))
        lines = [f"{'set':<{width}} {'train':>9} {'dev':>9} {'test':>9}  skipped"]
        counts = [np.bincount(self.catalogue.which[self.traces(split)], minlength=len(self.catalogue.names)) for split in Split]
        for number, name in enumerate(self.catalogue.names):
            numbers = " ".join(f"{count[number]:>9,}" for count in counts)
            why = ", ".join(f"{count:,} {reason}" for reason, count in self.skipped[number].items()) or "none"
            from_rates = self.usable & (self.catalogue.ratio > 0) & (self.catalogue.which == number)
            if from_rates.any():
                why += f"; resampled to 100 Hz: {counted_rates(self.catalogue.rate[from_rates])}"
            lines.append(f"{name:<{width}} {numbers}  {why}")
        mixture = self.mixture(self.traces(Split.train))
        return "\n".join(lines if mixture is None else [*lines, mixture.describe()])


def choose(catalogue: Catalogue, cfg: SeisBenchConfig) -> tuple[np.ndarray, list[Counter[str]]]:
    """Which traces can be used, and per set how many cannot and why.

    Raises:
        DataError: traces at another rate where that is refused, at an unknown rate where it is needed; a set of which nothing
            is left.
    """
    return _usable(catalogue, cfg, other_rates(catalogue, cfg.other_rates))


def other_rates(catalogue: Catalogue, how: OtherRates) -> dict[str, np.ndarray]:
    """Which traces are not at 100 Hz as they are read, by reason; warns of those that resampling cannot bring there.

    Raises:
        DataError: as :func:`choose`.
    """
    other = ~is_100_hz(catalogue.rate) & (catalogue.ratio == 0)
    reason = "not at 100 Hz"
    if how is OtherRates.refuse and other.any():
        raise DataError(_concerned(catalogue, other, reason) + _REFUSED)
    if how is OtherRates.resample and other.any():
        reason = "at a rate without a small ratio to 100 Hz"
        unknown = ~known(catalogue.rate)
        if unknown.any():
            raise DataError(_concerned(catalogue, unknown, "at no known rate") + _UNKNOWN)
        warnings.warn(f"{_concerned(catalogue, other, reason)}\nThey are left out", stacklevel=4)
    return {reason: other}


def _usable(catalogue: Catalogue, cfg: SeisBenchConfig, reasons: dict[str, np.ndarray]) -> tuple[np.ndarray, list[Counter[str]]]:
    live = catalogue.live(np.arange(len(catalogue)))
    reasons = (
        {"without samples (skipped.csv of a packed set says why)": catalogue.stored == 0}
        | reasons
        | {
            "without a component Z" if cfg.d_data == 1 else "without a component Z, N or E": ~live[:, : cfg.d_data].any(1),
            f"shorter than {cfg.min_samples} samples": catalogue.length < cfg.min_samples,
            "in no split": catalogue.split < 0,
        }
    )
    usable = np.ones(len(catalogue), bool)
    skipped: list[Counter[str]] = [Counter() for _ in catalogue.names]
    drop(catalogue, usable, skipped, reasons)
    return usable, skipped


def drop(catalogue: Catalogue, usable: np.ndarray, skipped: list[Counter[str]], reasons: dict[str, np.ndarray]) -> None:
    """Take traces out of ``usable`` in place and count them in ``skipped`` by set and reason.

    Raises:
        DataError: nothing is left of a set.
    """
    for reason, wrong in reasons.items():
        for number, count in enumerate(np.bincount(catalogue.which[usable & wrong], minlength=len(catalogue.names)).tolist()):
            if count:
                skipped[number][reason] = count
        usable &= ~wrong
    for number, name in enumerate(catalogue.names):
        if not usable[catalogue.which == number].any():
            why = ", ".join(f"{count:,} {reason}" for reason, count in skipped[number].items())
            raise DataError(f"dataset '{name}': no usable trace: {why}. Remove it from dataset_name, or correct its metadata")


def counted_rates(rates: np.ndarray) -> str:
    """``"15 × 40 Hz, 5 × 20 Hz"``, the eight most frequent."""
    distinct, counts = np.unique(rates, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    found = [f"{counts[at]:,} × {f'{distinct[at]:g} Hz' if np.isfinite(distinct[at]) else 'unknown'}" for at in order.tolist()]
    return ", ".join(found[:8]) + (f" and {len(found) - 8} more" if len(found) > 8 else "")


def _concerned(catalogue: Catalogue, traces: np.ndarray, what: str) -> str:
    """A line a set: how many of its traces are concerned, at which rates, and a file of theirs."""
    lines = []
    for number, name in enumerate(catalogue.names):
        mine = catalogue.which == number
        if (mine & traces).any():
            file = catalogue.files[catalogue.block_file[catalogue.block[int((mine & traces).argmax())]]]
            found = counted_rates(catalogue.rate[mine & traces])
            count = f"{int((mine & traces).sum()):,} of {int(mine.sum()):,}"
            lines.append(f"dataset '{name}' ({file}): {count} traces are {what}: {found}")
    return "\n".join(lines)
