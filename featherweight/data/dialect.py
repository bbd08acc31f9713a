"""Dialect of text files: encoding, delimiter, quoting, header."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Dialect:
    """Format of text files."""

    encoding: str = ""
    """Encoding of text files, such as cp1252; if omitted, UTF-8, or UTF-16 with a byte-order
    mark."""

    delimiter: str = ""
    """Column delimiter of .csv and .tsv files; if omitted, it is recognized: a comma, semicolon or
    vertical bar in .csv, a tab in .tsv."""

    quoting: Literal["auto", "none"] = "auto"
    """Quotes of .csv and .tsv files: none takes every quote as part of the text."""

    no_header: bool = False
    """The first line of a .csv or .tsv file is a row: columns are called column_1, column_2, ..."""


DEFAULT_DIALECT = Dialect()
