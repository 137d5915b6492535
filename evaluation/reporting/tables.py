"""Tables of figures: a row a source and phase, a column a metric; what is undefined says why."""

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from evaluation.reporting import words
from evaluation.reporting.page import Cell, Table

ALL = "all"
"""Source that stands for all sources together."""


def by_source(rows: pd.DataFrame, caption: str, note: str = "") -> Table:
    """A table of one protocol and split.

    Args:
        rows: of ``metrics.csv``; of figures stated twice the last counts.
        caption: what the table shows.
        note: below it.
    """
    metrics = list(dict.fromkeys(rows["metric"]))
    groups = {key: group.drop_duplicates("metric", keep="last") for key, group in rows.groupby(["source", "phase"], sort=False)}
    phased = bool((rows["phase"] != "").any())
    ordered = sorted(groups.items(), key=lambda item: _place(item[0]))
    heads = ["source", *(["phase"] if phased else []), "windows", "events", *(words.metric(name).title for name in metrics)]
    cells = [_row(key, group.set_index("metric"), metrics, phased=phased) for key, group in ordered]  # type: ignore[arg-type]
    known = [words.metric(name) for name in metrics]
    explained = [(metric.title, metric.meaning) for metric in known if metric.meaning]
    return Table(caption, heads, cells, note, explained)


def headline(rows: pd.DataFrame, wanted: Sequence[tuple[str, str]], caption: str) -> Table | None:
    """The figures that matter most, a row each, a column a source; None where there are none of them.

    Args:
        rows: of ``metrics.csv``, of one split.
        wanted: (protocol, metric) pairs in order.
        caption: what the table shows.
    """
    sources = sorted(dict.fromkeys(rows["source"]), key=lambda source: _place((source, "")))
    body = []
    for protocol, metric in wanted:
        some = rows[(rows["protocol"] == protocol) & (rows["metric"] == metric)]
        for phase in sorted(dict.fromkeys(some["phase"])):
            own = some[some["phase"] == phase].drop_duplicates("source", keep="last").set_index("source")
            title = words.metric(metric).title
            cells = [
                value(own.loc[source], metric) if source in own.index else Cell("not asked", muted=True) for source in sources
            ]
            what = f"{words.protocol(protocol).title}: {f'{phase} ' if phase else ''}{title}"
            body.append([Cell(what, head=True), *cells])
    return Table(caption, ["figure", *(shown(source) for source in sources)], body) if body else None


def value(row: pd.Series, metric: str) -> Cell:
    """A figure with its interval, or why it is undefined."""
    if not math.isfinite(row["value"]):
        return Cell(words.undefined(str(row["note"])), muted=True)
    unit = words.metric(metric).unit
    return Cell(words.written(row["value"], unit), words.interval(row["low"], row["high"], unit))


def facts(rows: Mapping[str, object], caption: str, columns: tuple[str, str]) -> Table:
    """Names and values."""
    return Table(caption, columns, [[Cell(name, head=True), Cell(str(stated))] for name, stated in rows.items()])


def shown(source: str) -> str:
    """A source as it is called in a table."""
    return "all sources" if source in ("", ALL) else source


def amount(numbers: pd.Series) -> str:
    """A count of rows, or the range of it where figures of one row rest on different ones."""
    known = numbers.dropna()
    if known.empty:
        return "–"
    low, high = int(known.min()), int(known.max())
    return f"{high:,}" if low == high else f"{low:,} – {high:,}"


def _row(key: tuple[str, str], group: pd.DataFrame, metrics: Sequence[str], *, phased: bool) -> list[Cell]:
    source, phase = key
    cells = [Cell(shown(source), head=True), *([Cell(phase or "–")] if phased else [])]
    cells += [Cell(amount(group["n"])), Cell(amount(group["events"]))]
    reasons = set(group.loc[group["value"].isna(), "note"])
    if len(reasons) == 1 and group["value"].isna().all() and len(group) == len(metrics):
        return [*cells, Cell(words.undefined(str(reasons.pop())), muted=True, span=len(metrics))]
    absent = Cell("not asked", muted=True)
    return [*cells, *(value(group.loc[name], name) if name in group.index else absent for name in metrics)]


def _place(key: tuple[str, str]) -> tuple[bool, str, str]:
    """Single sources by name, all of them together last."""
    return key[0] in ("", ALL), key[0], key[1]
