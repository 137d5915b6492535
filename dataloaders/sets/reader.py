"""Reading windows of traces, packed or with h5py: one handle a process, the crop inside the read, neighbours together."""

import os
import warnings
from typing import Any

import h5py
import numpy as np

from dataloaders.packed.shards import Shards
from dataloaders.sets.catalogue import Catalogue
from dataloaders.sets.layout import UNREADABLE, Layout
from dataloaders.sets.resample import reach, resample
from utils.errors import DataError
from utils.workers import reading

_OPEN_BLOCKS = 8192
_EXACT = 2.0**24
"""Integers below this are exact in float32."""


class Reader:
    """Cuts windows out of the traces of a catalogue.

    Safe to pickle and to fork: handles belong to the process that opened them.

    Args:
        catalogue: the traces.
        max_damaged: how many damaged traces one process tolerates before it stops.
    """

    def __init__(self, catalogue: Catalogue, max_damaged: float) -> None:
        self.catalogue = catalogue
        self.max_damaged = max_damaged
        self.damaged: set[int] = set()
        self._memory: dict[int, np.ndarray] = {}
        self._shards = Shards(catalogue)
        self._forget()

    def _forget(self) -> None:
        self._pid = os.getpid()
        self._files: dict[int, Any] = {}
        self._open: dict[int, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_files": {}, "_open": {}, "_pid": -1}

    def preload(self, traces: np.ndarray) -> None:
        """Keep the blocks of these traces in memory; a block that cannot be read whole stays on disk."""
        for block in np.unique(self.catalogue.block[traces]).tolist():
            try:
                if self._shards.blocks[block]:
                    self._shards.preload(block)
                else:
                    self._memory[block] = self._dataset(block)[()]
            except UNREADABLE:
                continue

    def read(self, traces: np.ndarray, start: np.ndarray, count: np.ndarray, samples: int) -> tuple[np.ndarray, np.ndarray]:
        """Windows of traces in counts.

        Args:
            traces: ``B`` numbers in the catalogue.
            start: ``B``, first sample of the window within the trace as it is read (at 100 Hz where it is resampled).
            count: ``B``, samples to read, at most ``samples``; the rest is 0.
            samples: L.

        Returns:
            (``B L 3`` float32 in the order ZNE, stored as ``B 3 L``, missing components 0;
            ``B`` bool, False for a damaged trace, which is all 0).

        Raises:
            DataError: more damaged traces than tolerated.
        """
        packed = self._shards.blocks[self.catalogue.block[traces]]
        if packed.all():
            wave, sound = self._packed(traces, start, count, samples)
        elif not packed.any():
            wave, sound = self._original(traces, start, count, samples)
        else:
            wave, sound = np.empty((len(traces), 3, samples), np.float32), np.empty(len(traces), bool)
            for mine, read in ((packed, self._packed), (~packed, self._original)):
                wave[mine], sound[mine] = read(traces[mine], start[mine], count[mine], samples)
        return wave.transpose(0, 2, 1), sound

    def trace(self, number: int) -> np.ndarray:
        """A whole trace of an original set, ``3 n`` float32 as :meth:`read` gives it.

        Raises:
            one of UNREADABLE: it is damaged.
        """
        length = int(self.catalogue.length[number])
        wave = np.zeros((3, length), np.float32)
        self._cut(number, 0, length, wave)
        return wave

    def _packed(self, traces: np.ndarray, start: np.ndarray, count: np.ndarray, samples: int) -> tuple[np.ndarray, np.ndarray]:
        """:meth:`read` of packed sets, ``B 3 L``."""
        wave, damaged = self._shards.read(traces, start, count, samples)
        sound = np.ones(len(traces), bool)
        for at, error in damaged:
            sound[at] = False
            self._count_damage(int(traces[at]), error)
        return wave, sound

    def _original(self, traces: np.ndarray, start: np.ndarray, count: np.ndarray, samples: int) -> tuple[np.ndarray, np.ndarray]:
        """:meth:`read` of sets in HDF5, ``B 3 L``."""
        if self._pid != os.getpid():
            self._forget()
        wave = np.zeros((len(traces), 3, samples), np.float32)
        sound = np.ones(len(traces), bool)
        blocks = self.catalogue.block[traces]
        for at in np.lexsort((self.catalogue.row[traces], blocks)).tolist():
            reading(int(traces[at]))
            try:
                self._cut(int(traces[at]), int(start[at]), int(count[at]), wave[at])
            except UNREADABLE as error:
                sound[at] = False
                wave[at] = 0
                self._count_damage(int(traces[at]), error)
        return wave, sound

    def _dataset(self, block: int) -> Any:
        if block in self._memory:
            return self._memory[block]
        if block not in self._open:
            if len(self._open) >= _OPEN_BLOCKS:
                self._open.clear()
            number = int(self.catalogue.block_file[block])
            if number not in self._files:
                self._files[number] = h5py.File(self.catalogue.files[number], "r")
            self._open[block] = self._files[number]["data"][bytes(self.catalogue.blocks[block]).decode()]
        return self._open[block]

    def _cut(self, trace: int, start: int, count: int, out: np.ndarray) -> None:
        """Write ``count`` samples of a trace into ``out``, ``3 L``."""
        layout = self.catalogue.layouts[self.catalogue.layout[trace]]
        kept = [at for at in layout.take if at >= 0]
        low, high = min(kept, default=0), max(kept, default=-1) + 1
        cut = self._resampled if self.catalogue.ratio[trace] and count and kept else self._stored
        piece = narrowed(cut(trace, layout, slice(low, high), start, count))
        for component, at in enumerate(layout.take):
            if at >= 0:
                out[component, :count] = piece[at - low]

    def _stored(self, trace: int, layout: Layout, components: slice, start: int, count: int) -> np.ndarray:
        """``C count`` samples of a trace at its own rate."""
        first = int(self.catalogue.first[trace]) + start
        index: list[int | slice] = [components, slice(first, first + count)]
        if layout.components:
            index.reverse()
        if layout.axis >= 0:
            index.insert(layout.axis, int(self.catalogue.row[trace]))
        piece = self._dataset(int(self.catalogue.block[trace]))[tuple(index)]
        return piece.T if layout.components else piece

    def _resampled(self, trace: int, layout: Layout, components: slice, start: int, count: int) -> np.ndarray:
        """``C count`` samples of a trace at 100 Hz, as if all of it were resampled; beyond its ends its last sample goes on."""
        ratio = self.catalogue.ratios[self.catalogue.ratio[trace]]
        first, end = reach(start, count, ratio)
        inside, outside = max(first, 0), min(end, int(self.catalogue.stored[trace]))
        piece = self._stored(trace, layout, components, inside, outside - inside)
        if inside > first or outside < end:
            # zeros instead would make a step of the height of the offset
            piece = np.pad(piece, ((0, 0), (inside - first, end - outside)), "edge")
        skipped = start - first * ratio.numerator // ratio.denominator
        return resample(piece, ratio)[:, skipped : skipped + count]

    def _count_damage(self, trace: int, error: Exception) -> None:
        if not self.damaged:
            warnings.warn(
                f"damaged trace left out, {self.catalogue.trace_name(trace)}: {error}. Further ones are only counted",
                stacklevel=2,
            )
        self.damaged.add(trace)
        if len(self.damaged) > self.max_damaged:
            raise DataError(
                f"{len(self.damaged)} damaged traces, the last is {self.catalogue.trace_name(trace)}: {error}. Download or "
                f"write the set again, or tolerate more with dataset.max_damaged_fraction"
            )


def narrowed(piece: np.ndarray) -> np.ndarray:
    """Samples as float32; large integers and doubles lose their offset first, so that no digit of the signal is lost with it.

    Args:
        piece: ``C n`` of any real type.
    """
    if piece.dtype.kind not in "iuf" or piece.dtype.itemsize <= 2 or piece.dtype == np.float32 or not piece.size:
        return piece.astype(np.float32, copy=False)
    wide = piece.astype(np.float64)
    if np.nanmax(np.abs(wide)) >= _EXACT:
        finite = np.isfinite(wide)
        first = np.take_along_axis(wide, finite.argmax(1)[:, None], axis=1)
        wide = wide - np.nan_to_num(first, nan=0.0, posinf=0.0, neginf=0.0)
    with np.errstate(over="ignore"):
        return wide.astype(np.float32)
