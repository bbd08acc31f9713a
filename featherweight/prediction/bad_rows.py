"""Rows without a text to classify, and what `predict` does with them: `--bad_rows`."""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal, NamedTuple

from featherweight.data.examples import checked_rows
from featherweight.data.files.formats import BadRow, Record, Values
from featherweight.data.rows import Table
from featherweight.errors import DataError, quoted

logger = logging.getLogger("featherweight")

Policy = Literal["blank", "skip", "fail"]

# How programs write a missing value as text: Python, SQL, JSON, pandas and numpy, Excel. "NA" and
# "N/A", which pandas also takes as missing, are words that people write.
_MISSING = frozenset({"None", "NULL", "null", "nan", "NaN", "<NA>", "#N/A"})
_MAX_LISTED = 10


class BadRowError(DataError):
    """A row has no text to classify, and `--bad_rows fail` is given."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"{problem} (or continue past such rows: --bad_rows blank, or skip)")


class Row(NamedTuple):
    """A row of the input."""

    text: str | None  # None: there is none to classify
    values: Values
    problem: str = ""  # why there is none, with the place of the row


@dataclass
class BadRows:
    """The rows of one input that have no text to classify: counted, and the first ten listed."""

    policy: Policy
    count: int = 0
    listed: list[str] = field(default_factory=list)  # problems
    error: BadRowError | None = None  # of the first one, if the policy is to fail

    def add(self, problems: Iterable[str]) -> None:
        """Counts and lists problems of rows."""
        for problem in problems:
            self.count += 1
            if len(self.listed) < _MAX_LISTED:
                self.listed.append(problem)

    def add_all(self, others: "BadRows") -> None:
        """Adds the rows of a later part of the input."""
        self.count += others.count
        self.listed = [*self.listed, *others.listed][:_MAX_LISTED]

    def batches(self, rows: Iterator[Row], size: int) -> Iterator[tuple[list[Row], int]]:
        """Yields the rows to write in batches, each with the number of rows of the input it covers.

        If the policy is to fail, the last batch ends before the first row without a text, and
        `error` is set.
        """
        while not self.error and (read := list(islice(rows, size))):
            kept = self._kept(read)
            yield kept, len(kept) if self.error else len(read)

    def _kept(self, rows: Iterable[Row]) -> list[Row]:
        kept = []
        for row in rows:
            if row.text is None and self.policy == "fail":
                self.error = BadRowError(row.problem)
                break
            if row.text is None:
                self.add([row.problem])
            if row.text is not None or self.policy == "blank":
                kept.append(row)
        return kept

    def report(self) -> None:
        """Logs the number of such rows, and the place and problem of up to ten, if any."""
        if not self.count:
            return
        rows = f"{self.count:,} bad row{'s' if self.count > 1 else ''}"
        outcome = "left out" if self.policy == "skip" else "without a prediction"
        logger.warning("%s, %s:", rows, outcome)
        for problem in self.listed:
            logger.warning("- %s", problem)
        if self.count > len(self.listed):
            logger.warning("- and %s more", f"{self.count - len(self.listed):,}")


def rows_to_classify(rows: Table, text_column: str) -> Iterator[Row]:
    """Returns an iterator of the rows of a file; every kind of missing or empty text is a problem.

    Raises:
        DataError: The column is missing; while iterating, the remaining rows cannot be read.
    """
    records = checked_rows(rows, text_column)
    return rows_of(rows, _without_missing_texts(records, text_column), text_column)


def rows_of(table: Table, records: Iterable[Record], text_column: str) -> Iterator[Row]:
    """Yields a row for each record of a table; only a `BadRow` is one without a text."""
    for number, row in records:
        if isinstance(row, BadRow):
            yield Row(None, row.values, f"{table.place(number)}: {row.problem}")
        else:
            yield Row(str(row[text_column]), row)


def _without_missing_texts(records: Iterable[Record], text_column: str) -> Iterator[Record]:
    column = quoted(text_column)
    for number, row in records:
        if not isinstance(row, BadRow) and (problem := _problem(str(row[text_column]))):
            yield number, BadRow(f"{column} {problem}", row)
        else:
            yield number, row


def _problem(text: str) -> str:
    if not text or text.isspace():
        return "is empty"
    return f"is {text!r}, which stands for no text" if text in _MISSING else ""
