"""Reading windows out of shards: announced, then read with ``pread`` straight into the batch, and converted all at once."""

import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dataloaders.packed.encode import decode
from dataloaders.packed.files import MANIFEST, TRACES
from dataloaders.packed.index import load_table
from dataloaders.sets.catalogue import Catalogue
from utils.workers import reading

_OPEN_SHARDS = 256
"""Shards that a process keeps open; a system allows a thousand files or so."""
_BYTES = 2
"""Of a sample."""


class _Span(NamedTuple):
    """The window of one trace.

    Attributes:
        at: position in the batch.
        to: sample of the batch's buffer at which it begins.
        block: number of its shard.
        first: sample of the shard at which the window begins in the first component.
        stored: samples from there to the next component.
        count: samples of the window.
        layout: number of its layout.
    """

    at: int
    to: int
    block: int
    first: int
    stored: int
    count: int
    layout: int


class Shards:
    """The shards of the packed sets of a catalogue.

    Memory maps were tried: in memory they are 2.5 times slower, and from a disk they fault in page by page.
    Safe to pickle, and to fork, since ``pread`` shares no position in a file.

    Args:
        catalogue: the traces; other sets in it are of no concern here.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        files = [Path(file) for file in catalogue.files]
        self._folders = {number: file.parent for number, file in enumerate(files) if file.name == MANIFEST}
        self.blocks = np.isin(catalogue.block_file, list(self._folders))
        """Bool, one a block of the catalogue: whether it is a shard."""
        self._takes = [[(c, at) for c, at in enumerate(layout.take) if at >= 0] for layout in catalogue.layouts]
        self._memory: dict[int, bytes] = {}
        self._open: dict[int, int] = {}
        self._tables: dict[int, np.ndarray] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": {}, "_tables": {}}

    def __del__(self) -> None:
        for handle in self._open.values():
            os.close(handle)

    def _path(self, block: int) -> Path:
        return self._folders[int(self.catalogue.block_file[block])] / bytes(self.catalogue.blocks[block]).decode()

    def preload(self, block: int) -> None:
        """Keep a shard in memory."""
        self._memory[block] = self._path(block).read_bytes()

    def read(
        self, traces: np.ndarray, start: np.ndarray, count: np.ndarray, samples: int
    ) -> tuple[np.ndarray, list[tuple[int, OSError]]]:
        """Windows of traces in counts.

        Args:
            traces: ``B`` numbers in the catalogue, all of packed sets.
            start: ``B``, first sample of the window within the trace.
            count: ``B``, samples to read, at most ``samples``; the rest is 0.
            samples: L.

        Returns:
            (``B 3 L`` float32, missing components 0; position in the batch and error of each trace that could not be read,
            which is 0).
        """
        packed = np.zeros((len(traces), 3, samples), np.float16)
        flat = packed.data.cast("B")
        block, first = self.catalogue.block[traces], self.catalogue.first[traces].astype(np.int64)
        order = np.lexsort((first, block))
        columns = (block, first + start, self.catalogue.stored[traces], count, self.catalogue.layout[traces])
        spans = [
            _Span(at, at * 3 * samples, *span)
            for at, *span in zip(order.tolist(), *(column[order].tolist() for column in columns), strict=True)
        ]
        damaged = []
        for work in (self._announce, self._pull):
            failed = {at for at, _ in damaged}
            for span in spans:
                reading(int(traces[span.at]))
                try:
                    if span.at not in failed:
                        work(span, samples, flat)
                except OSError as error:
                    damaged.append((span.at, error))
        wave = decode(packed, *self._factors(traces))
        for at in np.flatnonzero(count < samples).tolist():
            wave[at, :, count[at] :] = 0
        for at, _ in damaged:
            wave[at] = 0
        return wave, damaged

    def _announce(self, span: _Span, samples: int, flat: memoryview) -> None:
        """Tell the system what will be read, so that a disk serves a whole batch at once and no neighbours with it.

        From a cold disk a quarter of the bytes come; in memory it costs a tenth of the time.
        """
        if span.block in self._memory or sys.platform != "linux":
            return
        handle = self._handle(span.block)
        for _, place in self._takes[span.layout]:
            source = _BYTES * (span.first + place * span.stored)
            os.posix_fadvise(handle, source, _BYTES * span.count, os.POSIX_FADV_WILLNEED)

    def _pull(self, span: _Span, samples: int, flat: memoryview) -> None:
        """The window of one trace into a batch: its components are ``stored`` samples apart there, and ``samples`` here."""
        size = _BYTES * span.count
        for component, place in self._takes[span.layout]:
            low, source = _BYTES * (span.to + component * samples), _BYTES * (span.first + place * span.stored)
            target = flat[low : low + size]
            if span.block in self._memory:
                piece = self._memory[span.block][source : source + size]
                got = len(piece)
                target[:got] = piece
            else:
                got = os.preadv(self._handle(span.block), [target], source)
            if got != size:
                raise OSError(f"{self._path(span.block)} ends {size - got} bytes too early")

    def _handle(self, block: int) -> int:
        if block not in self._open:
            if len(self._open) >= _OPEN_SHARDS:
                os.close(self._open.pop(next(iter(self._open))))
            self._open[block] = handle = os.open(self._path(block), os.O_RDONLY | os.O_CLOEXEC)
            if sys.platform == "linux":
                os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_RANDOM)
        return self._open[block]

    def _factors(self, traces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scale and offset of each trace, ``B 3`` float32 each."""
        scale, offset = (np.empty((len(traces), 3), np.float32) for _ in range(2))
        files = self.catalogue.block_file[self.catalogue.block[traces]]
        for file in np.unique(files).tolist():
            if file not in self._tables:
                self._tables[file] = load_table(self._folders[file] / TRACES)
            mine = files == file
            rows = self._tables[file][self.catalogue.row[traces[mine]]]
            scale[mine], offset[mine] = rows["scale"], rows["offset"]
        return scale, offset
