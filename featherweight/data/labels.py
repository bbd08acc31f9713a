"""Label values -> class names, and what is wrong with values that are no classes."""

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Sequence
from decimal import Decimal
from pathlib import Path

from featherweight.data.rows import listing
from featherweight.errors import DataError, UsageError

LABELS_FILE = "labels.txt"
EMOTION = ("sadness", "joy", "love", "anger", "fear", "surprise")  # ids of dair-ai/emotion
_NAME_LISTS = {"emotion": EMOTION}  # short names for --labels
_INTEGER = re.compile(r"-?[0-9]{1,18}")
_WHOLE_NUMBER = re.compile(r"(-?[0-9]{1,18})\.0*")  # such as 1.0, as pandas writes ids
_NULLS = {"None", "NULL", "null", "nan", "NaN", "NAN", "<NA>", "#N/A"}
_UNLABELED_ID = "-1"  # of a hidden test split, as in GLUE
_DECIMAL = re.compile(r"-?[0-9]*\.[0-9]+(?:[eE][+-]?[0-9]+)?|-?[0-9.]+[eE]-[0-9]+")
_SEPARATORS = "|;,"
_MIN_ROWS = 20  # fewer say nothing about the number of classes
_MIN_TEXTS = 2  # mean per class, below which the column does not contain classes
_FEW_TEXTS = 5  # mean per class, below which it is doubtful
_EMOTION_FLAG = f"--labels emotion (short for --labels {','.join(EMOTION)})"
_LIST = re.compile(r"\[\s*(?:['\"0-9-].*)?\]", re.DOTALL)  # as pandas writes lists into CSV files


def label_value(value: object) -> str:
    """Returns a label cell as text, the same for every file format; "" if there is no label.

    Raises:
        ValueError: The cell is no single label; the message completes "line 7: ...".
    """
    if isinstance(value, list | tuple) or (isinstance(value, str) and _LIST.fullmatch(value)):
        raise ValueError(
            f"the label is a list, {value!s:.60}; a text has one label: keep the rows with one "
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
        UsageError: There is only one name, an empty one, or a duplicate.
    """
    if not value.strip():
        return ()
    if value.strip() in _NAME_LISTS:
        return _NAME_LISTS[value.strip()]
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
    counts = Counter(map(canonical, names))
    duplicates = [name for name in names if counts[canonical(name)] > 1]
    return f"{duplicates[0]} is listed twice" if duplicates else ""


def without_nulls(values: Sequence[str], names: Collection[str]) -> list[str]:
    """Returns label values with "" for those such as NULL, unless a class has that name."""
    nulls = _NULLS - set(names)
    return ["" if value in nulls else value for value in values]


def is_unlabeled(values: Collection[str], names: Collection[str]) -> bool:
    """Returns whether no text of a test split has a label; -1 is none unless a class has it."""
    labels = set(values)
    return labels == {""} or (labels == {_UNLABELED_ID} and _UNLABELED_ID not in names)


def unsuitable(
    values: Sequence[str], names: Collection[str], listed: bool
) -> tuple[str, str] | None:
    """Returns a label that is no class, and why, or None if all are classes.

    Args:
        values: The labels of the training texts.
        names: Known class names, which are classes whatever they look like.
        listed: Whether the data or the flags list the class names.
    """
    distinct = dict.fromkeys(values)
    unlisted = [value for value in distinct if value not in names]
    for value in filter(_DECIMAL.fullmatch, unlisted):
        return value, (
            f"the label {value} is a decimal number, not a class: replace it by a name such as "
            "low or high, or list all classes in labels.txt"
        )
    if not listed and _mean_texts(values) < _MIN_TEXTS:
        return values[0], (
            f"{values[0]!r:.40} is one of {len(distinct):,} different labels in {len(values):,} "
            "training texts: choose the column of the classes with --label_column, or list all "
            "classes in labels.txt"
        )
    for value in unlisted:
        if _joins_labels(value, {*distinct, *names}):
            return value, (
                f"{value!r} is several labels; a text has one: keep the rows with one, or, if "
                "this is one class, list all classes in labels.txt"
            )
    return None


def require_names(ids: Collection[str], labels: Sequence[str], data: str) -> None:
    """Refuses ids without names for a model that has names: its order may be another.

    Raises:
        DataError: The label values are integers, and no class name is.
    """
    if any(map(is_id, labels)) or not all(map(is_id, ids)):
        return
    emotion = f"; those of dair-ai/emotion with {_EMOTION_FLAG}" if _is_emotion(labels) else ""
    raise DataError(
        f"{data} has the ids {listing(sorted_names(ids))} without names, and the trained model "
        f"has the labels {listing(labels)}: list the name of each id, from 0, with --labels or "
        f"one a line in labels.txt beside the data{emotion}"
    )


def remarks(values: Sequence[str]) -> list[str]:
    """Returns what is probably unintended in the labels of training texts that none are listed for.

    Args:
        values: The labels of the training texts.
    """
    names = sorted(set(values))
    lines = []
    spellings: dict[str, list[str]] = {}
    for name in names:
        spellings.setdefault(_spelling(name), []).append(repr(name))
    variants = [" and ".join(alike) for alike in spellings.values() if len(alike) > 1]
    if variants:
        lines.append(
            f"labels that differ only in their spelling are separate classes: {listing(variants)}; "
            "write them alike in the data if they are one class"
        )
    ids = [name for name in names if is_id(name)]
    if ids and len(ids) < len(names):
        others = [name for name in names if not is_id(name)]
        lines.append(
            f"the labels mix integers ({listing(ids)}) and names ({listing(others)}), and each is "
            "a class: write them alike in the data if some are the same"
        )
    if names == [str(index) for index in range(len(EMOTION))]:
        lines.append(
            "the labels are the ids 0 to 5 without names: if they are those of dair-ai/emotion, "
            f"name them with {_EMOTION_FLAG}"
        )
    if _mean_texts(values) < _FEW_TEXTS:
        lines.append(
            f"{len(names):,} different labels in {len(values):,} training texts: if they are not "
            "the classes, choose another column with --label_column"
        )
    return lines


def unknown_label(value: str, labels: Sequence[str], origin: str, hint: str) -> str:
    """Returns the problem of a label that is not among the classes, and what to do.

    Args:
        value: The label.
        labels: The classes.
        origin: Where the classes come from.
        hint: What to do if no class is spelled almost like the label.
    """
    alike = [name for name in labels if _spelling(name) == _spelling(value)]
    advice = f"did you mean {alike[0]!r}?" if alike else hint
    return f"unknown label {value!r}; the labels from {origin} are {listing(labels)}; {advice}"


def _joins_labels(value: str, labels: Collection[str]) -> bool:
    """Returns whether a value joins several labels, at least one of which occurs alone."""
    joined = [value.split(separator) for separator in _SEPARATORS if separator in value]
    return any(canonical(part) in labels for parts in joined for part in parts)


def _mean_texts(values: Sequence[str]) -> float:
    """Returns the mean number of texts per label, infinite if there are too few to judge."""
    return len(values) / len(set(values)) if len(values) >= _MIN_ROWS else float("inf")


def _spelling(name: str) -> str:
    """Returns what variants of a name have in common: letters without case, width and spaces."""
    return "".join(unicodedata.normalize("NFKC", name).casefold().split())


def _is_emotion(labels: Sequence[str]) -> bool:
    return sorted(labels) == sorted(EMOTION)
