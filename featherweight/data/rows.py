"""Rows of a data file of any format, read one at a time with constant memory."""

import gzip
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from featherweight.data.dialect import DEFAULT_DIALECT, Dialect
from featherweight.data.formats import TEXT_FORMATS, Record, read_lines, read_parquet
from featherweight.errors import DataError

FORMATS = (*TEXT_FORMATS, ".parquet")
KNOWN_FORMATS = " ".join(FORMATS) + ", also with .gz appended"  # for messages
_MAX_LISTED = 10


class Table(ABC):
    """Named columns and numbered rows, from a file or from the Hub."""

    columns: tuple[str, ...]
    unit = "row"

    @abstractmethod
    def __str__(self) -> str: ...

    @abstractmethod
    def __iter__(self) -> Iterator[Record]:
        """Yields each row's number and its values by column, or a `BadRow` if it has none."""

    def place(self, number: int) -> str:
        """Returns the position of a row for error messages, such as "train.csv, line 17"."""
        return f"{self}, {self.unit} {number}"


@dataclass
class Rows(Table):
    """The rows of an open file, iterated once."""

    path: Path
    columns: tuple[str, ...]  # in JSON lines, the keys of the first object
    records: Iterator[Record]
    file: IO[bytes]
    row_count: int | None = None  # of a Parquet file

    def __post_init__(self) -> None:
        self.size_bytes = self.path.stat().st_size
        self.unit = "line" if self.row_count is None else "row"
        self._last = 0

    def __str__(self) -> str:
        return str(self.path)

    def __iter__(self) -> Iterator[Record]:
        """Yields (number, values by column or a `BadRow`); values of text formats are strings.

        The number is the line of the file at which the row starts, or the row of a Parquet file,
        from 1.

        Raises:
            DataError: A row cannot be read, and neither can those after it.
        """
        for number, values in self.records:
            self._last = number
            yield number, values

    def bytes_read(self) -> int:
        """Returns the position in the file in bytes; for Parquet, estimated from the rows."""
        if self.row_count is None:
            return self.file.tell()
        return self.size_bytes * self._last // max(self.row_count, 1)


@contextmanager
def open_rows(
    path: Path, dialect: Dialect = DEFAULT_DIALECT, unlabeled: bool = False
) -> Iterator[Rows]:
    """Opens a file of rows; its extension determines the format, and a final `.gz` means gzip.

    Formats: .csv and .tsv with a header, .jsonl (.ndjson) with one object per line, .parquet,
    and .txt with lines of `text;label`, split at the last semicolon.

    Args:
        path: The file; "-" is the standard input.
        dialect: Encoding, delimiter, quoting and header of text files.
        unlabeled: A line of a .txt file is one text, in the column "text".

    Raises:
        DataError: The file is missing, empty, binary, corrupt or of an unknown format.
        MissingExtraError: The file is Parquet and pyarrow is not installed.
    """
    with ExitStack() as resources:
        try:
            file = resources.enter_context(path.open("rb"))
        except FileNotFoundError:
            raise DataError(f"no such file: {path}") from None
        except IsADirectoryError:
            raise DataError(f"{path} is a directory, not a file") from None
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}") from error

        kind = file_format(path)
        row_count = None
        if not kind:
            raise DataError(f"{path} has an unknown format; supported are {KNOWN_FORMATS}")
        if kind == ".parquet":
            columns, records, row_count = read_parquet(path, file, resources)
        else:
            stream = gzip.GzipFile(fileobj=file) if path.suffix.lower() == ".gz" else file
            columns, records = TEXT_FORMATS[kind](path, read_lines(path, stream))

        duplicates = [name for name in dict.fromkeys(columns) if columns.count(name) > 1]
        if duplicates:
            raise DataError(f"{path} has duplicate columns ({listing(duplicates)}): rename them")
        yield Rows(path, columns, records, file, row_count)


def file_format(path: Path) -> str:
    """Returns the supported extension of a file without `.gz`, such as ".csv", or ""."""
    name = path.name.lower().removesuffix(".gz")
    return next((kind for kind in FORMATS if name.endswith(kind)), "")


def file_stem(path: Path) -> str:
    """Returns a file's name without its supported extension: "train" for train.csv.gz."""
    name = path.name[:-3] if path.name.lower().endswith(".gz") else path.name
    return name[: len(name) - len(file_format(path))]


def listing(names: Iterable[str]) -> str:
    """Returns names for a message, at most ten of them."""
    names = list(names)
    more = f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
    return ", ".join(names[:_MAX_LISTED]) + more
