"""Rows of a file, one at a time and at constant memory, whatever its format."""

import gzip
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Protocol

from featherweight.data.formats import TEXT_FORMATS, Record, read_lines, read_parquet
from featherweight.errors import DataError

FORMATS = (*TEXT_FORMATS, ".parquet")
_LISTED = 10  # names that a message spells out


class Table(Protocol):
    """Named columns and numbered rows, from a file or from the Hub.

    Attributes:
        columns: Names of the columns, in their order.
    """

    columns: tuple[str, ...]

    def __str__(self) -> str:
        """Returns what an error message calls the whole, such as "train.csv"."""
        ...

    def __iter__(self) -> Iterator[Record]:
        """Yields each row's number and its values by column."""
        ...

    def place(self, number: int) -> str:
        """Returns what an error message calls a row, such as "train.csv, line 17"."""
        ...


class Rows:
    """The rows of one open file: a context manager, iterated once.

    Attributes:
        path: The file.
        columns: Names of the columns; in JSON lines, the keys of the first object.
        size_bytes: Size of the file on disk, in bytes.
    """

    def __init__(
        self,
        path: Path,
        columns: tuple[str, ...],
        records: Iterator[Record],
        file: IO[bytes],
        row_count: int | None,
        resources: ExitStack,
    ) -> None:
        self.path = path
        self.columns = columns
        self.size_bytes = path.stat().st_size
        self._records = records
        self._file = file
        self._row_count = row_count
        self._resources = resources
        self._last = 0

    def __enter__(self) -> "Rows":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._resources.close()

    def __str__(self) -> str:
        return str(self.path)

    def __iter__(self) -> Iterator[Record]:
        """Yields (number, values by column); values of text formats are strings.

        The number is the line of the file on which the row begins, as an editor shows it;
        in a Parquet file, the row counted from 1.

        Raises:
            DataError: A row cannot be read.
        """
        for number, values in self._records:
            self._last = number
            yield number, values

    def bytes_read(self) -> int:
        """Returns the position in the file on disk, in bytes; for Parquet, by share of rows."""
        if self._row_count is None:
            return self._file.tell()
        return self.size_bytes * self._last // max(self._row_count, 1)

    def place(self, number: int) -> str:
        """Returns what an error message calls a row, such as "train.csv, line 17"."""
        unit = "row" if file_format(self.path) == ".parquet" else "line"
        return f"{self}, {unit} {number}"


def open_rows(path: Path) -> Rows:
    """Opens a file of rows; its extension says the format, a `.gz` behind it gzip.

    Formats: .csv and .tsv with a header, .jsonl (.ndjson) with an object a line, .parquet,
    and .txt with lines of `text;label`, split at the last semicolon.

    Raises:
        DataError: The file is missing, empty, binary, broken or of an unknown format.
        MissingExtraError: The file is Parquet and pyarrow is not installed.
    """
    resources = ExitStack()
    try:
        return _open(path, resources)
    except BaseException:
        resources.close()
        raise


def _open(path: Path, resources: ExitStack) -> Rows:
    try:
        file = resources.enter_context(path.open("rb"))
    except FileNotFoundError:
        raise DataError(f"no such file: {path}") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a directory where a file is due") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error

    kind = file_format(path)
    row_count = None
    if not kind:
        raise DataError(f"{path} is of an unknown format; known are {known_formats()}")
    if kind == ".parquet":
        columns, records, row_count = read_parquet(path, file, resources)
    else:
        stream = gzip.GzipFile(fileobj=file) if path.suffix.lower() == ".gz" else file
        columns, records = TEXT_FORMATS[kind](path, read_lines(path, stream))

    twice = [name for name in dict.fromkeys(columns) if columns.count(name) > 1]
    if twice:
        raise DataError(f"{path} has two columns of one name ({listing(twice)}): rename one")
    return Rows(path, columns, records, file, row_count, resources)


def file_format(path: Path) -> str:
    """Returns the known extension of a file without `.gz`, such as ".csv"; "" if it has none."""
    name = path.name.lower().removesuffix(".gz")
    return next((kind for kind in FORMATS if name.endswith(kind)), "")


def file_stem(path: Path) -> str:
    """Returns the name of a file without its known extension: "train" for train.csv.gz."""
    name = path.name[:-3] if path.name.lower().endswith(".gz") else path.name
    return name[: len(name) - len(file_format(path))]


def known_formats() -> str:
    """Returns the extensions that can be read, for a message."""
    return " ".join(FORMATS) + ", each also with .gz behind"


def listing(names: Iterable[str]) -> str:
    """Returns names for a message, at most ten of them."""
    names = list(names)
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
