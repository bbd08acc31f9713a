"""File formats: each reader turns an open file into columns and numbered records."""

import csv
import gzip
import io
import json
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import IO

from featherweight.errors import DataError, first_line, requires

Values = dict[str, object]  # by column
Stream = io.BufferedReader | gzip.GzipFile


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be read, although the rows after it can."""

    problem: str  # completes "train.csv, line 7: ..."
    values: Values = field(default_factory=dict)  # what could be read of it


Record = tuple[int, Values | BadRow]  # the number is the line or row, from 1
Contents = tuple[tuple[str, ...], Iterator[Record]]  # (columns, records)

_BATCH_ROWS = 1024  # rows of a Parquet file in memory at a time
_MAX_FIELD = 2**31 - 1  # characters; the csv module's default of 131,072 rejects long texts
_BINARY = (b"PAR1", b"PK\x03\x04", b"\x89PNG", b"%PDF", b"BZh", b"\xfd7zXZ")
_GZIP_ERRORS = (EOFError, zlib.error, gzip.BadGzipFile)
_QUOTING = "quote a text that contains a delimiter or a quote, and double its quotes"


def read_lines(path: Path, stream: Stream) -> Iterator[str]:
    """Yields the lines of a UTF-8 file with their line ends, without a byte-order mark.

    Raises:
        DataError: The file is not UTF-8, binary, or corrupt gzip.
    """
    number = 0
    try:
        _refuse_binary(path, stream.peek(1024)[:1024])
        # Decoded line by line instead of by io.TextIOWrapper so that an error can name its line.
        for number, line in enumerate(stream, 1):
            if b"\0" in line:
                raise DataError(f"{path}, line {number}: a NUL byte; is this a binary file?")
            text = line.decode("utf-8")
            yield text.removeprefix("\ufeff") if number == 1 else text
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise DataError(
            f"{path}, line {number}: not UTF-8 (byte 0x{byte:02x}); save the file as UTF-8"
        ) from None
    except _GZIP_ERRORS as error:
        raise _corrupt_gzip(f"{path}, after line {number}", error) from error
    except OSError as error:
        raise DataError(f"{path}, after line {number}: {error.strerror or error}") from error


def _corrupt_gzip(place: str, error: Exception) -> DataError:
    return DataError(f"{place}: corrupt gzip ({error}); download or create the file again")


def _refuse_binary(path: Path, start: bytes) -> None:
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path}, line 1: not UTF-8 but UTF-16; save the file as UTF-8")
    if start.startswith(b"\x1f\x8b"):
        raise DataError(f"{path} is compressed with gzip: rename it to end in .gz")
    if b"\0" in start or start.startswith(_BINARY):
        raise DataError(f"{path} is a binary file, although its extension is that of a text file")


def read_csv(path: Path, lines: Iterator[str], delimiter: str = ",") -> Contents:
    """Reads delimited and possibly quoted rows below a header line."""
    rows = _cells(path, lines, delimiter)
    columns = next((tuple(cells) for _, cells in rows if "".join(cells).strip()), ())
    if not columns:
        raise DataError(f"{path} is empty: it needs a header line and rows")

    def records() -> Iterator[Record]:
        for number, cells in rows:
            if len(cells) == len(columns):
                yield number, dict(zip(columns, cells, strict=True))
            elif "".join(cells).strip():  # otherwise the line is blank
                yield (
                    number,
                    BadRow(
                        f"{len(cells)} field(s), but the header has {len(columns)}; {_QUOTING}",
                        dict(zip(columns, cells, strict=False)),
                    ),
                )

    return columns, records()


def _cells(path: Path, lines: Iterator[str], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(_MAX_FIELD)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        number = reader.line_num + 1  # where the row starts; the reader counts where it ends
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            reason = str(error).partition(" - ")[0]
            raise DataError(f"{path}, line {number}: {reason}; {_QUOTING}") from None
        yield number, cells


def read_json_lines(path: Path, lines: Iterator[str]) -> Contents:
    """Reads one JSON object per line; the keys of the first are the columns."""
    return _contents(path, _objects(path, lines), "a JSON object on each line")


def read_labeled_lines(path: Path, lines: Iterator[str]) -> Contents:
    """Reads lines of `text;label`, split at the last semicolon; there is no header."""
    return _contents(path, _pairs(path, lines), "lines of text;label")


def _contents(path: Path, records: Iterator[Record], needed: str) -> Contents:
    first = next(records, None)
    if first is None:
        raise DataError(f"{path} is empty: it needs {needed}")
    number, values = first
    if isinstance(values, BadRow):
        raise DataError(f"{path}, line {number}: {values.problem}")
    return tuple(values), chain([first], records)


def _objects(path: Path, lines: Iterator[str]) -> Iterator[Record]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield number, BadRow(f"invalid JSON ({error})")
            continue
        if isinstance(values, dict):
            yield number, values
        else:
            yield number, BadRow("not a JSON object with named fields")


def _pairs(path: Path, lines: Iterator[str]) -> Iterator[Record]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        text, semicolon, label = line.rstrip("\r\n").rpartition(";")
        if not semicolon:
            yield number, BadRow("no label; write it after the text and a ';'", {"text": label})
        else:
            yield number, {"text": text, "label": label}


def read_parquet(
    path: Path, file: IO[bytes], resources: ExitStack
) -> tuple[tuple[str, ...], Iterator[Record], int]:
    """Reads a Parquet file; returns its columns, records and number of rows.

    Args:
        path: The file; a name that ends in .gz means gzip.
        file: The open file.
        resources: Closed together with the file.

    Raises:
        DataError: The file is empty or corrupt.
        MissingExtraError: pyarrow is not installed.
    """
    with requires("train"):
        import pyarrow
        from pyarrow.parquet import ParquetFile
    errors = (pyarrow.ArrowException, OSError, UnicodeDecodeError)
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty")
    if path.suffix.lower() == ".gz":
        file = resources.enter_context(_unzipped(path, file))
    try:
        parquet = ParquetFile(file)
    except errors as error:
        raise DataError(f"{path} is not a valid Parquet file ({first_line(error)})") from error

    def records() -> Iterator[Record]:
        number = 0
        try:
            for batch in parquet.iter_batches(_BATCH_ROWS):
                for values in batch.to_pylist():
                    number += 1
                    yield number, values
        except errors as error:
            reason = first_line(error)
            raise DataError(f"{path}, after row {number}: corrupt Parquet ({reason})") from error

    return tuple(parquet.schema_arrow.names), records(), int(parquet.metadata.num_rows)


def _unzipped(path: Path, file: IO[bytes]) -> IO[bytes]:
    # Parquet is read from its end, to which gzip cannot seek: hence a copy on disk.
    unzipped = tempfile.TemporaryFile()  # noqa: SIM115 (the caller closes it)
    try:
        shutil.copyfileobj(gzip.GzipFile(fileobj=file), unzipped)
    except _GZIP_ERRORS as error:
        unzipped.close()
        raise _corrupt_gzip(str(path), error) from error
    return unzipped


TEXT_FORMATS: dict[str, Callable[[Path, Iterator[str]], Contents]] = {
    ".csv": read_csv,
    ".tsv": partial(read_csv, delimiter="\t"),
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".txt": read_labeled_lines,
}
