"""Values as cells of a CSV file that is safe to open in a spreadsheet, and as JSON."""

import csv
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any

from featherweight.classifier import FloatArray

_FORMULA_STARTS = frozenset("=+-@\t\r")


def prediction_cells(
    labels: Sequence[str], probabilities: FloatArray
) -> Iterator[tuple[int, str, str]]:
    """Yields class id, label name and confidence for each row of (N, C) probabilities."""
    for row, label in zip(probabilities, probabilities.argmax(axis=1), strict=True):
        yield int(label), labels[label], f"{row[label]:.6f}"


def to_json(value: object) -> str:
    """Returns a value as JSON; NaN and infinity, which JSON does not have, become null."""
    try:
        return json.dumps(value, ensure_ascii=False, default=_as_text, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(value), ensure_ascii=False, default=_as_text)


def csv_cell(value: object) -> object:
    """Returns a value as a CSV cell: a missing one is empty, a nested one is JSON."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, (bool, list, dict)):
        return to_json(value)
    return _as_text(value) if isinstance(value, bytes) else value


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


def _as_text(value: object) -> str:
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, (list, tuple)) else value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
