"""The formats of a file of answers: each turns a batch of answered rows into what is appended."""

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

Answer = tuple[int | None, str, str]  # (class id, label name, confidence); (None, "", …) abstains
Answered = tuple[str, Answer, dict[str, object]]  # (text, answer, values of the row by column)

_GROUP_BATCHES = 64  # that make a row group of a Parquet file


class AnswerFormat(Protocol):
    """How answers are written; sent to every process that answers.

    Attributes:
        resumable: Whether a file that was cut off can be gone on with.
    """

    resumable: bool

    def head(self) -> Any:
        """Returns what is appended before the first batch."""
        ...

    def batch(self, answered: Sequence[Answered]) -> Any:
        """Returns what is appended for a batch."""
        ...

    @contextmanager
    def appending(self, file: IO[bytes]) -> Iterator[Callable[[Any], object]]:
        """Gives what appends to an open file that which `batch` returned."""
        yield file.write


@dataclass(frozen=True)
class CsvAnswers(AnswerFormat):
    """CSV: the text, the answer, every other column.

    Attributes:
        text_column: Name of the text's column.
        others: Names of the other columns.
        raw: Leave cells as they are that a spreadsheet would run as formulas.
    """

    text_column: str
    others: tuple[str, ...]
    raw: bool

    resumable = True

    def head(self) -> bytes:
        """Returns the header line."""
        return self._lines([(self.text_column, *PREDICTION_COLUMNS, *self.others)])

    def batch(self, answered: Sequence[Answered]) -> bytes:
        """Returns a line for each row."""
        return self._lines(
            [
                (text, *answer, *(row.get(column, "") for column in self.others))
                for text, answer, row in answered
            ]
        )

    def _lines(self, rows: Sequence[Sequence[object]]) -> bytes:
        lines = io.StringIO(newline="")
        write_rows(lines, rows, self.raw)
        return _utf8(lines.getvalue())


@dataclass(frozen=True)
class JsonAnswers(AnswerFormat):
    """JSON lines: the values of the row, each of its type, and the answer behind them."""

    resumable = True

    def head(self) -> bytes:
        """Returns nothing."""
        return b""

    def batch(self, answered: Sequence[Answered]) -> bytes:
        """Returns an object a line for each row."""
        lines = [
            json.dumps(row | _values(answer), ensure_ascii=False, default=str)
            for _, answer, row in answered
        ]
        return _utf8("".join(f"{line}\n" for line in lines))


@dataclass(frozen=True)
class ParquetAnswers(AnswerFormat):
    """Parquet: the columns of the row, each of its type, and the answer behind them.

    Attributes:
        schema: The Arrow schema of the file.
    """

    schema: Any

    resumable = False  # the index of a Parquet file is written at its end

    def head(self) -> Any:
        """Returns an Arrow table without rows."""
        return self.schema.empty_table()

    def batch(self, answered: Sequence[Answered]) -> Any:
        """Returns an Arrow table."""
        import pyarrow

        rows = [row | _values(answer) for _, answer, row in answered]
        return pyarrow.Table.from_pylist(rows, self.schema)

    @contextmanager
    def appending(self, file: IO[bytes]) -> Iterator[Callable[[Any], object]]:
        """Gives what appends tables, gathered to row groups that are worth their index."""
        import pyarrow
        from pyarrow.parquet import ParquetWriter

        gathered: list[Any] = []
        with ParquetWriter(file, self.schema) as writer:

            def append(table: Any) -> None:
                gathered.append(table)
                if len(gathered) == _GROUP_BATCHES:
                    writer.write_table(pyarrow.concat_tables(gathered))
                    gathered.clear()

            yield append
            if gathered:
                writer.write_table(pyarrow.concat_tables(gathered))


def abstaining(answer: tuple[int, str, str], min_confidence: float) -> Answer:
    """Returns an answer, without its label if it is less confident than that."""
    confidence = answer[2]
    if float(confidence) >= min_confidence:
        return answer
    return None, "", confidence


def answer_format(output_path: Path, rows: Rows, text_column: str, raw: bool) -> AnswerFormat:
    """Returns the format that the extension of the output names.

    Args:
        output_path: The file to be.
        rows: The input.
        text_column: Name of the input's text column.
        raw: Leave cells as they are that a spreadsheet would run as formulas.

    Raises:
        UsageError: The extension names none, or the input does not fit it.
        MissingExtraError: It is Parquet and pyarrow is not installed.
    """
    kind = output_path.suffix.lower()
    if kind == ".csv":
        others = tuple(column for column in rows.columns if column != text_column)
        return CsvAnswers(text_column, others, raw)
    if kind in (".jsonl", ".ndjson"):
        return JsonAnswers()
    if kind == ".parquet":
        return ParquetAnswers(answer_schema(rows))
    raise UsageError(f"--output_path {output_path}: name a .csv, .jsonl or .parquet file")


def answer_schema(rows: Rows) -> Any:
    """Returns the Arrow schema of a table of answers: the columns of the input, and theirs.

    Raises:
        UsageError: The input does not say of which types its columns are.
        MissingExtraError: pyarrow is not installed.
    """
    with requires("train"):
        import pyarrow
        from pyarrow.parquet import read_schema
    kind = file_format(rows.path)
    if kind in (".jsonl", ".ndjson") or (rows.path.suffix == ".gz" and kind == ".parquet"):
        raise UsageError(
            f"--output_path: Parquet needs types that {rows} does not declare; name a .jsonl file"
        )
    if kind == ".parquet":
        try:
            # Without what pandas noted on the columns, for there are more of them now.
            schema = read_schema(rows.path).remove_metadata()
        except pyarrow.ArrowException as error:
            raise DataError(f"{rows} is not Parquet, or broken ({error})") from error
    else:
        schema = pyarrow.schema([(column, pyarrow.string()) for column in rows.columns])
    types = pyarrow.int64(), pyarrow.string(), pyarrow.float64()
    for column, of_type in zip(PREDICTION_COLUMNS, types, strict=True):
        schema = schema.append(pyarrow.field(column, of_type))
    return schema


def _values(answer: Answer) -> dict[str, object]:
    label, name, confidence = answer
    return dict(zip(PREDICTION_COLUMNS, (label, name, float(confidence)), strict=True))


def _utf8(text: str) -> bytes:
    # Half a surrogate pair, which is no UTF-8, becomes the escape that JSON has for it.
    return text.encode(errors="backslashreplace")
