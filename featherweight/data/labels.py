"""Label values -> class names."""

import math
import re
from collections.abc import Collection, Sequence
from pathlib import Path

from featherweight.errors import DataError, UsageError

LABELS_FILE = "labels.txt"
_INTEGER = re.compile(r"-?[0-9]{1,18}")
_NO_LABEL = "no label; add one or remove the row"


def label_value(value: object) -> str:
    """Returns a label cell as text; an integer, or a float without fraction, as its digits.

    Raises:
        ValueError: The cell has no valid label; the message completes "line 7: ...".
    """
    if isinstance(value, str):
        value = value.strip()
        if value in ("", "nan", "NaN"):
            raise ValueError(_NO_LABEL)
        return value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        raise ValueError(_NO_LABEL)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return str(int(value))
    raise ValueError(f"the label is of type {type(value).__name__}, not a name or an integer")


def sorted_names(values: Collection[str]) -> tuple[str, ...]:
    """Returns the distinct values in order: integers numerically, names alphabetically."""
    if all(map(_INTEGER.fullmatch, values)):
        return tuple(sorted(set(values), key=int))
    return tuple(sorted(set(values)))


def numbered_names(values: Collection[str], names: Sequence[str]) -> dict[str, str]:
    """Maps integers in the data to the class names with those ids.

    The map is empty if the data has names, or if a class name is itself an integer (such as
    the stars of a review): integers are then ordinary names.

    Args:
        values: The label values of the training texts.
        names: The C class names in id order.
    """
    if any(map(_INTEGER.fullmatch, names)) or not all(map(_INTEGER.fullmatch, values)):
        return {}
    return {str(i): name for i, name in enumerate(names)}


def parse_names(value: str, flag: str = "--labels") -> tuple[str, ...]:
    """Returns the names of `--labels a,b,c`, or of another flag; none for an empty value.

    Raises:
        UsageError: There is only one name, an empty one, or a duplicate.
    """
    if not value.strip():
        return ()
    names = tuple(name.strip() for name in value.split(","))
    problem = _problem(names)
    if problem:
        raise UsageError(f"{flag} {value}: {problem}")
    return names


def read_names(path: Path) -> tuple[str, ...]:
    """Returns the names in a file with one name per line, in id order; none without the file.

    Raises:
        DataError: There is only one name or a duplicate, or the file is not UTF-8.
    """
    if not path.is_file():
        return ()
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8; save the file as UTF-8") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    names = tuple(line.strip() for line in lines if line.strip())
    problem = _problem(names)
    if problem:
        raise DataError(f"{path}: {problem}")
    return names


def _problem(names: tuple[str, ...]) -> str:
    if "" in names:
        return "a name is empty"
    if len(names) < 2:
        return "at least two names are needed"
    duplicates = [name for name in names if names.count(name) > 1]
    return f"{duplicates[0]} is listed twice" if duplicates else ""
