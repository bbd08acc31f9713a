"""What is wrong with label values that are no classes: missing, decimal, several, too many."""

import re
import unicodedata
from collections.abc import Collection, Sequence

from featherweight.data.labels import EMOTION, canonical, control_problem, is_id, sorted_names
from featherweight.data.rows import listing
from featherweight.errors import DataError, quoted, shortened

_NULLS = {"None", "NULL", "null", "nan", "NaN", "NAN", "<NA>", "#N/A"}
_UNLABELED_ID = "-1"  # of a hidden test split, as in GLUE
_DECIMAL = re.compile(r"-?[0-9]*\.[0-9]+(?:[eE][+-]?[0-9]+)?|-?[0-9.]+[eE]-[0-9]+")
_SEPARATORS = "|;,"
_MIN_ROWS = 20  # fewer say nothing about the number of classes
_MIN_TEXTS = 2  # mean per class, below which the column does not contain classes
_FEW_TEXTS = 5  # mean per class, below which it is doubtful
_EMOTION_FLAG = f"--labels emotion (short for --labels {','.join(EMOTION)})"


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
    for value in unlisted:
        if problem := control_problem(value):
            return value, problem
    for value in filter(_DECIMAL.fullmatch, unlisted):
        return value, (
            f"the label {shortened(value)} is a decimal number, not a class: replace it by a name "
            "such as low or high, or list all classes in labels.txt"
        )
    if not listed and _mean_texts(values) < _MIN_TEXTS:
        return values[0], (
            f"{quoted(values[0])} is one of {len(distinct):,} different labels in {len(values):,} "
            "training texts: choose the column of the classes with --label_column, or list all "
            "classes in labels.txt"
        )
    for value in unlisted:
        if _joins_labels(value, {*distinct, *names}):
            return value, (
                f"{quoted(value)} is several labels; a text has one: keep the rows with one, or, "
                "if this is one class, list all classes in labels.txt"
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
    advice = f"did you mean {quoted(alike[0])}?" if alike else hint
    return (
        f"unknown label {quoted(value)}; the labels from {origin} are {listing(labels)}; {advice}"
    )


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
