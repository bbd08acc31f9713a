"""A table of figures, rendered by text.py and page.py: each column turns an item into a cell."""

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any, Literal, NamedTuple

from featherweight.reports.numbers import DASH


class Cell(NamedTuple):
    """A cell of a table.

    Attributes:
        text: The value as shown.
        key: What the page sorts by: a number, "" for last, None for the text.
        note: A remark after the value.
        detail: A further remark, on the page only.
        flag: "noisy", "wrong", "better", "worse", "same" or nothing.
    """

    text: str
    key: float | str | None = None
    note: str = ""
    detail: str = ""
    flag: str = ""


MISSING = Cell(DASH, key="")


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        name: Its header.
        cell: Returns its cell of an item.
        group: Header that neighboring columns share on the page.
        left: Whether it is aligned left.
        short: Its header in text, where that differs from `name`.
        joined: Format with which text appends the cell to the one before, such as " / {}".
        only: "page" or "text" if only that shows it.
    """

    name: str
    cell: Callable[[Any], Cell]
    group: str = ""
    left: bool = False
    short: str = ""
    joined: str = ""
    only: Literal["", "page", "text"] = ""


class Table(NamedTuple):
    """A table with one row per item; the first column names the item.

    Attributes:
        title: What the figures are.
        columns: How each column shows an item.
        items: What the rows are about.
        note: A line to show below it.
    """

    title: str
    columns: Sequence[Column]
    items: Sequence[Any]
    note: str = ""

    def shown_in(self, medium: Literal["page", "text"]) -> "Table":
        """Returns the table with the columns of a medium only."""
        return self._replace(columns=[c for c in self.columns if c.only in ("", medium)])

    @property
    def rows(self) -> list[list[Cell]]:
        """The cells of each row."""
        return [[column.cell(item) for column in self.columns] for item in self.items]

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Name and number of columns of each group."""
        groups = groupby(self.columns, key=lambda column: column.group)
        return [(name, len(list(members))) for name, members in groups]
