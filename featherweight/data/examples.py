"""Rows -> validated texts and label values, and their stratified split."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from featherweight.data.formats import BadRow, Record, Values
from featherweight.data.labels import label_value
from featherweight.data.rows import Table, listing
from featherweight.errors import DataError


@dataclass(frozen=True)
class Examples:
    """N texts and label values of a split, before labels are mapped to class ids."""

    texts: list[str]
    values: list[str]  # labels as written in the data
    numbers: list[int]  # line or row in the file, from 1
    place: Callable[[int], str]  # names such a line or row in an error message

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


def checked_rows(rows: Table, text_column: str) -> Iterator[Record]:
    """Returns an iterator of records in which a row without a valid text is a `BadRow`.

    Raises:
        DataError: The column is missing; while iterating, the remaining rows cannot be read.
    """
    _require(rows, text_column, "--text_column")

    def checked() -> Iterator[Record]:
        for number, row in rows:
            if not isinstance(row, BadRow) and (problem := _problem(row.get(text_column))):
                yield number, BadRow(f"{text_column!r} {problem}", row)
            else:
                yield number, row

    return checked()


def text_rows(rows: Table, text_column: str) -> Iterator[tuple[int, str, Values]]:
    """Returns an iterator of (number, text, values by column); the number is that of `rows`.

    Raises:
        DataError: The column is missing; while iterating, a row has no valid text in it.
    """
    records = checked_rows(rows, text_column)

    def strict() -> Iterator[tuple[int, str, Values]]:
        for number, row in records:
            if isinstance(row, BadRow):
                raise DataError(f"{rows.place(number)}: {row.problem}")
            yield number, str(row[text_column]), row

    return strict()


def read_examples(rows: Table, text_column: str, label_column: str) -> Examples:
    """Reads all rows of a split.

    Raises:
        DataError: A column is missing, a row has no text or no label, or there are no rows.
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
        raise DataError(f"{rows} has the columns {listing(rows.columns)} but no rows: add some")
    return examples


def hold_out(examples: Examples, share: float, seed: int) -> tuple[Examples, Examples]:
    """Splits examples in two, stratified by class and in the order of the data.

    A class of two or more texts has at least one held out, and every class keeps at least one.

    Args:
        examples: The examples to split.
        share: Share to hold out, in (0, 0.5].
        seed: Seed of the random choice.

    Returns:
        The remaining and the held-out examples.
    """
    # RandomState instead of default_rng: numpy guarantees that its stream never changes.
    random = np.random.RandomState(seed)
    by_class: dict[str, list[int]] = {}
    for index, value in enumerate(examples.values):
        by_class.setdefault(value, []).append(index)
    held_out: set[int] = set()
    for _, indices in sorted(by_class.items()):
        count = max(1, round(share * len(indices))) if len(indices) > 1 else 0
        held_out.update(random.permutation(indices)[:count].tolist())
    remaining = [index for index in range(len(examples)) if index not in held_out]
    return examples.take(remaining), examples.take(sorted(held_out))


def _require(rows: Table, column: str, flag: str) -> None:
    if column not in rows.columns:
        raise DataError(
            f"{rows} has no column {column!r}, only {listing(rows.columns)}: choose one with {flag}"
        )


def _problem(text: object) -> str:
    if text is None or text != text or text in ("nan", "NaN"):
        return "is NaN or null; add a text or remove the row"
    if not isinstance(text, str):
        return f"is of type {type(text).__name__}, not a string"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "contains half of a surrogate pair, which is not valid UTF-8"
    return ""
