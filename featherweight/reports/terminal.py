"""Output to a terminal or pipe: what it cannot encode, and what it must not show."""

import re

# Control characters (escape sequences begin with one), halves of surrogate pairs, line separators
# and marks that reverse the direction of the text after them.
_UNPRINTABLE = re.compile(
    r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029\u202a-\u202e\u2066-\u2069]"
)


def printable(text: str) -> str:
    """Returns a text on one line, with "�" for each character that controls a terminal."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", " ".join(text.split()))
