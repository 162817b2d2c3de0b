"""What a page shows, as data, and the HTML of it.

A page is read from disk, years later and without a network: everything is inside, and its policy
forbids the browser to ask for anything. Tables are plain HTML; charts and the player need JavaScript.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from html import escape
from importlib.resources import files
from math import isfinite
from pathlib import Path
from typing import Any, Literal

from instantvir_models.errors import UsageError
from instantvir_models.outputs.claim import write_whole
from instantvir_models.report.strips import Strip

Cell = str | float | None
"""Words, a number, or nothing to say."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """What one column of a table says."""

    label: str
    digits: int | None = None
    """Decimals of its numbers; None for words."""
    best: Literal["high", "low"] | None = None
    """Which of its numbers is set in bold."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows that can be sorted by each column."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One of a cloud."""

    label: str
    x: float
    y: float
    group: str = ""
    """Points of one group have one shape."""


@dataclass(frozen=True, kw_only=True)
class Scatter:
    """Points, each with its name."""

    title: str
    x_label: str
    y_label: str
    points: tuple[Point, ...]
    is_x_logarithmic: bool = False
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Line:
    """Numbers in a row."""

    label: str
    values: tuple[float | None, ...]


@dataclass(frozen=True, kw_only=True)
class Bars:
    """A bar for each name, made of parts one after the other."""

    title: str
    value_label: str
    names: tuple[str, ...]
    parts: tuple[Line, ...]
    """Each with a value for every name."""
    most: float | None = None
    """Where the axis ends; None leaves it to the values."""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Lines:
    """Curves over one axis."""

    title: str
    x_label: str
    y_label: str
    x: tuple[str, ...]
    """Names along the axis, as many as a line has values."""
    lines: tuple[Line, ...]
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class View:
    """One version of a video: the measurement, a restoration, the truth."""

    name: str
    strip: Strip
    heat: Strip | None = None
    """Where it is wrong, grey: black for 0, white for `Scene.heat_levels`."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """What is said of it beside the picture, such as its PSNR."""
    curves: tuple[Line, ...] = ()
    """What is known of each frame, by measure."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Versions of one video, frame by frame the same."""

    keys: Mapping[str, str]
    """How it is chosen, such as `{"clip": "dog", "task": "deblur"}`; the same names in each scene."""
    width: int
    """Pixels; views of another size are enlarged to it."""
    height: int
    frames_per_second: float
    views: tuple[View, ...]
    left: str
    """Name of the view that is on the left at first."""
    right: str
    heat_levels: float = 0
    """Error, in 8-bit levels, that is shown as the last colour."""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Player:
    """Scenes to look at: a wipe between two views, in step, with a loupe and a map of errors."""

    title: str
    scenes: tuple[Scene, ...]
    heat_label: str = ""
    """What the map of errors shows."""
    note: str = ""


Item = Table | Scatter | Bars | Lines | Player


@dataclass(frozen=True, kw_only=True)
class Section:
    """Things that belong together."""

    title: str
    lead: str = ""
    items: tuple[Item, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Page:
    """All of it."""

    title: str
    lead: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Figures at the top, by what they are."""
    warnings: tuple[str, ...] = ()
    sections: tuple[Section, ...] = ()
    receipt: Mapping[str, str] = field(default_factory=dict)
    """Command, machine, versions: what the numbers are worth nothing without."""


POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
)
"""A page may run what is in it, and ask nobody for anything."""


def check_page_name(path: Path) -> None:
    """UsageError if `path` is not called as a page is, so that no page takes the place of a video."""
    if path.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"`--report` is `{path}`", hint="a page is called such as `out.html`")


def save_page(page: Page, path: Path, *, may_replace: bool = False) -> None:
    """Write the page, whole or not at all.

    Raises:
        UsageError: if it exists and may not be replaced.
        VideoWriteError: if it cannot be written.
    """
    write_whole(path, html(page), may_replace=may_replace)


def html(page: Page) -> str:
    """The page as one file."""
    drawn = _Drawn()
    body = "\n".join(_body(page, drawn))
    return "\n".join(
        (
            "<!doctype html>",
            '<html lang="en">',
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f"<title>{escape(page.title)}</title>",
            f"<style>{_own('page.css')}</style>",
            f"<body><main>{body}</main>",
            f'<script type="application/json" id="data">{_json(drawn.content())}</script>',
            *([f"<script>{_chart_library()}</script>"] if drawn.items else []),
            f"<script>{_own('page.js')}</script>",
            "</body></html>\n",
        )
    )


class _Drawn:
    """What the script draws, by number, and each picture once."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self._pictures: dict[str, int] = {}

    def add(self, item: Item) -> int:
        """The number under which the script finds it."""
        self.items.append({"kind": type(item).__name__, **self._plain(asdict(item))})
        return len(self.items) - 1

    def content(self) -> dict[str, Any]:
        return {"items": self.items, "pictures": list(self._pictures)}

    def _plain(self, value: Any) -> Any:
        """The value with numbers of pictures in the place of pictures."""
        if isinstance(value, dict):
            return {
                key: self._pictures.setdefault(part, len(self._pictures))
                if key == "data_uri"
                else self._plain(part)
                for key, part in value.items()
            }
        if isinstance(value, (list, tuple)):
            return [self._plain(part) for part in value]
        return None if isinstance(value, float) and not isfinite(value) else value


def _body(page: Page, drawn: _Drawn) -> Iterator[str]:
    yield f"<header><h1>{escape(page.title)}</h1>"
    if page.lead:
        yield f'<p class="lead">{escape(page.lead)}</p>'
    yield _definitions(page.facts, "facts")
    yield "</header>"
    yield from (f'<p class="warning">{escape(warning)}</p>' for warning in page.warnings)
    yield "<noscript><p class='warning'>Charts and pictures need JavaScript.</p></noscript>"
    for section in page.sections:
        yield f"<section><h2>{escape(section.title)}</h2>"
        if section.lead:
            yield f"<p>{escape(section.lead)}</p>"
        yield from (_item(item, drawn) for item in section.items)
        yield "</section>"
    if page.receipt:
        yield '<section class="receipt"><h2>How this was made</h2>'
        yield _definitions(page.receipt, "receipt")
        yield "</section>"


def _definitions(facts: Mapping[str, str], name: str) -> str:
    if not facts:
        return ""
    rows = "".join(
        f"<div><dt>{escape(label)}</dt><dd>{escape(value)}</dd></div>"
        for label, value in facts.items()
    )
    return f'<dl class="{name}">{rows}</dl>'


def _item(item: Item, drawn: _Drawn) -> str:
    title = f"<h3>{escape(item.title)}</h3>" if item.title else ""
    note = f'<p class="note">{escape(item.note)}</p>' if item.note else ""
    if isinstance(item, Table):
        return f'<div class="item">{title}{_table(item)}{note}</div>'
    kind = type(item).__name__.lower()
    return f'<div class="item {kind}" data-item="{drawn.add(item)}">{title}{note}</div>'


def _table(table: Table) -> str:
    best = [_best(table, place) for place in range(len(table.columns))]
    head = "".join(
        f'<th scope="col"{_numeric(column)}><button type="button">{escape(column.label)}'
        "</button></th>"
        for column in table.columns
    )
    rows = "".join(
        "<tr>"
        + "".join(
            _cell(column, cell, is_best=cell is not None and cell == best[place])
            for place, (column, cell) in enumerate(zip(table.columns, row, strict=True))
        )
        + "</tr>"
        for row in table.rows
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _best(table: Table, place: int) -> Cell:
    column = table.columns[place]
    cells = (row[place] for row in table.rows)
    numbers = [cell for cell in cells if isinstance(cell, (int, float)) and isfinite(cell)]
    if column.best is None or len(numbers) < 2:
        return None
    return (max if column.best == "high" else min)(numbers)


def _numeric(column: Column) -> str:
    return "" if column.digits is None else ' class="number"'


def _cell(column: Column, cell: Cell, *, is_best: bool) -> str:
    if cell is None or (isinstance(cell, float) and not isfinite(cell)):
        return f'<td{_numeric(column)} data-value=""></td>'
    is_number = column.digits is not None and isinstance(cell, (int, float))
    text = escape(f"{cell:.{column.digits}f}" if is_number else str(cell))
    return (
        f'<td{_numeric(column)} data-value="{escape(str(cell))}">'
        f"{f'<b>{text}</b>' if is_best else text}</td>"
    )


def _json(content: Any) -> str:
    """JSON that no element of HTML can end."""
    return json.dumps(content, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")


def _own(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")


def _chart_library() -> str:
    """Chart.js as it is published, without the name of a file that debuggers would ask for."""
    text = (files(__package__) / "vendor" / "chart.umd.min.js").read_text(encoding="utf-8")
    return text.partition("//# sourceMappingURL")[0]
