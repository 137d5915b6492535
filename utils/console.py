"""The console of a run: standard output, in colour in a terminal, plain lines in a file or a SLURM log."""

import sys

from rich.console import Console

LOG_WIDTH = 120
"""Columns assumed where there is no terminal to ask."""


def console() -> Console:
    """A console on what standard output is now (tests and notebooks replace it)."""
    plain = Console(file=sys.stdout, highlight=False)
    return plain if plain.is_terminal else Console(file=sys.stdout, highlight=False, width=LOG_WIDTH)


def count(number: float) -> str:
    """A number in few characters: ``950``, ``12.3 k``, ``19.88 M``."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:.{2 if size > 1e3 else 1}f} {unit}"
    return f"{number:.0f}"


def duration(seconds: float) -> str:
    """A time as a person says it: ``42 s``, ``3:05 min``, ``2:04 h``, ``3 d 4 h``."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    if whole < 48 * 3600:
        return f"{whole // 3600}:{whole % 3600 // 60:02d} h"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"
