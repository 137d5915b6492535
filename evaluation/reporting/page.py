"""A page in one file: text, tables and figures with everything they need inside, so that it opens anywhere and for ever."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

TEMPLATES = Path(__file__).resolve().parent.parent / "templates"
"""Folder of the page's text, style and script."""


@dataclass(frozen=True)
class Cell:
    """What a cell of a table holds.

    Attributes:
        text: its main line.
        small: a smaller line below it: an interval.
        head: whether it names its row.
        muted: whether it says why there is nothing.
        span: columns it takes.
    """

    text: str
    small: str = ""
    head: bool = False
    muted: bool = False
    span: int = 1


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        caption: what it shows, one sentence.
        columns: heads.
        rows: cells; spans add up to the number of columns.
        notes: lines below it.
        explained: (head, meaning) of columns that need it; shown on hovering and listed below.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = ()
    explained: Sequence[tuple[str, str]] = ()
    kind: str = field(default="table", init=False)


@dataclass(frozen=True)
class Figure:
    """A figure.

    Attributes:
        plot: drawn by the reader's browser.
        caption: what it shows.
        alt: what there is to see, for those who do not; "" is the caption.
        narrow: whether it takes half of the page's width.
        title: a line above it.
    """

    plot: go.Figure
    caption: str
    alt: str = ""
    narrow: bool = False
    title: str = ""
    kind: str = field(default="figure", init=False)

    @property
    def height(self) -> int:
        """In pixels, reserved before it is drawn."""
        return int(self.plot.layout.height)  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Words:
    """Paragraphs, or the points of a list; ``folded`` hides them behind a title."""

    lines: Sequence[str]
    listed: bool = False
    kind: str = field(default="words", init=False)


@dataclass(frozen=True)
class Fold:
    """Blocks behind a title, for those who want to know; opened for printing."""

    title: str
    blocks: Sequence["Block"]
    kind: str = field(default="fold", init=False)


Block = Table | Figure | Words | Fold


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        key: its anchor.
        title: its heading.
        lead: a sentence or two below it.
        blocks: what it holds.
    """

    key: str
    title: str
    lead: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
    """A report.

    Attributes:
        title: heading and name of the window.
        facts: (name, value) pairs below it.
        findings: sentences that say what was found.
        caveats: sentences the reader must know before believing a number.
        sections: in order.
    """

    title: str
    facts: Sequence[tuple[str, str]]
    findings: Sequence[str]
    caveats: Sequence[str]
    sections: Sequence[Section]


def render(page: Page) -> str:
    """The page as HTML. Nothing in it asks the network for anything: its content security policy forbids it."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["inert"] = inert
    count = _Counter()
    drawn = any(_has_figures(section.blocks) for section in page.sections)
    library = Markup(get_plotlyjs().replace("</script", "<\\/script")) if drawn else Markup("")
    return environment.get_template("report.html").render(page=page, plotly=library, number=count)


def save(page: Page, path: Path) -> Path:
    """Write the page in one move, so that nobody opens half of it; returns where it is."""
    beside = path.with_suffix(".new")
    beside.write_text(render(page), encoding="utf-8")
    beside.replace(path)
    return path


def inert(figure: go.Figure) -> Markup:
    """A figure as JSON that cannot end the script element it stands in, whatever texts it holds."""
    text = json.dumps(json.loads(str(figure.to_json())), separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


class _Counter:
    """Numbers for figures and tables, each counted by itself."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def __call__(self, kind: str) -> int:
        self.counts[kind] = self.counts.get(kind, 0) + 1
        return self.counts[kind]


def _has_figures(blocks: Sequence[Any]) -> bool:
    return any(block.kind == "figure" or (block.kind == "fold" and _has_figures(block.blocks)) for block in blocks)
