"""Rows of a data file of any format, read one at a time with constant memory."""

import logging
import shutil
import sys
import tempfile
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from featherweight.data.dialect import DEFAULT_DIALECT, Dialect
from featherweight.data.files.columnar import is_columnar, read_columnar
from featherweight.data.files.containers import (
    DECOMPRESSION_ERRORS,
    START_BYTES,
    SUFFIXES,
    corrupt,
    decompressed,
    without_suffix,
)
from featherweight.data.files.delimited import read_delimited
from featherweight.data.files.formats import (
    Contents,
    Record,
    read_json,
    read_json_lines,
    read_labeled_lines,
    read_texts,
    starts_with_object,
)
from featherweight.data.files.text_file import TextFile
from featherweight.errors import DataError, shortened

logger = logging.getLogger("featherweight")

_JSON_LINES = (".jsonl", ".ndjson")
COLUMNAR_FORMATS = (".parquet", ".arrow", ".feather", ".xlsx", ".xls")
FORMATS = (".csv", ".tsv", *_JSON_LINES, ".json", ".txt", *COLUMNAR_FORMATS)
KNOWN_FORMATS = (  # for messages
    ".csv .tsv .jsonl .ndjson .json .txt .parquet .arrow .feather .xlsx, also compressed "
    f"({' '.join(SUFFIXES)})"
)
STANDARD_INPUT = Path("-")
_MAX_LISTED = 10
_MAX_LISTING = 200  # characters of all names
_MAX_NAME = 60  # characters of a name


class Table(ABC):
    """Named columns and numbered rows, from a file or from the Hub."""

    columns: tuple[str, ...]
    class_names: Mapping[str, tuple[str, ...]]  # of integer labels, by column
    unit = "row"

    @abstractmethod
    def __str__(self) -> str: ...

    @abstractmethod
    def __iter__(self) -> Iterator[Record]:
        """Yields each row's number and its values by column, or a `BadRow` if it has none."""

    def place(self, number: int) -> str:
        """Returns the position of a row for error messages, such as "train.csv, line 17"."""
        return f"{self}, {self.unit} {number}"


class Rows(Table):
    """The rows of an open file, iterated once.

    Attributes:
        path: The file, or `STANDARD_INPUT`.
        schema: The Arrow schema of a file that declares the types of its columns, or None.
        size_bytes: The size of the file as it is, possibly compressed.
    """

    def __init__(self, file: "_File", contents: Contents) -> None:
        self.path = file.path
        self.columns = contents.columns
        self.class_names = contents.class_names
        self.unit = contents.unit
        self.schema = contents.schema
        self.size_bytes = file.size_bytes
        self._file = file
        self._contents = contents
        self._last = 0

    def __str__(self) -> str:
        return self._file.title

    def __iter__(self) -> Iterator[Record]:
        """Yields (number, values by column or a `BadRow`); values of text formats are strings.

        The number is the line of the file at which the row starts, or the row of a table, from 1.

        Raises:
            DataError: A row cannot be read, and neither can those after it.
        """
        for number, values in self._contents.records:
            self._last = number
            yield number, values

    def bytes_read(self) -> int:
        """Returns the position in the file in bytes; if rows are counted, estimated from them."""
        row_count = self._contents.row_count
        return self.size_bytes * self._last // row_count if row_count else self._file.position()


@contextmanager
def open_rows(
    path: Path, dialect: Dialect = DEFAULT_DIALECT, unlabeled: bool = False
) -> Iterator[Rows]:
    """Opens a file of rows; its first bytes and its name determine the format.

    Formats: .csv and .tsv with a header, .jsonl (.ndjson) with one object per line, .json,
    .parquet, .arrow and .feather, .xlsx, and .txt with lines of `text;label` or of fastText. Each
    may be compressed. JSON lines are recognized under any name.

    Args:
        path: The file; `STANDARD_INPUT` is copied to a temporary file and read as .csv, unless it
            is recognized as another format.
        dialect: Encoding, delimiter, quoting and header of text files.
        unlabeled: A line of a .txt file is one text, in the column "text".

    Raises:
        DataError: The file is missing, empty, binary, corrupt or of an unknown format.
        MissingExtraError: Reading the format requires a library that is not installed.
    """
    with ExitStack() as resources:
        file = _File(path, resources)
        contents = _contents(file, dialect, unlabeled)
        columns = contents.columns
        duplicates = [name for name in dict.fromkeys(columns) if columns.count(name) > 1]
        if duplicates:
            raise DataError(
                f"{file.title} has duplicate columns ({listing(duplicates)}): rename them"
            )
        yield Rows(file, contents)


class JoinedRows(Table):
    """The rows of several files with the same columns, one file after the other."""

    def __init__(self, parts: Sequence[Rows]) -> None:
        self._parts = parts
        self.columns = parts[0].columns
        self.class_names = parts[0].class_names
        self._starts: list[int] = []  # number of rows before each part

    def __str__(self) -> str:
        more = len(self._parts) - 1
        return f"{self._parts[0]} and {more} more" if more else str(self._parts[0])

    def __iter__(self) -> Iterator[Record]:
        """Yields the rows of all files; their numbers are for `place` only."""
        start = 0
        for part in self._parts:
            self._starts.append(start)
            last = 0
            for last, values in part:
                yield start + last, values
            start += last

    def place(self, number: int) -> str:
        """Returns file and position of a row."""
        part = bisect_left(self._starts, number) - 1
        return self._parts[part].place(number - self._starts[part])


@contextmanager
def open_joined(paths: Sequence[Path], dialect: Dialect = DEFAULT_DIALECT) -> Iterator[Table]:
    """Opens one or more files with the same columns as one table; see `open_rows`.

    Raises:
        DataError: A file cannot be read, or its columns are not those of the first.
    """
    with ExitStack() as resources:
        parts = [resources.enter_context(open_rows(path, dialect)) for path in paths]
        for part in parts[1:]:
            if set(part.columns) != set(parts[0].columns):
                raise DataError(
                    f"{part} has the columns {listing(part.columns)}, but {parts[0]} has "
                    f"{listing(parts[0].columns)}"
                )
        yield JoinedRows(parts)


class _File:
    """A file that is opened again for each reading.

    Attributes:
        path: The file, or `STANDARD_INPUT`.
        title: Its name in messages.
        name: The name that determines the format, without the suffix of a compression.
        size_bytes: Its size.
    """

    def __init__(self, path: Path, resources: ExitStack) -> None:
        self.path = self._readable = path
        self.title = str(path)
        self.name = path.name
        self._resources = resources
        if path == STANDARD_INPUT:
            self.title, self.name = "standard input", "standard input.csv"
            self._readable = _standard_input(resources)
        self._opened: IO[bytes]
        self.start = self._read_start()
        self.size_bytes = self._readable.stat().st_size

    def open(self) -> IO[bytes]:
        """Returns the decompressed content from its start."""
        self._opened = self._resources.enter_context(self._readable.open("rb"))
        content, name = decompressed(self.title, self._opened, self._resources)
        if self.path != STANDARD_INPUT:
            self.name = Path(name).name
        return content

    def open_seekable(self) -> IO[bytes]:
        """Returns the same for formats that are read from their end."""
        content = self.open()
        if content is self._opened:
            return content
        copy = self._resources.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
        try:
            shutil.copyfileobj(content, copy)
        except (*DECOMPRESSION_ERRORS, OSError) as error:
            raise DataError(corrupt(self.title, error)) from error
        copy.seek(0)
        return copy

    def position(self) -> int:
        """Returns how many bytes of the file have been read."""
        return self.size_bytes if self._opened.closed else self._opened.tell()

    def _read_start(self) -> bytes:
        try:
            return self.open().read(START_BYTES)
        except FileNotFoundError:
            raise DataError(f"no such file: {self.title}") from None
        except IsADirectoryError:
            raise DataError(f"{self.title} is a directory, not a file") from None
        except DECOMPRESSION_ERRORS as error:
            raise DataError(corrupt(self.title, error)) from error
        except OSError as error:
            raise DataError(f"{self.title} cannot be read: {error.strerror or error}") from error


def _standard_input(resources: ExitStack) -> Path:
    """Copies the standard input to a file, because some formats are read twice or from the end."""
    path = Path(resources.enter_context(tempfile.TemporaryDirectory())) / "input"
    with path.open("wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
    return path


def _contents(file: _File, dialect: Dialect, unlabeled: bool) -> Contents:
    if is_columnar(file.start):
        return read_columnar(file.title, file.open_seekable())
    kind = file_format(Path(file.name))
    if not file.start and kind:
        raise DataError(f"{file.title} is empty")
    if kind in COLUMNAR_FORMATS:
        raise DataError(f"{file.title} is not a valid {kind} file")
    text = TextFile(file.title, file.open, dialect.encoding)
    if kind == ".json":
        return read_json(text)
    if kind in _JSON_LINES:
        return read_json_lines(text)
    if starts_with_object(text):
        logger.info("%s is read as JSON lines", file.title)
        return read_json_lines(text)
    if kind == ".txt":
        return read_texts(text) if unlabeled else read_labeled_lines(text, dialect.separator)
    if kind or dialect.delimiter:
        return read_delimited(text, dialect, kind)
    raise DataError(f"{file.title} has an unknown format; supported are {KNOWN_FORMATS}")


def file_format(path: Path) -> str:
    """Returns the supported extension of a file before that of a compression, or ""."""
    name = without_suffix(path.name.lower())
    return next((kind for kind in FORMATS if name.endswith(kind)), "")


def file_stem(path: Path) -> str:
    """Returns a file's name without its supported extensions: "train" for train.csv.gz."""
    name = without_suffix(path.name)
    return name[: len(name) - len(file_format(path))]


def listing(names: Iterable[str]) -> str:
    """Returns names for a message: at most ten of them, in about 200 characters."""
    names = list(names)
    listed = [shortened(name, _MAX_NAME) for name in names[:_MAX_LISTED]]
    while len(", ".join(listed)) > _MAX_LISTING:
        listed.pop()
    more = f" and {len(names) - len(listed)} more" if len(names) > len(listed) else ""
    return ", ".join(listed) + more
