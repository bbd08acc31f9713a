"""Tables of a page, with headers that sort: what a cell shows, and what it is sorted by."""

import itertools
from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

DASH = "–"


class Column(NamedTuple):
    """A column: its header, the header above that neighbors share, its CSS class."""

    name: str
    group: str = ""
    kind: str = ""


class Cell(NamedTuple):
    """A cell: ready HTML, and what it is sorted by (None: by its text; "": last)."""

    html: str
    key: str | None = None


MISSING = Cell(DASH, key="")


def text(value: str, note: str = "") -> Cell:
    """Returns a cell that shows a text as it stands, with a smaller note below it."""
    return Cell(escape(value) + (f"<small>{escape(note)}</small>" if note else ""))


def number(value: float | None, form: str, note: str = "", sign: str = "") -> Cell:
    """Returns a cell that shows a number and sorts by it; a dash, sorted last, where it is None.

    Args:
        value: The number.
        form: Format of the number, as ".4f".
        note: Text in small below it.
        sign: Ready HTML before it.
    """
    if value is None:
        return MISSING
    small = f"<small>{escape(note)}</small>" if note else ""
    return Cell(f"{sign}{value:{form}}{small}", key=repr(float(value)))


def table(name: str, columns: Sequence[Column], rows: Iterable[Sequence[Cell]]) -> str:
    """Returns a table in a frame that scrolls; the first cell of a row is its header.

    Args:
        name: What it is called, for those who hear the page.
        columns: The columns.
        rows: A cell a column each.
    """
    body = "\n".join(_row(columns, cells) for cells in rows)
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(name)}">\n'
        f"<table>\n<thead>\n{_head(columns)}</thead>\n<tbody>\n{body}\n</tbody>\n</table>\n</div>"
    )


def _head(columns: Sequence[Column]) -> str:
    names = "".join(
        f'<th scope="col" aria-sort="none"{_kind(column)}>'
        f'<button type="button">{escape(column.name)}</button></th>'
        for column in columns
    )
    groups = [
        (group, len(list(members)))
        for group, members in itertools.groupby(column.group for column in columns)
    ]
    spans = "".join(
        f'<th scope="colgroup" colspan="{width}">{escape(group)}</th>'
        if group
        else f'<td colspan="{width}"></td>'
        for group, width in groups
    )
    above = f"<tr>{spans}</tr>\n" if any(group for group, _ in groups) else ""
    return f"{above}<tr>{names}</tr>\n"


def _row(columns: Sequence[Column], cells: Sequence[Cell]) -> str:
    first, *others = cells
    data = "".join(
        f"<td{_kind(column)}{_key(cell)}>{cell.html}</td>"
        for column, cell in zip(columns[1:], others, strict=True)
    )
    return f'<tr><th scope="row">{first.html}</th>{data}</tr>'


def _kind(column: Column) -> str:
    return f' class="{column.kind}"' if column.kind else ""


def _key(cell: Cell) -> str:
    return "" if cell.key is None else f' data-key="{escape(cell.key)}"'
