"""Rows -> checked texts and label values, and the stratified cut through them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from featherweight.data.labels import label_value
from featherweight.data.rows import Table, listing
from featherweight.errors import DataError


@dataclass(frozen=True)
class Examples:
    """Texts and label values of a split, before the labels have ids.

    Attributes:
        texts: The N texts.
        values: The N label values as they stand in the data.
        numbers: The line or row of each in its file, from 1.
        place: Names such a line or row in an error message.
    """

    texts: list[str]
    values: list[str]
    numbers: list[int]
    place: Callable[[int], str]

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, indices: Sequence[int]) -> "Examples":
        """Returns the examples at these indices."""
        return Examples(
            [self.texts[i] for i in indices],
            [self.values[i] for i in indices],
            [self.numbers[i] for i in indices],
            self.place,
        )


def text_rows(rows: Table, text_column: str) -> Iterator[tuple[int, str, dict[str, object]]]:
    """Returns an iterator of (number, text, values by column); the number as `rows` counts.

    Raises:
        DataError: There is no such column; while iterating, a row holds no text in it.
    """
    _require(rows, text_column, "--text_column")

    def checked() -> Iterator[tuple[int, str, dict[str, object]]]:
        for number, values in rows:
            problem = _problem(values.get(text_column))
            if problem:
                raise DataError(f"{rows.place(number)}: {text_column!r} {problem}")
            yield number, str(values[text_column]), values

    return checked()


def read_examples(rows: Table, text_column: str, label_column: str) -> Examples:
    """Reads all rows of a split.

    Raises:
        DataError: A column is missing, a row holds no text or no label, or there is no row.
    """
    texts = text_rows(rows, text_column)
    _require(rows, label_column, "--label_column")
    examples = Examples([], [], [], rows.place)
    for number, text, values in texts:
        try:
            examples.values.append(label_value(values.get(label_column)))
        except ValueError as error:
            raise DataError(f"{rows.place(number)}: {error}") from None
        examples.texts.append(text)
        examples.numbers.append(number)
    if not examples:
        raise DataError(f"{rows} has the columns {listing(rows.columns)} and no rows: add some")
    return examples


def hold_out(examples: Examples, share: float, seed: int) -> tuple[Examples, Examples]:
    """Cuts examples in two, each class by the same share and in the order of the data.

    A class of two texts or more has at least one on the cut-off side, and every class keeps
    at least one on the other.

    Args:
        examples: What is cut.
        share: The share to cut off, in (0, 0.5].
        seed: Seed of the draw.

    Returns:
        The rest and what was cut off.
    """
    # RandomState and not default_rng: numpy promises that its stream never changes.
    random = np.random.RandomState(seed)
    by_class: dict[str, list[int]] = {}
    for index, value in enumerate(examples.values):
        by_class.setdefault(value, []).append(index)
    cut: set[int] = set()
    for _, indices in sorted(by_class.items()):
        count = max(1, round(share * len(indices))) if len(indices) > 1 else 0
        cut.update(random.permutation(indices)[:count].tolist())
    rest = [index for index in range(len(examples)) if index not in cut]
    return examples.take(rest), examples.take(sorted(cut))


def _require(rows: Table, column: str, flag: str) -> None:
    if column not in rows.columns:
        raise DataError(
            f"{rows} has no column {column!r} but {listing(rows.columns)}: name one with {flag}"
        )


def _problem(text: object) -> str:
    if text is None or text != text or text in ("nan", "NaN"):
        return "is NaN or null; write a text or remove the row"
    if not isinstance(text, str):
        return f"is of type {type(text).__name__}, not a text"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "holds half of a surrogate pair, which is no text in UTF-8"
    return ""
