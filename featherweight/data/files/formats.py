"""JSON and plain text: each reader turns a file into columns and numbered records."""

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from featherweight.data.files.text_file import TextFile
from featherweight.errors import DataError, first_line

logger = logging.getLogger("featherweight")

Values = dict[str, object]  # by column


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be read, although the rows after it can."""

    problem: str  # completes "train.csv, line 7: ..."
    values: Values = field(default_factory=dict)  # what could be read of it


Record = tuple[int, Values | BadRow]  # the number is the line or row, from 1


@dataclass(frozen=True)
class Contents:
    """What a file contains."""

    columns: tuple[str, ...]
    records: Iterator[Record]
    unit: str = "line"  # what the numbers of the records count
    row_count: int | None = None  # if the file declares it
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # by column
    schema: Any = None  # the Arrow schema, if the file declares its types


_FASTTEXT = "__label__"


def starts_with_object(file: TextFile) -> bool:
    """Returns whether the first line is a JSON object, whatever the file's name."""
    first = next(filter(str.strip, file.sample()), "")
    return first.lstrip().startswith("{") and isinstance(_parsed(first), dict)


def read_json_lines(file: TextFile) -> Contents:
    """Reads one JSON object per line; the columns are the keys of all objects.

    They are collected in a first pass over the file, in the order in which they appear.

    Raises:
        DataError: The file is empty, or its first line is not an object.
    """
    columns: dict[str, None] = {}
    for number, values in _objects(file):
        if isinstance(values, dict):
            columns.update(dict.fromkeys(values))
        elif not columns:
            raise DataError(f"{file.name}, line {number}: {values.problem}")
    if not columns:
        raise DataError(f"{file.name} is empty: it needs a JSON object on each line")
    return Contents(tuple(columns), _objects(file))


def _objects(file: TextFile) -> Iterator[Record]:
    for number, line in enumerate(file.lines(), 1):
        if not line.strip():
            continue
        values = _parsed(line)
        if problem := file.problem(line):
            yield number, BadRow(problem)
        elif isinstance(values, dict):
            yield number, values
        elif isinstance(values, Exception):
            yield number, BadRow(f"invalid JSON ({first_line(values)})")
        else:
            yield number, BadRow("not a JSON object with named fields")


def _parsed(text: str) -> Any:
    """Returns the value of a JSON text, or the error; NaN and infinity become null."""
    try:
        return json.loads(text, parse_constant=lambda _: None)
    except (ValueError, RecursionError) as error:
        return error


def read_json(file: TextFile) -> Contents:
    """Reads a JSON array of objects, an object of columns, or JSON lines under the name .json.

    Raises:
        DataError: The file is neither.
    """
    text = "".join(file.lines())
    if not text.strip():
        raise DataError(f"{file.name} is empty: it needs an array of objects")
    values = _parsed(text)
    is_table = isinstance(values, dict) and _nested(values)
    if not (is_table or isinstance(values, list)) and starts_with_object(file):
        return read_json_lines(file)
    if isinstance(values, Exception):
        raise DataError(f"{file.name}: invalid JSON ({first_line(values)})")
    if is_table:
        values = _table(file.name, values)
    if not isinstance(values, list) or not values:
        raise DataError(f"{file.name} must be an array of objects, an object of columns, or lines")
    columns: dict[str, None] = {}
    for row in values:
        columns.update(dict.fromkeys(row if isinstance(row, dict) else ()))
    return Contents(tuple(columns), _rows(values), "row", len(values))


def _nested(values: Mapping[str, Any]) -> bool:
    return bool(values) and all(isinstance(value, (list, dict)) for value in values.values())


def _table(name: str, values: Mapping[str, Any]) -> list[Any]:
    """Returns the rows of an object of columns, or of the only array of an object."""
    columns = [
        list(column.values() if isinstance(column, dict) else column) for column in values.values()
    ]
    if len(columns) == 1 and columns[0] and isinstance(columns[0][0], dict):
        return columns[0]  # such as {"data": [{"text": ...}, ...]}
    if len(set(map(len, columns))) > 1:
        raise DataError(f"{name}: its columns have different lengths")
    return [dict(zip(values, row, strict=True)) for row in zip(*columns, strict=True)]


def _rows(values: list[Any]) -> Iterator[Record]:
    for number, row in enumerate(values, 1):
        yield number, row if isinstance(row, dict) else BadRow("not an object with named fields")


def read_texts(file: TextFile) -> Contents:
    """Reads each line as one text; the lines of fastText keep their label in a second column."""
    if _is_fasttext(file):
        return Contents(("text", "label"), _lines(file, _fasttext_row))
    return Contents(("text",), _lines(file, lambda line: {"text": line}, blank=True))


def read_labeled_lines(file: TextFile, delimiter: str) -> Contents:
    """Reads lines of `text;label`, split at the last semicolon, or of `__label__NAME text`.

    Args:
        file: The file.
        delimiter: Stands before the label instead of a semicolon, if it is not "".

    Raises:
        DataError: The file is empty.
    """
    if not any(map(str.strip, file.sample())):
        raise DataError(f"{file.name} is empty: it needs lines of text;label")
    if _is_fasttext(file):
        return Contents(("text", "label"), _lines(file, _fasttext_row))

    if not any((delimiter or ";") in line for line in file.sample()):  # a hidden test split
        return Contents(("text", "label"), _lines(file, lambda line: {"text": line, "label": None}))

    def row(line: str) -> Values | BadRow:
        text, separator, label = line.rpartition(delimiter or ";")
        if separator:
            return {"text": text, "label": label}
        return BadRow(f"no label; write it after the text and a {delimiter or ';'!r}")

    return Contents(("text", "label"), _lines(file, row))


def _is_fasttext(file: TextFile) -> bool:
    return next(filter(str.strip, file.sample()), "").startswith(_FASTTEXT)


def _fasttext_row(line: str) -> Values | BadRow:
    words = line.split()
    labels = [word for word in words if word.startswith(_FASTTEXT)]
    text = " ".join(word for word in words if not word.startswith(_FASTTEXT))
    if len(labels) == 1:
        return {"text": text, "label": labels[0].removeprefix(_FASTTEXT)}
    found = f"{len(labels)} labels, and one is needed" if labels else "no label"
    return BadRow(f"{found}; write __label__NAME before the text", {"text": text})


def _lines(
    file: TextFile, row: Callable[[str], Values | BadRow], blank: bool = False
) -> Iterator[Record]:
    """Yields the row of each line; blank lines only if they are texts as well."""
    for number, line in enumerate(file.lines(), 1):
        if blank or line.strip():
            problem = file.problem(line)
            yield number, BadRow(problem) if problem else row(line.rstrip("\r\n"))
