"""Tables of figures: a row a source and phase, a column a metric; what is undefined says why."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from evaluation.reporting import words
from evaluation.reporting.page import Cell, Table
from evaluation.scoring import ALL, Row

WIDEST = 6
"""Metrics in a table."""


def by_source(rows: Sequence[Row], caption: str) -> list[Table]:
    """Tables of one protocol and split; of figures stated twice the last counts.

    Args:
        rows: of ``metrics.csv``.
        caption: what they show.

    Returns:
        One table; where it would be too wide for a page, one for each unit.
    """
    metrics = list(dict.fromkeys(row.metric for row in rows))
    if len(metrics) <= WIDEST:
        return [_by_source(rows, metrics, caption)]
    units = dict.fromkeys(words.metric(name).unit for name in metrics)
    parts = [[name for name in metrics if words.metric(name).unit is unit] for unit in units]
    return [_by_source([row for row in rows if row.metric in part], part, caption) for part in parts]


def _by_source(rows: Sequence[Row], metrics: Sequence[str], caption: str) -> Table:
    groups: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:
        groups.setdefault((row.source, row.phase), {})[row.metric] = row
    phased = any(phase for _, phase in groups)
    heads = ["source", *(["phase"] if phased else []), "windows", "events", *(words.metric(name).title for name in metrics)]
    body = [_row(key, groups[key], metrics, phased=phased) for key in sorted(groups, key=_place)]
    known = [words.metric(name) for name in metrics]
    explained = [(metric.title, metric.meaning) for metric in known if metric.meaning]
    return Table(caption, heads, body, _notes(rows), explained)


def headline(rows: Sequence[Row], wanted: Sequence[tuple[str, str]], caption: str) -> Table | None:
    """The figures that matter most, a row each, a column a source; None where there are none of them.

    Args:
        rows: of ``metrics.csv``, of one split.
        wanted: (protocol, metric) pairs in order.
        caption: what the table shows.
    """
    chosen = [row for row in rows if (row.protocol, row.metric) in wanted]
    sources = sorted({row.source for row in chosen}, key=lambda source: _place((source, "")))
    body = []
    for protocol, metric in wanted:
        own = {(row.phase, row.source): row for row in chosen if (row.protocol, row.metric) == (protocol, metric)}
        for phase in sorted({phase for phase, _ in own}):
            what = f"{words.protocol(protocol).title}: {f'{phase} ' if phase else ''}{words.metric(metric).title}"
            body.append([Cell(what, head=True), *(_cell(own.get((phase, source))) for source in sources)])
    return Table(caption, ["figure", *(shown(source) for source in sources)], body) if body else None


def facts(rows: Mapping[str, str], caption: str, columns: tuple[str, str]) -> Table:
    """Names and values."""
    return Table(caption, columns, [[Cell(name, head=True), Cell(stated)] for name, stated in rows.items()])


def shown(source: str) -> str:
    """A source as it is called in a table."""
    return "all sources" if source in ("", ALL) else source


def together(source: str) -> bool:
    """Whether this stands for all sources of a data set."""
    return source in ("", ALL) or source.startswith(f"{ALL} of ")


def amount(numbers: Sequence[int]) -> str:
    """A count of rows, or its range where figures of one line rest on different ones."""
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} – {high:,}"


def _row(key: tuple[str, str], group: Mapping[str, Row], metrics: Sequence[str], *, phased: bool) -> list[Cell]:
    source, phase = key
    figures = list(group.values())
    cells = [Cell(shown(source), head=True), *([Cell(phase or "–")] if phased else [])]
    cells += [Cell(amount([row.n for row in figures])), Cell(amount([row.events for row in figures]))]
    return [*cells, *_merged([_cell(group.get(name)) for name in metrics])]


def _merged(cells: Sequence[Cell]) -> list[Cell]:
    """Neighbours that are undefined for the same reason say it once."""
    merged: list[Cell] = []
    for cell in cells:
        if merged and cell.muted and merged[-1].muted and merged[-1].text == cell.text:
            merged[-1] = replace(cell, span=merged[-1].span + 1)
        else:
            merged.append(cell)
    return merged


def _cell(row: Row | None) -> Cell:
    """A figure with its interval, or why there is none."""
    if row is None:
        return Cell("not asked", muted=True)
    if not math.isfinite(row.value):
        return Cell(words.undefined(row.note), muted=True)
    unit = words.metric(row.metric).unit
    return Cell(words.written(row.value, unit), words.interval(row.low, row.high, unit))


def _notes(rows: Sequence[Row]) -> list[str]:
    """Remarks on figures that are defined, each once, with the lines they are about."""
    told: dict[str, dict[str, None]] = {}
    for row in rows:
        if row.note and math.isfinite(row.value):
            told.setdefault(row.note, {})[f"{shown(row.source)}{f' {row.phase}' if row.phase else ''}"] = None
    return [f"{', '.join(where)}: {note}." for note, where in told.items()]


def _place(key: tuple[str, str]) -> tuple[bool, str, str]:
    """Single sources by name, all of them together last."""
    return together(key[0]), key[0], key[1]
