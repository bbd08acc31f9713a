"""Texts in Markdown: a label or a name that looks like Markdown is shown as it is."""

import re

from featherweight.reports.terminal import printable

# What would begin an element: escapes, code, emphasis, tables and strikethrough anywhere, the ends
# of link texts, tags and entities where one follows, and blocks at the start of a line. Brackets
# and signs of numbers stay as they are.
_SYNTAX = re.compile(
    r"[\\`|~]|(?<!\s)\*|\*(?!\s|$)|(?<!\w)_|_(?!\w)|\](?=[(\[:])|<(?=[A-Za-z/!?])|&(?=#?\w+;)"
    r"|^[#+=>-](?!\d)|(?<=^1)[.)](?=\s)"
)
_BACKTICKS = re.compile(r"`+")


def escaped(text: str) -> str:
    """Returns a text on one line, as part of a paragraph, a heading or a cell of a table."""
    return _SYNTAX.sub(r"\\\g<0>", printable(text))


def code(text: str) -> str:
    """Returns a text on one line as code within a line."""
    line = printable(text)
    fence = "`" * (_longest_run(line) + 1)
    # A space, which is not shown, separates the text's own backticks from the fence.
    padding = " " if line[:1] == "`" or line[-1:] == "`" else ""
    return f"{fence}{padding}{line}{padding}{fence}"


def code_block(text: str) -> str:
    """Returns lines of text as a block of code."""
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}\n{text}\n{fence}"


def _longest_run(text: str) -> int:
    return max(map(len, _BACKTICKS.findall(text)), default=0)
