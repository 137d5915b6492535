"""Seismograms out of the simulator: a fixed virtual dataset of any size, with nothing to download."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch

from dataloaders.batch import Batch, DataSpec, Target
from dataloaders.contracts import SOURCES, Outlook, Part, Source, Split
from dataloaders.normalise import PrepareConfig
from dataloaders.simulator import PHASES, RATE, Simulator, SimulatorConfig, Traces
from utils.errors import DataError, demand
from utils.rng import uniform

FIRST_NUMBER = {Split.train: 0, Split.dev: 1 << 40, Split.test: 2 << 40}
"""Number of the first trace of each split: far apart, so that splits never share an earthquake, whatever their sizes."""
_CACHE_BLOCK = 256


@dataclass(kw_only=True)
class SyntheticConfig(PrepareConfig, SimulatorConfig):
    """A simulated dataset; trace ``i`` of a split depends on ``simulation_seed`` and ``i`` alone."""

    traces: int = 20_000
    """Traces of the training split. A smaller number takes the first of them: nested subsets, for studies of label fractions."""
    traces_dev: int = 1_000
    """Traces of the validation split."""
    traces_test: int = 1_000
    """Traces of the test split."""
    simulation_seed: int = 42
    """Which earthquakes and stations; not the run's seed, so that runs with different seeds compare. 0 or more."""
    samples: int = 4096
    """Window length at 100 Hz: at random within the trace in training, in its middle in validation and test."""
    cache: bool = False
    """Keep simulated traces in memory, 90 kB each in every worker process, for when training waits for the simulator."""

    def __post_init__(self) -> None:
        PrepareConfig.__post_init__(self)
        SimulatorConfig.__post_init__(self)
        counts = {"traces": self.traces, "traces_dev": self.traces_dev, "traces_test": self.traces_test}
        demand(
            *((0 <= count < 1 << 40, f"{name} = {count}: must be 0 … 2^40 − 1") for name, count in counts.items()),
            (0 <= self.simulation_seed < 2**32, f"simulation_seed = {self.simulation_seed}: must be 0 … {2**32 - 1}"),
            (
                64 <= self.samples <= self.trace_samples,
                f"samples = {self.samples}: must be 64 … trace_samples = {self.trace_samples}",
            ),
        )


@SOURCES.register("synthetic", SyntheticConfig)
@final
class Synthetic(Source):
    """Simulated earthquakes and noise, labelled with the onsets of P and S.

    Args:
        cfg: how many, and which.
        seed: of the run; decides the windows of training.
    """

    def __init__(self, cfg: SyntheticConfig, *, seed: int) -> None:
        self.cfg, self.seed = cfg, seed
        self.spec = self.outlook(cfg).spec

    @classmethod
    def outlook(cls, cfg: SyntheticConfig) -> Outlook:
        """As many traces as asked for."""
        spec = DataSpec(channels=cfg.d_data, samples=cfg.samples, rate=RATE, target=Target.picks, classes=("P", "S", "N"))
        return Outlook(spec, cfg.traces, "dataset.traces", stored=False)

    def part(self, split: Split) -> "SyntheticPart":
        """The traces of a split.

        Raises:
            DataError: the configuration gives the split no traces.
        """
        name = {Split.train: "traces", Split.dev: "traces_dev", Split.test: "traces_test"}[split]
        count = int(getattr(self.cfg, name))
        if count == 0:
            raise DataError(f"dataset 'synthetic': split '{split.value}' is empty. Set dataset.{name} to a number above 0.")
        return SyntheticPart(self.cfg, self.seed, split, count, self.spec)

    def describe(self) -> str:
        """Sizes and ranges, in a line."""
        cfg = self.cfg
        return (
            f"synthetic, simulation seed {cfg.simulation_seed}: {cfg.traces} train, {cfg.traces_dev} dev, "
            f"{cfg.traces_test} test traces of "
            f"{cfg.trace_samples / RATE:g} s; magnitude {cfg.magnitude_min:g} to {cfg.magnitude_max:g}, "
            f"{cfg.distance_min_km:g} to {cfg.distance_max_km:g} km, travel times of {cfg.earth_model.value}"
        )


@final
class SyntheticPart(Part):
    """One split of :class:`Synthetic`.

    Args:
        cfg: as of the source.
        seed: of the run; decides the windows of training.
        split: which.
        count: its traces.
        spec: of its batches.
    """

    def __init__(self, cfg: SyntheticConfig, seed: int, split: Split, count: int, spec: DataSpec) -> None:
        self.cfg, self.seed, self.split, self.spec = cfg, seed, split, spec
        self._count = count
        self._simulator: Simulator | None = None
        self._cache: dict[int, Traces] = {}

    def __len__(self) -> int:
        """Number of traces."""
        return self._count

    def __getstate__(self) -> dict[str, object]:
        """What travels to a worker process: the settings; tables and cache are made again there."""
        return {**self.__dict__, "_simulator": None, "_cache": {}}

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> Batch:
        """Windows of the traces at ``(epoch, position)``.

        The trace does not depend on the epoch; in training the position of its window does.
        """
        epoch, position = np.array(keys, dtype=np.int64).reshape(-1, 2).T
        index = position + FIRST_NUMBER[self.split]
        wave, valid, live, onsets = self._traces(position)
        samples, spare = self.cfg.samples, self.cfg.trace_samples - self.cfg.samples
        start = np.full(len(position), spare // 2)
        if self.split is Split.train:
            start = (uniform(self.seed, epoch, index, "synthetic/crop", 1)[:, 0] * (spare + 1)).astype(np.int64)
        out = np.empty((len(index), samples, self.cfg.d_data), np.float32)
        inside = np.empty((len(index), samples), bool)
        for row, first in enumerate(start):
            out[row] = wave[row, : self.cfg.d_data, first : first + samples].T
            inside[row] = valid[row, first : first + samples]
        shifted = onsets - start[:, None]
        shifted[(onsets < 0) | (shifted < 0) | (shifted >= samples)] = -1
        return Batch(
            wave=torch.from_numpy(out),
            valid=torch.from_numpy(inside),
            live=torch.from_numpy(live[:, : self.cfg.d_data].copy()),
            index=torch.from_numpy(index),
            epoch=torch.from_numpy(epoch.copy()),
            onsets=torch.from_numpy(shifted),
            phases=torch.from_numpy(np.tile(PHASES, (len(index), 1))),
            known=torch.ones(len(index), 2, dtype=torch.bool),
        )

    def _traces(self, position: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(wave ``B 3 N``, valid ``B N``, live ``B 3``, onsets ``B 4``), from the simulator or from memory."""
        if self._simulator is None:
            self._simulator = Simulator(self.cfg, self.cfg.simulation_seed)
        if not self.cfg.cache:
            traces = self._simulator(position + FIRST_NUMBER[self.split])
            return traces.wave, traces.valid, traces.live, traces.onsets
        for block in np.unique(position // _CACHE_BLOCK).tolist():
            if block not in self._cache:
                numbers = np.arange(block * _CACHE_BLOCK, min((block + 1) * _CACHE_BLOCK, self._count))
                self._cache[block] = self._simulator(numbers + FIRST_NUMBER[self.split])
        found = [(self._cache[at // _CACHE_BLOCK], at % _CACHE_BLOCK) for at in position.tolist()]
        return (
            np.stack([traces.wave[row] for traces, row in found]),
            np.stack([traces.valid[row] for traces, row in found]),
            np.stack([traces.live[row] for traces, row in found]),
            np.stack([traces.onsets[row] for traces, row in found]),
        )
