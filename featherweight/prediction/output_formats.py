"""Formats of a file of predictions: each turns a batch of rows into appendable content."""

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, Protocol

from featherweight.data.files.formats import Values
from featherweight.data.rows import Rows, file_format
from featherweight.errors import DataError, UsageError, first_line, quoted, requires
from featherweight.prediction.answers import Answer
from featherweight.prediction.cells import csv_cell, to_json, write_rows

AnsweredRow = tuple[Answer, Values]  # the answer to a row, and its values by column

_STRINGS = (".csv", ".tsv", ".txt", "")  # formats without types; "" is the standard input
_GROUP_BATCHES = 64  # batches per row group of a Parquet file


class OutputFormat(Protocol):
    """How predictions are written; sent to every worker process."""

    columns: tuple[str, ...]  # of the answers
    resumable: bool  # whether an interrupted file can be continued

    def batch(self, rows: Sequence[AnsweredRow]) -> Any:
        """Returns the content for a batch."""
        ...

    @contextmanager
    def appending(
        self, file: IO[bytes], resumed: bool = False
    ) -> Iterator[Callable[[Any], object]]:
        """Yields a function that appends such content to an open file, empty or resumed."""
        yield file.write


@dataclass(frozen=True)
class CsvFormat(OutputFormat):
    """CSV: the text, the answer, every other column."""

    columns: tuple[str, ...]
    text_column: str
    others: tuple[str, ...]
    raw: bool  # do not escape cells that a spreadsheet would execute as formulas

    resumable = True

    @contextmanager
    def appending(
        self, file: IO[bytes], resumed: bool = False
    ) -> Iterator[Callable[[Any], object]]:
        """Writes the header line to an empty file, its names unchanged."""
        if not resumed:
            file.write(self._lines([(self.text_column, *self.columns, *self.others)], raw=True))
        yield file.write

    def batch(self, rows: Sequence[AnsweredRow]) -> bytes:
        """Returns one line per row."""
        size = len(self.columns)
        lines = [
            (
                csv_cell(values.get(self.text_column)),
                *answer[:size],
                *(csv_cell(values.get(column)) for column in self.others),
            )
            for answer, values in rows
        ]
        return self._lines(lines, self.raw)

    def _lines(self, rows: Sequence[Sequence[object]], raw: bool) -> bytes:
        lines = io.StringIO(newline="")
        write_rows(lines, rows, raw)
        return _utf8(lines.getvalue())


@dataclass(frozen=True)
class JsonLinesFormat(OutputFormat):
    """JSON lines: the values of the row with their types, followed by the answer."""

    columns: tuple[str, ...]

    resumable = True

    def batch(self, rows: Sequence[AnsweredRow]) -> bytes:
        """Returns one JSON object per line and row."""
        return _utf8("".join(f"{to_json(values)}\n" for values in _joined(self.columns, rows)))


@dataclass(frozen=True)
class ParquetFormat(OutputFormat):
    """Parquet: the columns of the row with their types, followed by the answer."""

    columns: tuple[str, ...]
    schema: Any  # the Arrow schema of the file

    resumable = False  # the index of a Parquet file is written at its end

    def batch(self, rows: Sequence[AnsweredRow]) -> Any:
        """Returns an Arrow table."""
        import pyarrow

        return pyarrow.Table.from_pylist(list(_joined(self.columns, rows)), self.schema)

    @contextmanager
    def appending(
        self, file: IO[bytes], resumed: bool = False
    ) -> Iterator[Callable[[Any], object]]:
        """Yields a function that appends tables, combined into larger row groups."""
        import pyarrow
        from pyarrow.parquet import ParquetWriter

        tables: list[Any] = []
        with ParquetWriter(file, self.schema) as writer:

            def append(table: Any) -> None:
                tables.append(table)
                if len(tables) == _GROUP_BATCHES:
                    writer.write_table(pyarrow.concat_tables(tables))
                    tables.clear()

            yield append
            if tables:
                writer.write_table(pyarrow.concat_tables(tables))


def output_format(
    extension: str, rows: Rows, text_column: str, columns: tuple[str, ...], raw: bool
) -> OutputFormat:
    """Returns the format of an output.

    Args:
        extension: Extension of the output file, such as ".csv".
        rows: The input.
        text_column: Its column with the texts.
        columns: Names of the columns with the answers.
        raw: See `PredictConfig`.

    Raises:
        UsageError: The extension is not supported, or not with this input.
        MissingExtraError: The format is Parquet and pyarrow is not installed.
    """
    if extension == ".csv":
        others = tuple(column for column in rows.columns if column != text_column)
        return CsvFormat(columns, text_column, others, raw)
    if extension in (".jsonl", ".ndjson"):
        return JsonLinesFormat(columns)
    if extension == ".parquet":
        return ParquetFormat(columns, with_answers(input_schema(rows), columns))
    raise UsageError(
        f"--output_path: give a .csv, .jsonl or .parquet file, not {quoted(extension)}"
    )


def with_answers(schema: Any, columns: Sequence[str]) -> Any:
    """Returns an Arrow schema with the columns of the answers added."""
    import pyarrow

    types = pyarrow.int64(), pyarrow.string(), pyarrow.float64(), pyarrow.int64()
    for column, of_type in zip(columns, types, strict=False):
        schema = schema.append(pyarrow.field(column, of_type))
    return schema


def input_schema(rows: Rows) -> Any:
    """Returns the Arrow schema of an input, in which the values of text formats are strings.

    Raises:
        UsageError: The input does not declare the types of its columns.
        MissingExtraError: pyarrow is not installed.
    """
    with requires("train"):
        import pyarrow
        from pyarrow.parquet import read_schema
    if rows.path.suffix.lower() == ".parquet":
        try:
            # The metadata of pandas describes the original columns only.
            return read_schema(rows.path).remove_metadata()
        except pyarrow.ArrowException as error:
            raise DataError(f"{rows} is not a valid Parquet file ({first_line(error)})") from error
    if file_format(rows.path) in _STRINGS:
        return pyarrow.schema([(column, pyarrow.string()) for column in rows.columns])
    raise UsageError(
        f"--output_path: Parquet output needs an input that declares the types of its columns, "
        f".csv, .tsv, .txt or uncompressed .parquet, not {rows}: give a .jsonl file"
    )


def _joined(columns: Sequence[str], rows: Sequence[AnsweredRow]) -> Iterator[Values]:
    """Yields the values of each row with its answer."""
    for answer, values in rows:
        yield values | dict(zip(columns, answer.values(), strict=False))


def _utf8(text: str) -> bytes:
    # Half of a surrogate pair, which is not valid UTF-8, becomes its JSON escape.
    return text.encode(errors="backslashreplace")
