"""Rows -> validated texts and label values, and their stratified split."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from featherweight.data.files.formats import BadRow, Record, Values
from featherweight.data.folders import split_of
from featherweight.data.labels import label_value
from featherweight.data.rows import Table, listing
from featherweight.errors import DataError, quoted

logger = logging.getLogger("featherweight")

SPLIT_COLUMN = "split"
_SAMPLE_ROWS = 100  # read to describe the columns of a file without the wanted one


@dataclass(frozen=True)
class Examples:
    """N texts and label values of a split, before labels are mapped to class ids."""

    texts: list[str]
    values: list[str]  # labels in their canonical spelling, "" where there is none
    numbers: list[int]  # line or row in the file, from 1
    place: Callable[[int], str]  # names such a line or row in an error message
    splits: list[str] = field(default_factory=list)  # cells of the column `split`, if there is one

    def __len__(self) -> int:
        return len(self.texts)

    def where(self, value: str) -> str:
        """Returns the place of the first row with a label."""
        return self.place(self.numbers[self.values.index(value)])

    def take(self, indices: Sequence[int]) -> "Examples":
        """Returns the examples at these indices."""
        return Examples(
            [self.texts[i] for i in indices],
            [self.values[i] for i in indices],
            [self.numbers[i] for i in indices],
            self.place,
            [self.splits[i] for i in indices] if self.splits else [],
        )


def checked_rows(rows: Table, text_column: str) -> Iterator[Record]:
    """Returns an iterator of records in which a row without a valid text is a `BadRow`.

    Raises:
        DataError: The column is missing; while iterating, the remaining rows cannot be read.
    """
    if text_column not in rows.columns:
        raise DataError(_no_text_column(rows, text_column))

    column = quoted(text_column)

    def checked() -> Iterator[Record]:
        for number, row in rows:
            if not isinstance(row, BadRow) and (problem := _problem(row.get(text_column))):
                yield number, BadRow(f"{column} {problem}", row)
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


def read_examples(
    rows: Table, text_column: str, label_column: str, optional_labels: bool = False
) -> Examples:
    """Reads all rows of a split.

    Args:
        rows: The rows.
        text_column: Column with the text.
        label_column: Column with the label.
        optional_labels: Whether the label column may be missing, as in a hidden test split.

    Raises:
        DataError: A column is missing, a row has no text or more than one label, or there are no
            rows.
    """
    texts = text_rows(rows, text_column)
    if label_column not in rows.columns and not optional_labels:
        raise DataError(_no_label_column(rows, text_column, label_column))
    has_splits = SPLIT_COLUMN in {*rows.columns} - {text_column, label_column}
    examples = Examples([], [], [], rows.place)
    for number, text, values in texts:
        try:
            examples.values.append(label_value(values.get(label_column)))
        except ValueError as error:
            raise DataError(f"{rows.place(number)}: {error}") from None
        examples.texts.append(text)
        examples.numbers.append(number)
        if has_splits:
            examples.splits.append(str(values.get(SPLIT_COLUMN) or "").strip())
    if not examples:
        raise DataError(f"{rows} has the columns {listing(rows.columns)} but no rows: add some")
    return examples


def divided(examples: Examples) -> dict[str, Examples]:
    """Divides the examples of a file by its column `split`.

    Returns:
        The examples by split; none if the file has no such column, or only one split, or values
            that are no splits.
    """
    if not any(examples.splits):
        return {}
    parts: dict[str, list[int]] = {}
    for index, value in enumerate(examples.splits):
        parts.setdefault(split_of(value), []).append(index)
    if parts.keys() == {"train"}:
        return {}
    if "" in parts or "train" not in parts:
        index = parts[""][0] if "" in parts else 0
        reason = (
            f"{quoted(examples.splits[index])} is no split" if "" in parts else "no row is of train"
        )
        logger.warning(
            f"{examples.place(examples.numbers[index])}: the column {SPLIT_COLUMN!r} is ignored, "
            f"because {reason}; the splits are train, validation and test"
        )
        return {}
    return {split: examples.take(indices) for split, indices in parts.items()}


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


def _no_text_column(rows: Table, column: str) -> str:
    """Returns what to do without the column of texts; texts in several columns are a pair."""
    sample = _sample(rows)
    worded = [name for name in rows.columns if all(map(_is_text, sample.get(name, [""])))]
    problem = f"{rows} has no column {quoted(column)}, only {listing(rows.columns)}"
    if any(map(_is_text, rows.columns)):
        return f"{problem}: choose one with --text_column; if that line is a row, use --no_header"
    if len(rows.columns) == 1 and not rows.columns[0].isidentifier():
        return f"{problem}: choose one with --text_column, or separate columns with --delimiter"
    if len(worded) < 2:
        return f"{problem}: choose one with --text_column"
    return (
        f"{problem}: choose one with --text_column, or, if {listing(worded)} belong together, "
        "join them into one column, because a model reads one text a row"
    )


def _no_label_column(rows: Table, text_column: str, column: str) -> str:
    """Returns what to do without the column of labels; columns of 0 and 1 are one-hot labels."""
    sample = _sample(rows)
    flags = [name for name in rows.columns if all(map(_is_flag, sample.get(name, [""])))]
    problem = f"{rows} has no column {quoted(column)}, only {listing(rows.columns)}"
    if len(flags) < 2:
        return f"{problem}: choose one with --label_column"
    return (
        f"{problem}: keep the rows with a single 1 in {listing(flags)}, and write the name of its "
        f"column into a column {quoted(column)}, because a text has one label"
    )


def _sample(rows: Table) -> dict[str, list[object]]:
    """Returns the values by column in the first rows that can be read."""
    sample: dict[str, list[object]] = {}
    for _, values in islice(rows, _SAMPLE_ROWS):
        for name, value in ({} if isinstance(values, BadRow) else values).items():
            sample.setdefault(name, []).append(value)
    return sample


def _is_text(value: object) -> bool:
    return isinstance(value, str) and " " in value.strip()


def _is_flag(value: object) -> bool:
    return str(value).strip().lower() in {"0", "1", "0.0", "1.0", "true", "false"}


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
