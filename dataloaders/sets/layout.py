"""Where a trace lies in an HDF5 block: SeisBench's trace names, dimension orders and component orders, as numbers."""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

UNREADABLE = (OSError, KeyError, RuntimeError, ValueError, TypeError, OverflowError, MemoryError)
"""What h5py raises for bytes that are not as they were written, depending on where they lie."""

OPEN = 2**31 - 1
"""Stands for the end of an axis in a location that leaves it open."""
_USUAL = re.compile(r"(\d+),:(\d+),:(\d+)\Z")
_TARGET = ("Z", "N1", "E2")


class Place(NamedTuple):
    """A location string as numbers.

    Attributes:
        axis: axis that holds the trace's row, −1 where the trace is the whole block.
        row: index on that axis.
        first, second: (start, stop) on the remaining two axes, in their order; stop may be ``OPEN`` or negative.
    """

    axis: int
    row: int
    first: tuple[int, int]
    second: tuple[int, int]


@dataclass(frozen=True)
class Layout:
    """How a trace is stored in its block.

    Attributes:
        axis: axis of the trace's row, −1 where the trace is the whole block.
        components: which of the other two axes holds the components, 0 or 1.
        take: positions of Z, N, E on that axis, −1 where missing.
    """

    axis: int
    components: int
    take: tuple[int, int, int]


def split_name(trace_name: str) -> tuple[str, str]:
    """``"bucket0$12,:3,:6000"`` to block ``"bucket0"`` and location ``"12,:3,:6000"``; ``":,:"`` for a trace stored singly."""
    block, _, location = trace_name.partition("$")
    return block, location or ":,:"


def place(location: str) -> Place | None:
    """A location in NumPy's notation as numbers; None where it is no single trace of two axes."""
    usual = _USUAL.match(location)
    if usual:
        row, first, second = map(int, usual.groups())
        return Place(0, row, (0, first), (0, second))
    return _unusual(location)


@lru_cache(maxsize=4096)
def _unusual(location: str) -> Place | None:
    rows: list[tuple[int, int]] = []
    spans: list[tuple[int, int]] = []
    try:
        for axis, part in enumerate(location.replace(" ", "").split(",")):
            ends = part.split(":")
            if len(ends) == 1:
                rows.append((axis, int(part)))
            elif len(ends) == 2 or ends[2:] in ([""], ["1"]):
                spans.append((int(ends[0] or 0), int(ends[1] or OPEN)))
            else:
                return None
    except ValueError:
        return None
    if len(rows) > 1 or len(spans) > 2:
        return None
    spans += [(0, OPEN)] * (2 - len(spans))
    axis, row = rows[0] if rows else (-1, 0)
    return Place(axis, row, spans[0], spans[1])


def component_axis(dimension_order: str) -> int | None:
    """Which of a trace's two axes holds the components (0 or 1), for ``CW``, ``NCW``, ``WC`` …; None for any other order."""
    order = dimension_order.replace("N", "")
    return {"CW": 0, "WC": 1}.get(order)


def zne(order: str, stored: int) -> tuple[int, int, int]:
    """Positions of Z, N and E among the stored components; −1 where one is missing.

    Unoriented horizontals 1 and 2 stand in for N and E, as in SeisBench's ``flexible_horizontal_components``; every other
    letter (H, a hydrophone) is left out.

    Args:
        order: component order such as ``"ZNE"``, ``"ENZ"``, ``"Z12H"`` (separators are ignored).
        stored: how many components the block really holds.
    """
    letters = order.upper().replace(" ", "").replace(",", "")[:stored]
    found = []
    for wanted in _TARGET:
        hits = [letters.index(letter) for letter in wanted if letter in letters]
        found.append(hits[0] if hits else -1)
    return found[0], found[1], found[2]
