"""Output to a terminal or pipe: what it cannot encode, and what it must not show."""

import io
import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from featherweight.errors import FeatherweightError, shortened

# Control characters (escape sequences begin with one), halves of surrogate pairs, line separators
# and marks that reverse the direction of the text after them.
_UNPRINTABLE = re.compile(
    r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029\u202a-\u202e\u2066-\u2069]"
)
_LONG_WORD = re.compile(r"\S{201,}")  # such as a path
_MAX_LINE = 1_000  # characters of a message; a longer one repeats input that nobody reads


def controls_terminal(text: str) -> bool:
    """Returns whether a text has characters that control a terminal."""
    return _UNPRINTABLE.search(text) is not None


def printable(text: str) -> str:
    """Returns a text on one line, with "�" for each character that controls a terminal."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", " ".join(text.split()))


def message_line(message: str) -> str:
    """Returns a message as one printable line; words of over 200 characters are shortened."""
    line = _LONG_WORD.sub(lambda word: shortened(word[0]), printable(message))
    return line if len(line) <= _MAX_LINE else shortened(line, 400)


class OneLineFormatter(logging.Formatter):
    """Formats a log record as one line that is safe to show on a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line, by default the message alone."""
        return message_line(super().format(record))


@contextmanager
def standard_streams() -> Iterator[None]:
    """Makes stdout and stderr accept any text while the context lasts, and flushes them at its end.

    Characters outside the encoding of a stream are replaced. A stream that cannot be written is
    discarded, so that the interpreter does not fail again when it flushes the stream at exit.

    Raises:
        FeatherweightError: stdout is closed.
        OSError: stdout cannot be written, for example because the disk is full.
        BrokenPipeError: The reader of stdout is gone.
    """
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    if sys.stdout is None:
        raise FeatherweightError(f"stdout is closed: redirect it to a file or to {os.devnull}")
    for stream, errors in ((sys.stdout, "replace"), (sys.stderr, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):  # a notebook has streams of its own
            stream.reconfigure(errors=errors)
    try:
        yield
    finally:
        with suppress(OSError):
            _flush(sys.stderr)
        _flush(sys.stdout)


def print_error(line: str) -> None:
    """Prints a line to stderr, unless stderr cannot be written."""
    with suppress(OSError):
        print(message_line(line), file=sys.stderr)
    with suppress(OSError):
        _flush(sys.stderr)


def _flush(stream: IO[str]) -> None:
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        raise
