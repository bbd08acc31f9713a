"""Dialect of text files: encoding, delimiter, quoting, header."""

from dataclasses import dataclass
from typing import Literal

from featherweight.errors import UsageError, shortened

_NAMED = {"tab": "\t", "\\t": "\t", "space": " "}


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """Format of text files."""

    encoding: str = ""
    """Encoding of text files, such as cp1252; if omitted, UTF-8, or UTF-16 with a byte-order
    mark."""

    delimiter: str = ""
    """Column delimiter of .csv and .tsv files, a character or "tab"; if omitted, it is recognized:
    a comma, semicolon, vertical bar or tab in .csv, a tab in .tsv."""

    quoting: Literal["auto", "none"] = "auto"
    """Quotes of .csv and .tsv files: none takes every quote as part of the text."""

    header: bool = True
    """The first line of a .csv or .tsv file names the columns; with --no_header it is a row, and
    they are called column_1, column_2, and so on."""

    def __post_init__(self) -> None:
        try:
            "".encode(self.encoding or "utf-8")
        except LookupError:
            raise UsageError(
                f"--encoding {shortened(self.encoding)} is unknown; common ones are utf-8, "
                "utf-16, cp1252, cp1251, cp932, gb18030 and euc-kr"
            ) from None
        if (self.delimiter not in _NAMED and len(self.delimiter) > 1) or self.delimiter in (
            '"',
            "\n",
        ):
            raise UsageError(f"--delimiter {shortened(self.delimiter)}: give one character, or tab")

    @property
    def separator(self) -> str:
        """The delimiter as a character, or "" if it is to be recognized."""
        return _NAMED.get(self.delimiter, self.delimiter)


DEFAULT_DIALECT = Dialect()
