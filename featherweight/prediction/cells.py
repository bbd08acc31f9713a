"""Values as cells of a CSV file that is safe to open in a spreadsheet, and as JSON."""

import csv
import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any

from featherweight.classifier import FloatArray

# A line break or tab at the start, or a formula's sign, also in its full-width form; programs skip
# spaces and invisible signs before a sign.
_INVISIBLE = r"\0-\x1f\x7f-\x9f\xad\u034f\u061c\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
_FORMULA = re.compile(rf"[\t\r\n]|[\s{_INVISIBLE}\ufe00-\ufe0f\ufeff]*[=+\-@＝＋－＠]")


def prediction_cells(
    labels: Sequence[str], probabilities: FloatArray
) -> Iterator[tuple[int, str, str]]:
    """Yields class id, label name and confidence for each row of (N, C) probabilities."""
    for row, label in zip(probabilities, probabilities.argmax(axis=1), strict=True):
        yield int(label), labels[label], f"{row[label]:.6f}"


def to_json(value: object, ascii_only: bool = False) -> str:
    """Returns a value as JSON; NaN and infinity, which JSON does not have, become null.

    Args:
        value: The value.
        ascii_only: Escape all other characters, for streams of unknown encoding.
    """
    try:
        return json.dumps(value, ensure_ascii=ascii_only, default=_as_text, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(value), ensure_ascii=ascii_only, default=_as_text)


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
    return f"'{value}" if isinstance(value, str) and is_formula(value) else value


def is_formula(text: str) -> bool:
    """Returns whether a spreadsheet may execute a cell with this text; numbers are harmless."""
    return _FORMULA.match(text) is not None and not _is_number(text)


def write_rows(file: IO[Any], rows: Iterable[Sequence[object]], raw: bool = False) -> None:
    """Writes rows as CSV, each cell made safe unless `raw`."""
    # Line ends of RFC 4180: with "\n" the writer would leave a "\r" in a cell unquoted.
    writer = csv.writer(file, lineterminator="\r\n")
    writer.writerows(rows if raw else map(_safe_cells, rows))


def _safe_cells(row: Sequence[object]) -> list[object]:
    # Almost every text starts with a letter or a digit, which is seen faster than by a call.
    return [
        cell if type(cell) is not str or cell[:1].isalnum() else safe_cell(cell) for cell in row
    ]


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
