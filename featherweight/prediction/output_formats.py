"""Formats of a file of predictions: each turns a batch of rows into appendable content."""

import io
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from featherweight.data.rows import Rows, file_format
from featherweight.errors import DataError, UsageError, requires
from featherweight.prediction.cells import PREDICTION_COLUMNS, write_rows

# (class id, label name, confidence); (None, "", confidence) below the minimum confidence
Prediction = tuple[int | None, str, str]
PredictedRow = tuple[str, Prediction, dict[str, object]]  # (text, prediction, values by column)

_GROUP_BATCHES = 64  # batches per row group of a Parquet file


class OutputFormat(Protocol):
    """How predictions are written; sent to every worker process."""

    resumable: bool  # whether an interrupted file can be continued

    def batch(self, rows: Sequence[PredictedRow]) -> Any:
        """Returns the content for a batch."""
        ...

    @contextmanager
    def appending(self, file: IO[bytes]) -> Iterator[Callable[[Any], object]]:
        """Yields a function that appends such content to an open file, empty or resumed."""
        yield file.write


@dataclass(frozen=True)
class CsvFormat(OutputFormat):
    """CSV: the text, the prediction, every other column."""

    text_column: str
    others: tuple[str, ...]
    raw: bool  # do not escape cells that a spreadsheet would execute as formulas

    resumable = True

    @contextmanager
    def appending(self, file: IO[bytes]) -> Iterator[Callable[[Any], object]]:
        """Writes the header line to an empty file."""
        if not file.tell():
            file.write(self._lines([(self.text_column, *PREDICTION_COLUMNS, *self.others)]))
        yield file.write

    def batch(self, rows: Sequence[PredictedRow]) -> bytes:
        """Returns one line per row."""
        return self._lines(
            [
                (text, *prediction, *(values.get(column, "") for column in self.others))
                for text, prediction, values in rows
            ]
        )

    def _lines(self, rows: Sequence[Sequence[object]]) -> bytes:
        lines = io.StringIO(newline="")
        write_rows(lines, rows, self.raw)
        return _utf8(lines.getvalue())


@dataclass(frozen=True)
class JsonLinesFormat(OutputFormat):
    """JSON lines: the values of the row with their types, followed by the prediction."""

    resumable = True

    def batch(self, rows: Sequence[PredictedRow]) -> bytes:
        """Returns one JSON object per line and row."""
        lines = [
            json.dumps(values | _json_values(prediction), ensure_ascii=False, default=str)
            for _, prediction, values in rows
        ]
        return _utf8("".join(f"{line}\n" for line in lines))


@dataclass(frozen=True)
class ParquetFormat(OutputFormat):
    """Parquet: the columns of the row with their types, followed by the prediction."""

    schema: Any  # the Arrow schema of the file

    resumable = False  # the index of a Parquet file is written at its end

    def batch(self, rows: Sequence[PredictedRow]) -> Any:
        """Returns an Arrow table."""
        import pyarrow

        values = [values | _json_values(prediction) for _, prediction, values in rows]
        return pyarrow.Table.from_pylist(values, self.schema)

    @contextmanager
    def appending(self, file: IO[bytes]) -> Iterator[Callable[[Any], object]]:
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


def apply_min_confidence(prediction: tuple[int, str, str], min_confidence: float) -> Prediction:
    """Returns a prediction, without its label if the confidence is too low."""
    confidence = prediction[2]
    return prediction if float(confidence) >= min_confidence else (None, "", confidence)


def output_format(output_path: Path, rows: Rows, text_column: str, raw: bool) -> OutputFormat:
    """Returns the format for the extension of the output file; for the flags, see `PredictConfig`.

    Raises:
        UsageError: The extension is not supported, or not with this input.
        MissingExtraError: The format is Parquet and pyarrow is not installed.
    """
    extension = output_path.suffix.lower()
    if extension == ".csv":
        others = tuple(column for column in rows.columns if column != text_column)
        return CsvFormat(text_column, others, raw)
    if extension in (".jsonl", ".ndjson"):
        return JsonLinesFormat()
    if extension == ".parquet":
        return ParquetFormat(output_schema(rows))
    raise UsageError(f"--output_path {output_path}: give a .csv, .jsonl or .parquet file")


def output_schema(rows: Rows) -> Any:
    """Returns the Arrow schema of the output: the columns of the input and of the prediction.

    Raises:
        UsageError: The input does not declare the types of its columns.
        MissingExtraError: pyarrow is not installed.
    """
    with requires("train"):
        import pyarrow
        from pyarrow.parquet import read_schema
    kind = file_format(rows.path)
    if kind in (".jsonl", ".ndjson") or (rows.path.suffix == ".gz" and kind == ".parquet"):
        raise UsageError(
            f"--output_path: Parquet needs column types, which {rows} does not declare; "
            "give a .jsonl file"
        )
    if kind == ".parquet":
        try:
            # The metadata of pandas describes the original columns only.
            schema = read_schema(rows.path).remove_metadata()
        except pyarrow.ArrowException as error:
            raise DataError(f"{rows} is not a valid Parquet file ({error})") from error
    else:
        schema = pyarrow.schema([(column, pyarrow.string()) for column in rows.columns])
    types = pyarrow.int64(), pyarrow.string(), pyarrow.float64()
    for column, of_type in zip(PREDICTION_COLUMNS, types, strict=True):
        schema = schema.append(pyarrow.field(column, of_type))
    return schema


def _json_values(prediction: Prediction) -> dict[str, object]:
    label, name, confidence = prediction
    return dict(zip(PREDICTION_COLUMNS, (label, name, float(confidence)), strict=True))


def _utf8(text: str) -> bytes:
    # Half of a surrogate pair, which is not valid UTF-8, becomes its JSON escape.
    return text.encode(errors="backslashreplace")
