"""Text files of any encoding, as lines that can be read several times."""

import codecs
import re
from collections.abc import Callable, Iterator
from io import TextIOWrapper
from typing import IO

from featherweight.data.files.containers import DECOMPRESSION_ERRORS, corrupt
from featherweight.errors import DataError, first_line

SAMPLE_BYTES = 65_536  # from which encoding, line ends and delimiter are recognized
_MARKS = {  # byte-order marks; that of UTF-32 begins with that of UTF-16
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_BINARY = (b"\x89PNG", b"%PDF", b"\xff\xd8\xff")
_IS_BINARY = "is a binary file, although its extension is that of a text file"
_UNDECODABLE = re.compile(r"[\udc80-\udcff]")  # what "surrogateescape" puts for an invalid byte
_PAIR = re.compile(rb"[\x81-\xfe][\x40-\xfe]")  # one character in the encodings of East Asia
_SCRIPTS = {  # the pairs that are letters of a script, and the least share of them
    "cp932": (re.compile(rb"\x82[\x9f-\xf1]|\x83[\x40-\x96]"), 0.4),  # kana
    "cp949": (re.compile(rb"[\xb0-\xc8][\xa1-\xfe]"), 0.9),  # Hangul
    "gb18030": (re.compile(rb"[\xb0-\xd7][\xa1-\xfe]"), 0.8),  # frequent Chinese characters
    "cp1251": (re.compile(rb"[\xe0-\xff]{2}"), 0.7),  # Cyrillic lower case
}


class TextFile:
    """A text file whose encoding and line ends have been recognized.

    Attributes:
        name: Its name in messages.
        encoding: The name of the codec.
    """

    def __init__(
        self,
        name: str,
        open_stream: Callable[[], IO[bytes]],
        encoding: str = "",
    ) -> None:
        """Recognizes the encoding by the first bytes.

        Args:
            name: Its name in messages.
            open_stream: Returns the content from its start; called for each reading.
            encoding: The codec to use instead.

        Raises:
            DataError: The file is binary, corrupt or not of this encoding.
        """
        self.name = name
        self._open_stream = open_stream
        start = self._start()
        mark = next((codec for mark, codec in _MARKS.items() if start.startswith(mark)), "")
        if encoding in ("", "utf-8") and mark:
            encoding = mark
        self.encoding = encoding or "utf-8"
        text = self._decoded(start)
        # A lone "\r" ends a line only in files without any "\n", as old spreadsheets write them.
        self._newline = "\r" if "\r" in text and "\n" not in text else "\n"

    def lines(self) -> Iterator[str]:
        """Yields the lines from the start of the file, with their line ends.

        A byte that is not valid in the encoding becomes half of a surrogate pair; see `problem`.

        Raises:
            DataError: The file is corrupt.
        """
        number = 0
        try:
            stream = TextIOWrapper(
                self._open_stream(), self.encoding, "surrogateescape", self._newline
            )
            for line in stream:
                number += 1
                yield line
        except UnicodeError as error:
            raise DataError(
                f"{self.name}, after line {number}: {first_line(error)}; give another --encoding"
            ) from None
        except DECOMPRESSION_ERRORS as error:
            raise DataError(corrupt(f"{self.name}, after line {number}", error)) from error
        except OSError as error:
            raise DataError(
                f"{self.name}, after line {number}: {error.strerror or error}"
            ) from error

    def sample(self) -> list[str]:
        """Returns the first lines, about 64 KB of them."""
        lines, size = [], 0
        for line in self.lines():
            lines.append(line)
            size += len(line)
            if size > SAMPLE_BYTES:
                break
        return lines

    def problem(self, line: str) -> str:
        """Returns what is wrong with a line that has invalid bytes or NUL, "" for any other."""
        if "\0" in line:
            return "a NUL byte; is this a binary file?"
        invalid = None if line.isascii() else _UNDECODABLE.search(line)
        if not invalid:
            return ""
        content = line.encode(self.encoding, "surrogateescape")
        return self._invalid(ord(invalid[0]) - 0xDC00, content)

    def _start(self) -> bytes:
        try:
            return self._open_stream().read(SAMPLE_BYTES)
        except DECOMPRESSION_ERRORS as error:
            raise DataError(corrupt(self.name, error)) from error
        except OSError as error:
            raise DataError(f"{self.name}: {error.strerror or error}") from error

    def _decoded(self, start: bytes) -> str:
        """Decodes the first bytes, which may end within a character."""
        if start.startswith(_BINARY):
            raise DataError(f"{self.name} {_IS_BINARY}")
        if start.count(0) > 0.01 * len(start) and not self.encoding.startswith(
            ("utf-16", "utf-32")
        ):
            raise DataError(f"{self.name} {_about_nul_bytes(start)}")
        try:
            return codecs.getincrementaldecoder(self.encoding)().decode(start)
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            problem = self._invalid(error.object[error.start], start)
            raise DataError(f"{self.name}, line {line}: {problem}") from None

    def _invalid(self, byte: int, content: bytes) -> str:
        likely = likely_encoding(content)
        title = self.encoding.upper().removesuffix("-SIG")
        hint = "another --encoding" if likely == self.encoding else f"--encoding {likely}"
        return f"not {title} (byte 0x{byte:02x}); try {hint}"


def likely_encoding(content: bytes) -> str:
    """Guesses the encoding of bytes that are not UTF-8, for a hint in a message."""
    pairs = _PAIR.findall(content)
    for encoding, (letters, share) in _SCRIPTS.items():
        if sum(map(bool, map(letters.fullmatch, pairs))) > share * len(pairs):
            return encoding
    return "cp1252"


def _about_nul_bytes(start: bytes) -> str:
    halves = start[::2].count(0), start[1::2].count(0)
    if max(halves) > 0.3 * len(start) > 10 * min(halves):  # Western letters have a NUL as one half
        return f"has NUL bytes: try --encoding utf-16-{'be' if halves[0] > halves[1] else 'le'}"
    return _IS_BINARY
