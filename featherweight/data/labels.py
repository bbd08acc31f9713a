"""Label values -> class names."""

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Sequence
from decimal import Decimal
from pathlib import Path

from featherweight.errors import DataError, UsageError, quoted, shortened
from featherweight.reports.terminal import controls_terminal, printable

LABELS_FILE = "labels.txt"
EMOTION = ("sadness", "joy", "love", "anger", "fear", "surprise")  # ids of dair-ai/emotion
_NAME_LISTS = {"emotion": EMOTION}  # short names for --labels
_INTEGER = re.compile(r"-?[0-9]{1,18}")
_WHOLE_NUMBER = re.compile(r"(-?[0-9]{1,18})\.0*")  # such as 1.0, as pandas writes ids
_LIST = re.compile(r"\[\s*(?:['\"0-9-].*)?\]", re.DOTALL)  # as pandas writes lists into CSV files


def label_value(value: object) -> str:
    """Returns a label cell as text, the same for every file format; "" if there is no label.

    Raises:
        ValueError: The cell is no single label; the message completes "line 7: ...".
    """
    if isinstance(value, list | tuple) or (isinstance(value, str) and _LIST.fullmatch(value)):
        raise ValueError(
            f"the label is a list, {quoted(value)}; a text has one label: keep the rows with one "
            "and write its name"
        )
    if value is None or value != value:  # NaN
        return ""
    if isinstance(value, int | float | Decimal | str):
        return canonical(str(value))
    raise ValueError(f"the label is of type {type(value).__name__}, not a name or an integer")


def canonical(name: str) -> str:
    """Returns the one spelling of a label that file formats write differently.

    1.0 becomes 1, True and TRUE become true; Unicode becomes NFC, without surrounding spaces.
    """
    name = unicodedata.normalize("NFC", name.strip())
    if whole := _WHOLE_NUMBER.fullmatch(name):
        return str(int(whole[1]))
    return name.lower() if name.lower() in ("true", "false") else name


def control_problem(name: str) -> str:
    """Returns what is wrong with a class name that would control a terminal, or ""."""
    if controls_terminal(name):
        return f"the label {quoted(name)} contains a control character: rename it"
    return ""


def is_id(name: str) -> bool:
    """Returns whether a label is an integer."""
    return _INTEGER.fullmatch(canonical(name)) is not None


def sorted_names(values: Collection[str]) -> tuple[str, ...]:
    """Returns the distinct values in order: integers numerically, names alphabetically."""
    if all(map(is_id, values)):
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
    if any(map(is_id, names)) or not all(map(is_id, values)):
        return {}
    return {str(i): name for i, name in enumerate(names)}


def parse_names(value: str, flag: str = "--labels") -> tuple[str, ...]:
    """Returns the names of `--labels a,b,c`, or of another flag; none for an empty value.

    `emotion` alone stands for the names of that data set.

    Raises:
        UsageError: There is only one name, an empty one, a duplicate, or a control character.
    """
    if not value.strip():
        return ()
    if value.strip() in _NAME_LISTS:
        return _NAME_LISTS[value.strip()]
    names = tuple(name.strip() for name in value.split(","))
    problem = _problem(names)
    if problem:
        raise UsageError(f"{flag} {shortened(printable(value))}: {problem}")
    return names


def read_names(path: Path) -> tuple[str, ...]:
    """Returns the names in a file with one name per line, in id order; none without the file.

    Raises:
        DataError: There is only one name, a duplicate, or a control character, or the file is not
            UTF-8.
    """
    if not path.is_file():
        return ()
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
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
    counts = Counter(map(canonical, names))
    duplicates = [name for name in names if counts[canonical(name)] > 1]
    if duplicates:
        return f"{shortened(duplicates[0])} is listed twice"
    return next(filter(None, map(control_problem, names)), "")
