"""The texts that callers hand to a classifier, as one list of strings in their own order."""

from collections.abc import Iterable
from typing import Any

from featherweight.errors import DataError, UsageError, quoted, shortened

_REFUSED = (str, bytes, bytearray, dict, set, frozenset)  # iterable, but not a list of texts


def as_texts(texts: Iterable[str]) -> list[str]:
    """Returns N texts as a list, in the order in which they are iterated.

    Args:
        texts: A list, tuple, generator, NumPy array, pandas Series, Arrow array, column of
            `datasets`, or any other iterable of strings. Half of a surrogate pair, which is not
            valid Unicode, is replaced by "?".

    Raises:
        UsageError: It is a single string, a table, a mapping, a set, or not iterable.
        DataError: An element is not a string, for example None or NaN.
    """
    values = texts if isinstance(texts, (list, tuple)) else _elements(texts)
    return [
        text if type(text) is str and text.isascii() else _valid(index, text)
        for index, text in enumerate(values)
    ]


def _elements(texts: Any) -> Iterable[Any]:
    for attribute in ("column_names", "columns"):  # of Arrow and `datasets`, and of pandas
        if hasattr(texts, attribute):
            names = shortened(", ".join(map(str, getattr(texts, attribute))))
            raise UsageError(f"give one column of texts, not a table with the columns {names}")
    if isinstance(texts, _REFUSED) or not isinstance(texts, Iterable):
        raise UsageError(f"give a list of texts, not one {type(texts).__name__}")
    return texts.to_pylist() if hasattr(texts, "to_pylist") else texts  # Arrow


def _valid(index: int, text: Any) -> str:
    if not isinstance(text, str):
        raise DataError(
            f"texts[{index}] is {quoted(text)}, a {type(text).__name__}: give strings, and remove "
            "or replace missing values"
        )
    return text.encode(errors="replace").decode()
