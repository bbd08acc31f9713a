"""Tables with typed columns: Parquet, Arrow (Feather), Excel."""

import datetime
import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Any

from featherweight.data.files.formats import Contents, Record
from featherweight.errors import DataError, first_line, requires

logger = logging.getLogger("featherweight")

_BATCH_ROWS = 1024  # rows in memory at a time
_PARQUET, _ARROW, _ARROW_STREAM, _ZIP = b"PAR1", b"ARROW1", b"\xff\xff\xff\xff", b"PK\x03\x04"
_OLD_EXCEL = b"\xd0\xcf\x11\xe0"


def is_columnar(start: bytes) -> bool:
    """Returns whether the first bytes of a file are those of a format in this module."""
    return start.startswith((_PARQUET, _ARROW, _ARROW_STREAM, _ZIP, _OLD_EXCEL))


def read_columnar(name: str, file: IO[bytes]) -> Contents:
    """Reads a file whose format is determined by its first bytes.

    Args:
        name: The file's name for messages.
        file: Its content, seekable and at its start.

    Raises:
        DataError: The file is corrupt, or of a format that cannot be read.
        MissingExtraError: A library is not installed.
    """
    start = file.read(len(_ARROW))
    file.seek(0)
    if start.startswith(_OLD_EXCEL):
        raise DataError(f"{name} is an Excel file of before 2007: save it as .xlsx or .csv")
    if start.startswith(_ZIP):
        return _excel(name, file)
    with requires("train"):
        import pyarrow
        import pyarrow.ipc
        from pyarrow.parquet import ParquetFile
    errors = (pyarrow.ArrowException, OSError, UnicodeDecodeError)
    try:
        if start.startswith(_PARQUET):
            parquet = ParquetFile(file)
            schema, batches = parquet.schema_arrow, parquet.iter_batches(_BATCH_ROWS)
            row_count = int(parquet.metadata.num_rows)
        elif start.startswith(_ARROW):
            table = pyarrow.ipc.open_file(file)
            schema, row_count = table.schema, None
            batches = (table.get_batch(index) for index in range(table.num_record_batches))
        else:
            batches, row_count = pyarrow.ipc.open_stream(file), None
            schema = batches.schema
    except errors as error:
        kind = "Parquet" if start.startswith(_PARQUET) else "Arrow"
        raise DataError(f"{name} is not a valid {kind} file ({first_line(error)})") from error
    records = _records(name, batches, errors)
    return Contents(tuple(schema.names), records, "row", row_count, _class_names(schema), schema)


def _records(
    name: str, batches: Iterable[Any], errors: tuple[type[Exception], ...]
) -> Iterator[Record]:
    number = 0
    try:
        for batch in batches:
            # Unchecked, the offsets in a damaged file may point outside of its memory.
            batch.validate(full=True)
            for start in range(0, batch.num_rows, _BATCH_ROWS):
                for values in batch.slice(start, _BATCH_ROWS).to_pylist():
                    number += 1
                    yield number, values
    except errors as error:
        reason = first_line(error)
        raise DataError(f"{name}, after row {number}: corrupt ({reason})") from error


def _class_names(schema: Any) -> Mapping[str, tuple[str, ...]]:
    """Returns the names of integer labels that the `datasets` library stores in a schema."""
    try:
        metadata = json.loads((schema.metadata or {})[b"huggingface"])
        return {
            column: tuple(map(str, feature["names"]))
            for column, feature in metadata["info"]["features"].items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}


def _excel(name: str, file: IO[bytes]) -> Contents:
    """Reads the first sheet of an Excel file that has rows; its first row is the header."""
    with requires("excel"):
        from openpyxl import load_workbook
    try:
        workbook = load_workbook(file, read_only=True, data_only=True)
        sheets = [sheet for sheet in workbook.worksheets if next(_cells(sheet), None)]
    except Exception as error:  # the library raises whatever its parsers do
        raise DataError(f"{name} is not a valid .xlsx file ({first_line(error)})") from error
    if not sheets:
        raise DataError(f"{name} is empty: it needs a header and rows")
    if len(sheets) > 1:
        logger.warning(
            "%s: only the sheet %r is read; it has %d sheets with rows",
            name, sheets[0].title, len(sheets),
        )  # fmt: skip
    _, header = next(_cells(sheets[0]))
    while header and not header[-1]:
        header.pop()
    columns = tuple(cell or f"column_{index}" for index, cell in enumerate(header, 1))

    def records() -> Iterator[Record]:
        rows = _cells(sheets[0])
        next(rows)
        for number, cells in rows:
            padded = [*cells, *[""] * (len(columns) - len(cells))]
            yield number, dict(zip(columns, padded, strict=False))

    return Contents(columns, records(), "row", sheets[0].max_row)


def _cells(sheet: Any) -> Iterator[tuple[int, list[str]]]:
    """Yields the number and the cells of each row that is not empty, as they are displayed."""
    for number, row in enumerate(sheet.iter_rows(values_only=True), 1):
        cells = [_displayed(cell) for cell in row]
        if any(cells):
            yield number, cells


def _displayed(cell: Any) -> str:
    if cell is None:
        return ""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return cell.isoformat() if isinstance(cell, datetime.datetime) else str(cell)
