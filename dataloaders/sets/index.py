"""One chunk of a set as integers, checked: its metadata and its waveforms must belong together."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from dataloaders.sets.layout import OPEN, Layout, place, split_name, zne
from dataloaders.sets.metadata import component_orders, events, rates, read_metadata
from dataloaders.sets.outline import outline_of
from dataloaders.sets.splits import UNUSED, own_split
from utils.errors import DataError


@dataclass
class Piece:
    """The traces of one chunk.

    Attributes:
        which: number of the set.
        metadata, waveforms: its files.
        blocks: names of its blocks, bytes.
        layouts: its distinct layouts.
        columns: arrays by name, one entry a trace, as in ``Catalogue``; block and layout are counted within the chunk.
        has_split, has_events: whether the metadata say so.
    """

    which: int
    metadata: Path
    waveforms: Path
    blocks: np.ndarray
    layouts: list[Layout]
    columns: dict[str, np.ndarray]
    has_split: bool
    has_events: bool

    def __len__(self) -> int:
        return len(self.columns["block"])


def index_chunk(which: int, chunk: str, metadata: Path, waveforms: Path) -> Piece:
    """Read a chunk's metadata and find each trace among its waveforms.

    Args:
        which: number of the set, kept in the result.
        chunk: name of the chunk, part of the identity of traces without an event.
        metadata: CSV file.
        waveforms: HDF5 file.

    Raises:
        DataError: damaged, incomplete or contradictory files; names file, column and the first trace concerned.
    """
    table = read_metadata(metadata)
    named = [split_name(name) for name in table["trace_name"]]
    block, unique = pd.factorize(np.array([block for block, _ in named], dtype=object))
    blocks = np.asarray(unique, dtype=object)
    outline = outline_of(waveforms, blocks.tolist())
    form, shapes = outline.form, outline.shapes
    _demand_blocks(shapes, blocks, metadata, waveforms)
    columns, component, stored = _positions(_places(named, metadata), shapes[block], form.components, metadata, named)
    axis = columns.pop("axis")
    layouts, columns["layout"] = _layouts(axis, form.components, component, stored, component_orders(table, form.component_order))
    columns["event"], columns["named"] = events(table, chunk)
    has_split = "split" in table
    columns["block"] = block.astype(np.int32)
    columns["rate"] = rates(table, form.rate).astype(np.float32)
    columns["split"] = own_split(table["split"]) if has_split else np.full(len(block), UNUSED, np.int8)
    encoded = np.array([str(name).encode() for name in blocks])
    return Piece(which, metadata, waveforms, encoded, layouts, columns, has_split, bool(columns["named"].any()))


def _places(named: list[tuple[str, str]], metadata: Path) -> np.ndarray:
    """``N 6`` int64: axis, row, and the two (start, stop)."""
    numbers = np.empty((len(named), 6), np.int64)
    for number, (block, location) in enumerate(named):
        found = place(location)
        if found is None:
            raise DataError(f"{metadata}, column 'trace_name': '{block}${location}' is no location of one trace in a block")
        numbers[number] = found.axis, found.row, *found.first, *found.second
    return numbers


def _demand_blocks(shapes: np.ndarray, blocks: np.ndarray, metadata: Path, waveforms: Path) -> None:
    gone = np.flatnonzero(shapes[:, 0] == 0)
    if len(gone):
        raise DataError(
            f"{metadata}: metadata and waveforms do not belong together. {len(gone)} of {len(blocks)} blocks of the metadata "
            f"are not in {waveforms.name}, first is '{blocks[gone[0]]}'. Download or write the set again"
        )


def _positions(
    numbers: np.ndarray, shapes: np.ndarray, components: int, metadata: Path, named: list[tuple[str, str]]
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """(axis, row, first sample and length of each trace; its first component; how many it has), inside its block's shape."""
    axis, row, every = numbers[:, 0], numbers[:, 1], np.arange(len(numbers))
    size = shapes[every, 1 + np.maximum(axis, 0)]
    outside = (axis >= 0) & ((row >= size) | (row < -size)) | (shapes[:, 0] != np.where(axis >= 0, 3, 2))
    if outside.any():
        raise DataError(
            f"{metadata}: metadata and waveforms do not belong together. {int(outside.sum())} of {len(row)} traces lie outside "
            f"their block, the first is '{'$'.join(named[int(outside.argmax())])}'. Download or write the set again"
        )
    row = np.where((row < 0) & (axis >= 0), row + size, row)
    sizes = [shapes[every, 1 + number + ((axis >= 0) & (axis <= number))] for number in (0, 1)]
    spans = [_clip(numbers[:, 2 + 2 * number : 4 + 2 * number], sizes[number]) for number in (0, 1)]
    (c0, c1), (s0, s1) = spans[components], spans[1 - components]
    columns = {"axis": axis, "row": row.astype(np.int32), "first": s0.astype(np.int32)}
    return columns | {"stored": np.maximum(s1 - s0, 0).astype(np.int32)}, c0, np.maximum(c1 - c0, 0)


def _clip(span: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(start, stop) as Python slices mean them, inside ``0 … size``."""
    start, stop = span[:, 0], np.where(span[:, 1] == OPEN, size, span[:, 1])
    start, stop = (np.where(value < 0, value + size, value) for value in (start, stop))
    return np.clip(start, 0, size), np.clip(stop, 0, size)


def _layouts(
    axis: np.ndarray, components: int, first: np.ndarray, stored: np.ndarray, orders: np.ndarray
) -> tuple[list[Layout], np.ndarray]:
    order, words = pd.factorize(orders)
    keys, number = np.unique(np.stack([axis, first, stored, order], 1), axis=0, return_inverse=True)
    layouts = []
    for row_axis, c0, count, word in keys.tolist():
        take = zne(str(words[word]), count)
        layouts.append(Layout(row_axis, components, (_at(take[0], c0), _at(take[1], c0), _at(take[2], c0))))
    return layouts, number.reshape(-1).astype(np.int16)


def _at(position: int, first: int) -> int:
    return position + first if position >= 0 else -1
