"""Predictions as cells of a CSV file that is safe to open in a spreadsheet."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any

from featherweight.classifier import FloatArray

PREDICTION_COLUMNS = ("predicted_label", "predicted_emotion", "confidence")
_FORMULA_STARTS = frozenset("=+-@\t\r")


def prediction_cells(
    labels: Sequence[str], probabilities: FloatArray
) -> Iterator[tuple[int, str, str]]:
    """Yields class id, label name and confidence for each row of (N, C) probabilities."""
    for row, label in zip(probabilities, probabilities.argmax(axis=1), strict=True):
        yield int(label), labels[label], f"{row[label]:.6f}"


def safe_cell(value: object) -> object:
    """Prefixes a text that a spreadsheet would execute with an apostrophe; numbers stay numbers.

    Source: https://owasp.org/www-community/attacks/CSV_Injection
    """
    if not isinstance(value, str) or value[:1] not in _FORMULA_STARTS or _is_number(value):
        return value
    return f"'{value}"


def write_rows(file: IO[Any], rows: Iterable[Sequence[object]], raw: bool = False) -> None:
    """Writes rows as CSV, each cell made safe unless `raw`."""
    # Line ends of RFC 4180: with "\n" the writer would leave a "\r" in a cell unquoted.
    writer = csv.writer(file, lineterminator="\r\n")
    for row in rows:
        writer.writerow(row if raw else [safe_cell(cell) for cell in row])


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
