"""Lines of the standard input, each of which is a text."""

import io
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from featherweight.data.files.formats import BadRow, Record
from featherweight.data.rows import Table
from featherweight.errors import DataError

_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


def piped_input() -> io.BufferedReader | None:
    """Opens the standard input for its bytes; None if it is a terminal or closed."""
    try:
        descriptor = sys.stdin.fileno()
    except (AttributeError, ValueError):  # closed at the start, or replaced
        return None
    return None if os.isatty(descriptor) else open(descriptor, "rb", closefd=False)


@dataclass
class Lines(Table):
    """The lines of a stream as rows with one column, `text`, read one at a time.

    Attributes:
        stream: The stream.
        encoding: Its encoding; if empty, UTF-8, or UTF-16 with a byte-order mark.
    """

    stream: io.BufferedReader
    encoding: str = ""

    columns = ("text",)
    unit = "line"

    def __str__(self) -> str:
        return "standard input"

    def __iter__(self) -> Iterator[Record]:
        """Yields each line without its end; one that is not in the encoding is a `BadRow`.

        Raises:
            DataError: The remaining lines cannot be decoded.
        """
        utf16 = self.stream.peek(2)[:2] in _UTF16_MARKS
        encoding = self.encoding or ("utf-16" if utf16 else "utf-8-sig")
        # A byte that cannot be decoded becomes half of a surrogate pair, and its line is bad.
        lines = io.TextIOWrapper(self.stream, encoding, "surrogateescape", newline="\n")
        number = 0
        try:
            for number, line in enumerate(lines, 1):
                yield number, _values(line.removesuffix("\n").removesuffix("\r"))
        except UnicodeDecodeError as error:
            reason = f"not {encoding} ({error.reason}); name its encoding with --encoding"
            raise DataError(f"{self}, after line {number}: {reason}") from None


def _values(text: str) -> dict[str, object] | BadRow:
    try:
        text.encode()
    except UnicodeEncodeError:
        replaced: dict[str, object] = {"text": text.encode(errors="replace").decode()}
        return BadRow("not UTF-8; name its encoding with --encoding", replaced)
    return {"text": text}
