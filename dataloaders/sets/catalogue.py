"""Every trace of a list of sets as a few integers: 1.2 million traces are some 50 MB, and nothing else is looked up later."""

import warnings
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from dataloaders.packed.files import is_packed
from dataloaders.packed.index import index_packed
from dataloaders.sets.index import Piece, index_chunk
from dataloaders.sets.layout import Layout
from dataloaders.sets.names import chunks_of, folder_of
from dataloaders.sets.resample import ratio_of
from dataloaders.sets.splits import UNUSED, split_by_event
from utils.errors import DataError


@dataclass(frozen=True)
class Catalogue:
    """Traces as parallel arrays, all of one length; a row number is the trace's fixed number in the source.

    Attributes:
        names: of the sets, as given.
        files: waveform files.
        blocks: names of the blocks, bytes.
        block_file: file of each block.
        layouts: distinct layouts.
        which: set of each trace.
        block, row, first, stored: where it is: block, row in it, first sample, number of samples, at its own rate.
        length: number of samples that windows are cut from: ``stored``, or what resampling makes of it.
        layout: number of its layout.
        rate: its own, in Hz, NaN where unknown.
        ratios: distinct ratios of resampling, the first is 1.
        ratio: number of its ratio: its samples as read for each stored one.
        split: 0 train, 1 dev, 2 test, −1 none.
        event: 64-bit hash of its event's identifier.
        named: whether its metadata name that event; if not, it is an event of its own, whose hash is unique in its set alone.
    """

    names: tuple[str, ...]
    files: tuple[str, ...]
    blocks: np.ndarray
    block_file: np.ndarray
    layouts: tuple[Layout, ...]
    which: np.ndarray
    block: np.ndarray
    row: np.ndarray
    first: np.ndarray
    stored: np.ndarray
    length: np.ndarray
    layout: np.ndarray
    rate: np.ndarray
    ratios: tuple[Fraction, ...]
    ratio: np.ndarray
    split: np.ndarray
    event: np.ndarray
    named: np.ndarray

    def __len__(self) -> int:
        return len(self.block)

    def live(self, traces: np.ndarray) -> np.ndarray:
        """``B 3`` bool: which of Z, N, E these traces have."""
        table = np.array([[at >= 0 for at in layout.take] for layout in self.layouts], bool).reshape(-1, 3)
        return table[self.layout[traces]]

    def at_100_hz(self) -> "Catalogue":
        """The same traces as they are at 100 Hz; those whose rate has no usable ratio to it stay as they are stored."""
        rates, which = np.unique(self.rate, return_inverse=True)
        found = [ratio_of(rate) or Fraction(1) for rate in rates.tolist()]
        ratios = tuple(dict.fromkeys([Fraction(1), *found]))
        if len(ratios) == 1:
            return self
        number = {each: at for at, each in enumerate(ratios)}
        ratio = np.array([number[each] for each in found], np.int32)[which.reshape(-1)]
        up, down = (np.array(part, np.int64)[ratio] for part in zip(*(each.as_integer_ratio() for each in ratios), strict=True))
        return replace(self, ratios=ratios, ratio=ratio, length=-(-self.stored.astype(np.int64) * up // down))

    def onsets(self, traces: np.ndarray, sample: np.ndarray) -> np.ndarray:
        """Onsets in the metadata, counted in stored samples, as samples of the traces as they are read.

        Args:
            traces: ``B`` numbers in the catalogue.
            sample: ``B`` or ``B P`` from the beginning of each trace; NaN stays NaN.

        Returns:
            float64 of the shape of ``sample``, not rounded.
        """
        ratio = np.array([float(each) for each in self.ratios])[self.ratio[traces]]
        sample = np.asarray(sample, np.float64)
        return sample * ratio.reshape(-1, *[1] * (sample.ndim - 1))

    def trace_name(self, trace: int) -> str:
        """Set, block and row of a trace, for messages."""
        block = self.block[trace]
        return f"{self.files[self.block_file[block]]}: {bytes(self.blocks[block]).decode()}, row {self.row[trace]}"


def open_sets(names: list[str], split_seed: int) -> Catalogue:
    """Index sets by name or folder, in the order given, and split those that have no split of their own.

    Raises:
        DataError: a set is missing, incomplete or damaged, or its metadata and waveforms do not belong together.
    """
    pieces = []
    for number, name in enumerate(names):
        of_set = pieces_of(number, name)
        _split(name, of_set, split_seed)
        pieces += of_set
    return join(names, pieces)


def pieces_of(which: int, name: str) -> list[Piece]:
    """The traces of one set, a piece a chunk; a packed set is one piece.

    Args:
        which: number of the set.
        name: of the set, or its folder.

    Raises:
        DataError: as :func:`open_sets`.
    """
    folder = folder_of(name)
    if is_packed(folder):
        return [index_packed(which, folder)]
    return [index_chunk(which, *chunk) for chunk in chunks_of(folder)]


def _split(name: str, pieces: list[Piece], seed: int) -> None:
    """Give a set without a split column a seeded one by event, over all its chunks."""
    if any(piece.has_split for piece in pieces):
        if all((piece.columns["split"] == UNUSED).all() for piece in pieces):
            raise DataError(f"{pieces[0].metadata}, column 'split': no row says train, dev or test")
        return
    if not any(piece.has_events for piece in pieces):
        warnings.warn(
            f"dataset '{name}' says neither split nor event: split by trace, so one event can be in two parts", stacklevel=4
        )
    split = split_by_event(np.concatenate([piece.columns["event"] for piece in pieces]), seed)
    for piece, part in zip(pieces, np.split(split, np.cumsum([len(piece) for piece in pieces])[:-1]), strict=True):
        piece.columns["split"] = part


def join(names: list[str], pieces: list[Piece]) -> Catalogue:
    """The pieces of sets one after the other; they are renumbered in place."""
    columns: dict[str, list[np.ndarray]] = {key: [] for key in pieces[0].columns}
    blocks = layouts = 0
    for piece in pieces:
        piece.columns["block"] = piece.columns["block"] + np.int32(blocks)
        piece.columns["layout"] = piece.columns["layout"] + np.int16(layouts)
        blocks, layouts = blocks + len(piece.blocks), layouts + len(piece.layouts)
        for key, values in piece.columns.items():
            columns[key].append(values)
    # the columns of a single packed set stay mapped, so that processes share them
    joined = {key: values[0] if len(values) == 1 else np.concatenate(values) for key, values in columns.items()}
    return Catalogue(
        names=tuple(names),
        files=tuple(str(piece.waveforms) for piece in pieces),
        blocks=np.concatenate([piece.blocks for piece in pieces]),
        block_file=np.repeat(np.arange(len(pieces), dtype=np.int32), [len(piece.blocks) for piece in pieces]),
        layouts=tuple(layout for piece in pieces for layout in piece.layouts),
        which=np.repeat(np.array([piece.which for piece in pieces], np.int16), [len(piece) for piece in pieces]),
        ratios=(Fraction(1),),
        ratio=np.zeros(len(joined["stored"]), np.int32),
        length=joined["stored"],
        **joined,
    )
