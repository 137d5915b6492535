"""One split of a catalogue as windows; labels can be added to what it cuts."""

from collections.abc import Sequence
from typing import NamedTuple, final

import numpy as np
import torch

from dataloaders.batch import Batch, DataSpec
from dataloaders.contracts import Part
from dataloaders.mixture import Mixture
from dataloaders.sets.reader import Reader
from dataloaders.windows import centre_starts, covered, random_starts


class Cut(NamedTuple):
    """Where the windows of a batch lie: everything that labels need.

    Attributes:
        trace: ``B`` int64, numbers in the catalogue.
        start: ``B`` int64, first sample of the window within the trace.
        count: ``B`` int64, samples of the window that the trace reaches.
        epoch: ``B`` int64.
    """

    trace: np.ndarray
    start: np.ndarray
    count: np.ndarray
    epoch: np.ndarray


@final
class TracePart(Part):
    """Windows of some traces of a catalogue, without labels.

    Args:
        reader: reads them.
        traces: their numbers in the catalogue.
        spec: what batches look like.
        seed: of the run, decides where random windows start; None: windows in the middle.
        mixture: of weighted sets.
    """

    def __init__(
        self, reader: Reader, traces: np.ndarray, spec: DataSpec, seed: int | None, mixture: Mixture | None = None
    ) -> None:
        self.reader = reader
        self.traces = traces
        self.spec = spec
        self.seed = seed
        self.mixture = mixture

    def __len__(self) -> int:
        return len(self.traces)

    def name(self, trace: int) -> str:
        """Its file, block and row."""
        return self.reader.catalogue.trace_name(trace)

    def cut(self, keys: Sequence[tuple[int, int]]) -> Cut:
        """Where the windows of ``(epoch, position)`` keys lie."""
        epoch, position = np.asarray(keys, np.int64).reshape(-1, 2).T
        trace = self.traces[position].astype(np.int64)
        length = self.reader.catalogue.length[trace].astype(np.int64)
        samples = self.spec.samples
        if self.seed is None:
            start = centre_starts(length, samples)
        else:
            start = random_starts(length, samples, seed=self.seed, epoch=epoch, index=trace)
        return Cut(trace, start, np.minimum(length - start, samples), epoch)

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> Batch:
        """Raw windows in counts, three components; a damaged trace is 0 and wholly invalid."""
        return self.read(self.cut(keys))

    def read(self, cut: Cut) -> Batch:
        """The windows of a cut."""
        wave, sound = self.reader.read(cut.trace, cut.start, cut.count, self.spec.samples)
        live = self.reader.catalogue.live(cut.trace) & sound[:, None]
        return Batch(
            wave=torch.from_numpy(wave),
            valid=torch.from_numpy(covered(cut.count, self.spec.samples) & sound[:, None]),
            live=torch.from_numpy(live),
            index=torch.from_numpy(cut.trace),
            epoch=torch.from_numpy(np.ascontiguousarray(cut.epoch)),
        )
