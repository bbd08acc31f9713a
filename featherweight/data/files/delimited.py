"""Delimited text (CSV, TSV): the dialect is recognized, and a bad row does not end the reading."""

import csv
import logging
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice

from featherweight.data.dialect import Dialect
from featherweight.data.files.formats import BadRow, Contents, Record, Values
from featherweight.data.files.text_file import TextFile
from featherweight.errors import DataError

logger = logging.getLogger("featherweight")

Cells = list[str]

_MAX_FIELD = 2**31 - 1  # characters; the csv module's default of 131,072 rejects long texts
_MAX_ROW_LINES = 1_000  # a quote that closes later than this was not meant to open a cell
_TITLES = {",": "commas", ";": "semicolons", "|": "vertical bars", "\t": "tabs"}
_SEP_LINE = re.compile(r'"?sep=(.)"?\s*')  # a line in which spreadsheets name the delimiter
_QUOTED = re.compile(r'"(?:[^"\\]|\\.|"")*"')
_TAB_CELL = re.compile(r'"((?:[^"]|"")*)"(?=\t|$)|([^\t]*)')
_QUOTING = (
    "quote a text that contains a delimiter or a quote and double its quotes, or use --quoting none"
)


@dataclass(frozen=True)
class _Layout:
    """How a file separates and quotes its cells."""

    delimiter: str
    quoted: bool
    escape: str | None = None  # a backslash if it stands before a quote that is not doubled
    space: bool = False  # whether a space follows each delimiter
    width: int = 0  # number of columns; 0 if still unknown

    def split(self, line: str) -> Cells:
        """Splits a line at each delimiter."""
        cells = line.rstrip("\r\n").split(self.delimiter)
        return [cell.lstrip(" ") for cell in cells] if self.space else cells

    def read(self, lines: Iterator[str]) -> Cells:
        """Reads a row with quotes from its lines and takes no line more.

        Raises:
            csv.Error: A quote is not closed, or not followed by a delimiter.
        """
        csv.field_size_limit(_MAX_FIELD)
        return next(
            csv.reader(
                lines, delimiter=self.delimiter, doublequote=self.escape is None,
                escapechar=self.escape, skipinitialspace=self.space, strict=True,
            )
        )  # fmt: skip

    def read_tabs(self, line: str) -> Cells:
        """Reads a row of a TSV file, where a cell is quoted only if it closes on its line."""
        cells, end, line = [], -1, line.rstrip("\r\n")
        while end < len(line):
            match = _TAB_CELL.match(line, end + 1)
            assert match
            quoted, plain = match.groups()
            cells.append(plain if quoted is None else quoted.replace('""', '"'))
            end = match.end()
        return cells if len(cells) == self.width or not self.width else self.split(line)

    def is_blank(self, line: str) -> bool:
        """Returns whether a line has no more than delimiters and spaces."""
        return not line.strip(f"{self.delimiter} \t\r\n")


@dataclass
class _Rows:
    """The rows of a file; counts what is noteworthy about them."""

    lines: Iterator[str]
    layout: _Layout
    number: int = 0  # of the last line taken
    delimiters_only: int = 0
    swallowing: list[int] = field(default_factory=list)  # rows that may contain others
    pending: deque[str] = field(default_factory=deque)  # lines to read again

    def __iter__(self) -> Iterator[tuple[int, Cells | BadRow, str]]:
        """Yields the number of each row's first line, its cells, and its lines as they are."""
        for line in self._following():
            self.number += 1
            number, taken = self.number, [line]
            if self.layout.is_blank(line):
                self.delimiters_only += self.layout.delimiter in line
                continue
            if '"' not in line or not self.layout.quoted:
                yield number, self.layout.split(line), line
            elif self.layout.delimiter == "\t":
                yield number, self.layout.read_tabs(line), line
            else:
                yield number, self._quoted(taken), "".join(taken)
                self.number += len(taken) - 1

    def _following(self) -> Iterator[str]:
        while self.pending or (line := next(self.lines, None)) is not None:
            yield self.pending.popleft() if self.pending else line  # type: ignore[misc]

    def _quoted(self, taken: list[str]) -> Cells | BadRow:
        """Reads a row that may extend over several lines, which are appended to `taken`."""

        def lines() -> Iterator[str]:
            yield taken[0]
            for line in self._following():
                taken.append(line)
                yield line
                if len(taken) == _MAX_ROW_LINES:
                    return

        try:
            cells = self.layout.read(lines())
        except csv.Error as error:
            problem = str(error).partition(" - ")[0]
        else:
            if len(taken) == 1 or not self.layout.width or len(cells) == self.layout.width:
                if len(taken) > 1 and self._contains_rows(cells):
                    self.swallowing.append(self.number)
                return cells
            problem = f"{len(cells)} field(s) on {len(taken)} lines"
        # Only the first line is bad: those after it are read as rows of their own.
        self.pending.extendleft(reversed(taken[1:]))
        del taken[1:]
        return BadRow(f"{problem}; {_QUOTING}")

    def _contains_rows(self, cells: Cells) -> bool:
        """Returns whether a cell looks like rows that a stray quote has swallowed."""
        for cell in cells:
            inner = cell.split("\n")[1:-1]
            if "\n" in cell and "\t" in cell:
                return True
            if inner and all(len(self.layout.split(line)) == len(cells) > 1 for line in inner):
                return True
        return False


def read_delimited(file: TextFile, dialect: Dialect, extension: str) -> Contents:
    """Reads rows of cells below a header.

    Args:
        file: The file.
        dialect: The flags; what they leave open is recognized.
        extension: ".csv" or ".tsv".

    Raises:
        DataError: The file is empty, or its header cannot be read.
    """
    sample = file.sample()
    sep_line = _SEP_LINE.fullmatch(sample[0]) if sample else None
    preamble = 1 if sep_line else 0
    delimiter = dialect.separator or (sep_line[1] if sep_line else "")
    layout = _recognized(file.name, sample[preamble:], dialect, delimiter, extension)
    first = next(iter(_Rows(iter(sample[preamble:]), layout)), None)
    if first is None:
        raise DataError(f"{file.name} is empty: it needs a header line and rows")
    number, header, _ = first
    if isinstance(header, BadRow):
        raise DataError(f"{file.name}, line {number + preamble}: {header.problem}")
    names = [cell.strip() for cell in header] if dialect.header else [""] * len(header)
    columns = tuple(name or f"column_{index}" for index, name in enumerate(names, 1))
    # Spreadsheets add nameless columns at the end, which some rows then lack.
    required = max((index for index, name in enumerate(names, 1) if name), default=len(names))

    def records() -> Iterator[Record]:
        rows = _Rows(file.lines(), replace(layout, width=len(columns)), preamble)
        deque(islice(rows.lines, preamble), maxlen=0)
        for number, cells, raw in islice(rows, 1 if dialect.header else 0, None):
            problem = file.problem(raw)
            yield number, BadRow(problem) if problem else _named(cells, columns, required)
        _log_oddities(file.name, rows)

    return Contents(columns, records())


def _named(cells: Cells | BadRow, columns: tuple[str, ...], required: int) -> Values | BadRow:
    """Returns the cells of a row by column."""
    if isinstance(cells, BadRow):
        return cells
    width = len(columns)
    if len(cells) > width and not any(cells[width:]):
        cells = cells[:width]
    if required <= len(cells) < width:
        cells = [*cells, *[""] * (width - len(cells))]
    values: Values = dict(zip(columns, cells, strict=False))
    if len(cells) == width:
        return values
    return BadRow(f"{len(cells)} field(s), but the header has {width}; {_QUOTING}", values)


def _recognized(
    name: str, sample: list[str], dialect: Dialect, delimiter: str, extension: str
) -> _Layout:
    """Returns the layout that gives all rows of a sample the same number of columns.

    Raises:
        DataError: More than one delimiter does.
    """
    usual = "\t" if extension == ".tsv" else ","
    delimiters = [delimiter] if delimiter else sorted(_TITLES, key=lambda other: other != usual)
    escapes = [None, "\\"] if any('\\"' in line for line in sample) else [None]
    layouts = [
        _spaced(_Layout(candidate, dialect.quoting != "none", escape), sample)
        for candidate in delimiters
        for escape in escapes
    ]
    uniform: dict[str, _Layout] = {}
    for layout in layouts:
        if layout.delimiter not in uniform and _is_uniform(layout, sample):
            uniform[layout.delimiter] = layout
    if len(uniform) > 1:
        titles = " or ".join(_TITLES[candidate] for candidate in uniform)
        raise DataError(f"{name}: columns may be separated by {titles}: give --delimiter")
    (chosen,) = uniform.values() or [layouts[0]]
    if not delimiter and chosen.delimiter != usual:
        logger.info("%s: the columns are separated by %s", name, _TITLES[chosen.delimiter])
    return chosen


def _spaced(layout: _Layout, sample: list[str]) -> _Layout:
    """Returns a layout with `space` set if a space follows each delimiter of the first row."""
    first = next((lines for _, _, lines in _Rows(iter(sample), layout)), "")
    _, *cells = layout.split(_QUOTED.sub("", first))
    return replace(layout, space=bool(cells) and all(cell.startswith(" ") for cell in cells))


def _is_uniform(layout: _Layout, sample: list[str]) -> bool:
    """Returns whether all rows of a sample have the same number of columns, more than one."""
    rows = _Rows(iter(sample), layout)
    widths = set()
    for _, cells, _ in rows:
        if isinstance(cells, BadRow):
            # A row that reaches to the end of the sample may go on after it.
            if rows.pending and next(rows.lines, None) is None:
                break
            return False
        widths.add(len(cells))
        if len(widths) > 1:
            return False
    return bool(widths - {0, 1})


def _log_oddities(name: str, rows: _Rows) -> None:
    """Logs what a reader of the rows should know, if there is anything."""
    if rows.delimiters_only:
        logger.info("%s: %d rows without any content are skipped", name, rows.delimiters_only)
    if rows.swallowing:
        logger.warning(
            "%s, line %d: a cell has line breaks and looks like several rows%s; if a quote is part "
            "of a text there, use --quoting none",
            name, rows.swallowing[0],
            f" ({len(rows.swallowing)} such cells)" if len(rows.swallowing) > 1 else "",
        )  # fmt: skip
