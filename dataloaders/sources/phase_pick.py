"""SeisBench sets with their arrivals, for phase picking."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import final

import numpy as np
import torch

from dataloaders.batch import PICK_CLASSES, Batch, DataSpec, Target
from dataloaders.contracts import SOURCES, Outlook, Part, Source, Split
from dataloaders.sets.arrivals import Arrivals, read_arrivals
from dataloaders.sets.catalogue import Catalogue
from dataloaders.sets.part import Cut, TracePart
from dataloaders.sources.seisbench import SeisBench, SeisBenchConfig
from dataloaders.windows import starts_around
from utils.errors import DataError, demand
from utils.rng import uniform


class Unlabelled(str, Enum):
    """What the absence of a phase means in a trace that has other arrivals."""

    mask = "mask"
    """Nobody picked it: it takes no part in loss and metrics."""
    absent = "absent"
    """It is not there: every sample of the trace is scored as not of this phase, as the published pickers do."""


@dataclass(kw_only=True)
class PhasePickConfig(SeisBenchConfig):
    """Settings of SeisBench sets with arrivals."""

    around_picks: float = 0.67
    """Share of windows that contain an arrival of their trace; the others lie anywhere."""
    margin: int = 50
    """Samples between that arrival and the edges of the window, at least."""
    unlabelled: Unlabelled = Unlabelled.mask
    """A phase without a pick in a trace with other arrivals is unlabelled (mask), or taken as absent."""

    def __post_init__(self) -> None:
        super().__post_init__()
        demand(
            (0 <= self.around_picks <= 1, f"around_picks = {self.around_picks}: must be 0 … 1"),
            (0 <= 2 * self.margin < self.samples, f"margin = {self.margin}: must be 0 or more and below samples / 2"),
        )


@SOURCES.register("seisbench_phase_pick", PhasePickConfig)
@final
class PhasePick(Source):
    """Windows of SeisBench sets with the onsets of P and S in them.

    Args:
        cfg: settings.
        seed: of the run, decides training windows.

    Raises:
        DataError: as :class:`~dataloaders.sources.seisbench.SeisBench`, and where arrivals are absent or unusable.
    """

    def __init__(self, cfg: PhasePickConfig, *, seed: int) -> None:
        self.cfg, self.seed = cfg, seed
        self.sets = SeisBench(cfg, seed=seed)
        self.spec = self.outlook(cfg).spec
        self.arrivals = labels_of(self.sets.catalogue, read_arrivals(cfg.dataset_name), cfg.unlabelled)
        self.sets.leave_out("of an earthquake without a usable P or S pick", ~self.arrivals.labelled)
        self.sets.leave_out("whose event is also in a later split", impure(self.sets.catalogue, self.sets.usable))

    @classmethod
    def outlook(cls, cfg: PhasePickConfig) -> Outlook:
        """As of the same sets without arrivals; traces left out for theirs are not known yet."""
        sets = SeisBench.outlook(cfg)
        return replace(sets, spec=replace(sets.spec, target=Target.picks, classes=PICK_CLASSES))

    def part(self, split: Split) -> Part:
        """Windows of a split. Those of dev and test are drawn once and for all, in the same way as those of training."""
        windows = self.sets.windows(split)
        return PickPart(windows, self.arrivals, self.cfg, self.spec, self.seed if split is Split.train else None)

    def describe(self) -> str:
        """Traces a split and set, and what their arrivals are."""
        lines = [self.sets.describe()]
        phase = self.arrivals.phase[self.sets.usable]
        known = self.arrivals.known[self.sets.usable]
        lines.append(
            f"arrivals: {(phase == 0).sum():,} P, {(phase == 1).sum():,} S; {(~known[:, 0]).sum():,} traces with unlabelled P, "
            f"{(~known[:, 1]).sum():,} with unlabelled S; {self.arrivals.noise[self.sets.usable].sum():,} of noise"
        )
        lines += [f"{count:,} {what}" for what, count in self.arrivals.skipped.items()]
        return "\n".join(lines)


AT_ONCE = 2**18
"""Traces whose arrivals become labels at once: in float64, those of millions would take half a gigabyte for a second."""


@dataclass(frozen=True)
class Labels:
    """Usable arrivals of every trace of a catalogue, in samples as the traces are read (100 Hz).

    Attributes:
        onset: ``N P`` int32, −1: none.
        phase: ``N P`` int8, 0 for P, 1 for S, −1: none.
        known: ``N 2`` bool, whether P (S) of the trace is labelled.
        labelled: ``N`` bool, traces with an arrival, or of noise: those that can be learnt from.
        noise: ``N`` bool.
        skipped: what was left out, and how often.
    """

    onset: np.ndarray
    phase: np.ndarray
    known: np.ndarray
    labelled: np.ndarray
    noise: np.ndarray
    skipped: Counter[str]


def labels_of(catalogue: Catalogue, arrivals: Arrivals, unlabelled: Unlabelled) -> Labels:
    """Arrivals as labels: those outside their trace are left out and counted, as are repetitions of the same onset.

    Args:
        catalogue: of the same sets, in the same order.
        arrivals: as the metadata have them.
        unlabelled: what the absence of a phase means.
    """
    onset, phase = np.empty(arrivals.sample.shape, np.int32), np.empty(arrivals.sample.shape, np.int8)
    outside = repeated = 0
    for traces in np.split(np.arange(len(onset)), range(AT_ONCE, len(onset), AT_ONCE)):
        onset[traces], phase[traces], out, again = _onsets(catalogue, arrivals, traces)
        outside, repeated = outside + out, repeated + again
    any_other = arrivals.picked().any(1, keepdims=True)
    known = arrivals.picked() | ~any_other if unlabelled is Unlabelled.mask else np.ones((len(onset), 2), bool)
    skipped = Counter({"arrivals outside their trace": outside, "repeated arrivals": repeated})
    skipped.update({f"arrivals of {name}, neither P nor S": count for name, count in arrivals.other.items()})
    return Labels(
        onset=onset,
        phase=phase,
        known=known,
        labelled=(phase >= 0).any(1) | arrivals.noise,
        noise=arrivals.noise,
        skipped=Counter({what: count for what, count in skipped.items() if count}),
    )


def _onsets(catalogue: Catalogue, arrivals: Arrivals, traces: np.ndarray) -> tuple[np.ndarray, np.ndarray, int, int]:
    """``onset`` and ``phase`` of some traces as in :class:`Labels`; how many arrivals lie outside, how many are repeated."""
    exact, length = catalogue.onsets(traces, arrivals.sample[traces]), catalogue.length[traces, None]
    given, phase = np.isfinite(exact), arrivals.phase[traces]
    inside = given & (exact >= 0) & (exact < length)
    onset = np.minimum(np.rint(exact), length - 1)
    repeated = np.zeros_like(inside)
    for column in range(1, onset.shape[1]):  # in time order: equal onsets of a phase are neighbours or nearly so
        same = (onset[:, :column] == onset[:, column, None]) & (phase[:, :column] == phase[:, column, None])
        repeated[:, column] = (same & inside[:, :column]).any(1)
    keep = inside & ~repeated
    found = np.where(keep, onset, -1).astype(np.int32), np.where(keep, phase, -1).astype(np.int8)
    return *found, int((given & ~inside).sum()), int(repeated.sum())


def impure(catalogue: Catalogue, usable: np.ndarray) -> np.ndarray:
    """``N`` bool: traces of train whose event is also in dev or test, and of dev whose event is also in test.

    Left out, so that no earthquake is learnt from and judged by; test never changes. Traces that name no event (noise) share
    none, though names of traces repeat from set to set.
    """
    wrong = np.zeros(len(catalogue), bool)
    for earlier, later in ((0, (1, 2)), (1, (2,))):
        judged = catalogue.event[usable & catalogue.named & np.isin(catalogue.split, later)]
        wrong |= (catalogue.split == earlier) & catalogue.named & np.isin(catalogue.event, judged)
    return wrong


@final
class PickPart(Part):
    """One split: windows with their onsets.

    Args:
        windows: cuts and reads windows of the split's traces.
        labels: of all traces of the catalogue.
        cfg: settings.
        spec: of its batches.
        seed: of the run in training; None: windows that never change.
    """

    def __init__(self, windows: TracePart, labels: Labels, cfg: PhasePickConfig, spec: DataSpec, seed: int | None) -> None:
        if not (labels.phase[windows.traces] >= 0).any():
            raise DataError(
                f"{', '.join(cfg.dataset_name)}: a split has no arrival of P or S among its {len(windows.traces)} traces, so "
                "there is nothing to pick. Add a set that has some, or remove column 'split' to split by event"
            )
        self.windows, self.labels, self.cfg, self.spec, self.seed = windows, labels, cfg, spec, seed
        self.mixture = windows.mixture

    def __len__(self) -> int:
        """Number of traces."""
        return len(self.windows)

    def name(self, trace: int) -> str:
        """Its file, block and row."""
        return self.windows.name(trace)

    def cut(self, keys: Sequence[tuple[int, int]]) -> Cut:
        """Where windows lie: around one of the trace's arrivals, or anywhere."""
        cut = self.windows.cut(keys)
        epoch = cut.epoch if self.seed is not None else np.zeros_like(cut.epoch)
        seed = self.cfg.split_seed if self.seed is None else self.seed
        chance = uniform(seed, epoch, cut.trace, "window/picks", 4)
        onset = self.labels.onset[cut.trace]
        length = self.windows.reader.catalogue.length[cut.trace]
        around = starts_around(onset, length, self.spec.samples, margin=self.cfg.margin, chance=chance[:, :2])
        anywhere = (chance[:, 2] * (np.maximum(length - self.spec.samples, 0) + 1)).astype(np.int64)
        start = np.where((chance[:, 3] < self.cfg.around_picks) & (around >= 0), around, anywhere)
        return Cut(cut.trace, start, np.minimum(length - start, self.spec.samples), cut.epoch)

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> Batch:
        """Raw windows with their onsets."""
        cut = self.cut(keys)
        batch = self.windows.read(cut)
        onset = self.labels.onset[cut.trace].astype(np.int64) - cut.start[:, None]
        outside = (self.labels.phase[cut.trace] < 0) | (onset < 0) | (onset >= cut.count[:, None])
        return batch._replace(
            onsets=torch.from_numpy(np.where(outside, -1, onset)),
            phases=torch.from_numpy(self.labels.phase[cut.trace].astype(np.int64)),
            known=torch.from_numpy(self.labels.known[cut.trace]),
        )
