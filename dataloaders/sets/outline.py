"""What a waveform file holds, without its samples: all that is asked of HDF5 before training, asked in a process of its own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from dataloaders.sets.apart import apart
from dataloaders.sets.layout import UNREADABLE, component_axis
from utils.errors import DataError


@dataclass(frozen=True)
class DataFormat:
    """What a waveform file says of itself in its ``data_format`` group.

    Attributes:
        components: axis of the components among a trace's two axes.
        component_order: for traces whose metadata give none; empty where the file gives none either.
        rate: in Hz, NaN where the file gives none.
    """

    components: int
    component_order: str
    rate: float


@dataclass(frozen=True)
class Outline:
    """The blocks of a waveform file.

    Attributes:
        form: what the file says of itself.
        shapes: ``n 4`` int64, of each block asked for: number of axes, then their lengths; 0 where there is no such block.
    """

    form: DataFormat
    shapes: np.ndarray


def outline_of(path: Path, blocks: Sequence[str]) -> Outline:
    """Open a waveform file for the first time. No file makes this process hang or die.

    Args:
        path: of the file.
        blocks: names of the blocks to look for.

    Raises:
        DataError: the file is damaged, so that HDF5 cannot read it, never ends, or crashes; or it holds no waveforms.
    """
    return apart(path, lambda alive: _outline(path, blocks, alive))


def _outline(path: Path, blocks: Sequence[str], alive: Callable[[], None]) -> Outline:
    try:
        with h5py.File(path) as file:
            return Outline(_format(file, path), _shapes(file, path, blocks, alive))
    except UNREADABLE as error:
        raise DataError(f"{path}: damaged or truncated ({error}). Download or write the set again") from error


def _format(file: h5py.File, path: Path) -> DataFormat:
    """The ``data_format`` group; without one, ``CW`` as SeisBench assumes.

    Raises:
        DataError: a dimension order that no trace can have.
    """
    group = file.get("data_format")
    values: dict[str, object] = {}
    if isinstance(group, h5py.Group):
        # by name: HDF5 may walk through a damaged group for ever
        found = {key: group.get(key) for key in ("dimension_order", "component_order", "sampling_rate")}
        values = {key: item[()] for key, item in found.items() if isinstance(item, h5py.Dataset)}
    order = _text(values.get("dimension_order", "CW"))
    axis = component_axis(order)
    if axis is None:
        raise DataError(f"{path}: dimension_order '{order}' is none that a trace can have; known: CW, WC, each also with N")
    rate = float(np.asarray(values.get("sampling_rate", np.nan)).ravel()[0])
    return DataFormat(axis, _text(values.get("component_order", "")), rate)


def _text(value: object) -> str:
    if isinstance(value, np.ndarray):
        return "".join(_text(item) for item in value.tolist())
    return value.decode() if isinstance(value, bytes) else str(value)


def _shapes(file: h5py.File, path: Path, blocks: Sequence[str], alive: Callable[[], None]) -> np.ndarray:
    data = file.get("data")
    if not isinstance(data, h5py.Group):
        raise DataError(f"{path}: there is no group 'data' in it, so it holds no SeisBench waveforms")
    shapes = np.zeros((len(blocks), 4), np.int64)
    for number, name in enumerate(blocks):
        alive()
        item = None if isinstance(data.get(name, getlink=True), h5py.ExternalLink) else data.get(name)
        if isinstance(item, h5py.Dataset) and item.ndim in (2, 3) and _inside(item):
            shapes[number, : item.ndim + 1] = item.ndim, *item.shape
    return shapes


def _inside(block: h5py.Dataset) -> bool:
    """Whether the samples are numbers in this very file: a set must not make a run read other files, or wait for a pipe."""
    return block.dtype.kind in "iuf" and not block.is_virtual and not block.external
