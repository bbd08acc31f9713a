"""Answers as cells of a CSV file that a spreadsheet opens without running anything."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any

from featherweight.classifier import FloatArray

PREDICTION_COLUMNS = ("predicted_label", "predicted_emotion", "confidence")
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def prediction_cells(
    labels: Sequence[str], probabilities: FloatArray
) -> Iterator[tuple[int, str, str]]:
    """Yields class id, label name and confidence for each row of (N, C) probabilities."""
    for row, label in zip(probabilities, probabilities.argmax(axis=1), strict=True):
        yield int(label), labels[label], f"{row[label]:.6f}"


def safe_cell(value: object) -> object:
    """Puts an apostrophe before a text that a spreadsheet would run; numbers stay numbers.

    Source: https://owasp.org/www-community/attacks/CSV_Injection
    """
    if isinstance(value, str) and value.startswith(_FORMULA_STARTS) and not _is_number(value):
        return f"'{value}"
    return value


def write_rows(file: IO[Any], rows: Iterable[Sequence[object]], raw: bool = False) -> None:
    """Writes rows as CSV, each cell made safe unless `raw`."""
    # Line ends of RFC 4180: with bare "\n" the writer would leave a "\r" in a cell unquoted.
    writer = csv.writer(file, lineterminator="\r\n")
    for row in rows:
        writer.writerow(row if raw else [safe_cell(cell) for cell in row])


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
