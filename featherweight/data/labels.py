"""Label values -> class names: as they stand, or by number where a list names the numbers."""

import math
import re
from collections.abc import Collection, Sequence
from pathlib import Path

from featherweight.errors import DataError, UsageError

LABELS_FILE = "labels.txt"
_INTEGER = re.compile(r"-?[0-9]{1,18}")


def label_value(value: object) -> str:
    """Returns the text of a label cell; an integer, or a whole float, in its digits.

    Raises:
        ValueError: The cell holds no label; the message completes "line 7: ...".
    """
    if isinstance(value, str):
        value = value.strip()
        if value in ("", "nan", "NaN"):
            raise ValueError("no label; complete or remove the row")
        return value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        raise ValueError("no label; complete or remove the row")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return str(int(value))
    raise ValueError(f"the label is of type {type(value).__name__}, not a name or an integer")


def sorted_names(values: Collection[str]) -> tuple[str, ...]:
    """Returns the distinct values in order: integers as numbers, names by the alphabet."""
    if all(map(_INTEGER.fullmatch, values)):
        return tuple(sorted(set(values), key=int))
    return tuple(sorted(set(values)))


def numbered_names(values: Collection[str], names: Sequence[str]) -> dict[str, str]:
    """Maps the integers that stand in the data onto the names that a list gives them.

    Empty where the data holds names, and where a name is itself an integer (the stars of a
    review, say): integers are names like any other then.

    Args:
        values: The label values of the training texts.
        names: The C class names in id order.
    """
    if any(map(_INTEGER.fullmatch, names)) or not all(map(_INTEGER.fullmatch, values)):
        return {}
    return {str(i): name for i, name in enumerate(names)}


def parse_names(flag: str, option: str = "--labels") -> tuple[str, ...]:
    """Returns the names of `--labels a,b,c`, or of another option; none of an empty flag.

    Raises:
        UsageError: There is one name only, an empty one, or one that stands twice.
    """
    if not flag.strip():
        return ()
    names = tuple(name.strip() for name in flag.split(","))
    problem = _problem(names)
    if problem:
        raise UsageError(f"{option} {flag}: {problem}")
    return names


def read_names(path: Path) -> tuple[str, ...]:
    """Returns the names of a file with one name a line, in id order; none if there is no file.

    Raises:
        DataError: There is one name only, one that stands twice, or the file is not UTF-8.
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
        return "it needs two names or more"
    twice = [name for name in names if names.count(name) > 1]
    return f"{twice[0]} stands twice" if twice else ""
