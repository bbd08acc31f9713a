"""Which classes a table shows where a data set has many."""

from collections.abc import Mapping, Sequence
from typing import Any

MAX_CLASSES = 30  # that a table lists and a picture names
_EACH_END = 10


def shown_classes(models: Sequence[Mapping[str, Mapping[str, Any]]]) -> list[str]:
    """Returns the labels in a table of scores: all, or the ten worst and the ten best of many.

    Args:
        models: "f1" and "support" by label of each model, at least one; the labels are ordered by
            the mean F1, and of equal ones the label with more texts comes first.
    """
    labels = list(models[0])
    if len(labels) <= MAX_CLASSES:
        return labels
    labels.sort(
        key=lambda label: (
            sum(model[label]["f1"] for model in models),
            -models[0][label]["support"],
        )
    )
    return labels[:_EACH_END] + labels[-_EACH_END:]


def hidden_classes(count: int, file: str) -> str:
    """Returns a line on the classes that `shown_classes` leaves out, or "" if there are none.

    Args:
        count: Number of all classes.
        file: Name of the JSON file that has all.
    """
    if count <= MAX_CLASSES:
        return ""
    hidden = count - 2 * _EACH_END
    return (
        f"{hidden} of {count} labels are not shown, those between the ten lowest and the ten "
        f"highest F1; --json and {file} have all."
    )
