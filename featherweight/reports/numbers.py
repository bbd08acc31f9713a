"""How numbers are shown in tables, and plain tables of numbers."""

import statistics
from collections.abc import Sequence
from decimal import Decimal

from tabulate import tabulate

from featherweight.data.rows import listing

DASH = "–"  # not measured


def three_digits(value: float) -> str:
    """Returns a number to three significant digits, never with an exponent: 0.954, 12.3, 1,740."""
    return f"{Decimal(f'{value:.3g}'):,f}"


def interval(bounds: Sequence[float]) -> str:
    """Returns the bounds of an interval: [0.935, 0.959]."""
    return f"[{bounds[0]:.3f}, {bounds[1]:.3f}]"


def with_interval(score: float, bounds: Sequence[float]) -> str:
    """Returns a score with its interval: 0.9470 [0.935, 0.959]."""
    return f"{score:.4f} {interval(bounds)}"


def spread(values: Sequence[float]) -> str:
    """Returns the mean over seeds with the standard deviation, if there are several."""
    if len(values) == 1:
        return f"{values[0]:.4f}"
    return f"{statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}"


def probability(value: float) -> str:
    """Returns a p-value to three significant digits, or "< 0.0001"."""
    return "< 0.0001" if value < 0.0001 else three_digits(value)


def macro_limit(split: str, num_labels: int, missing: Sequence[str]) -> str:
    """Returns how high macro averages can be if classes have no text in a split; "" if all have.

    Precision, recall and F1 of a class without a text are 0, and the averages are over all C
    classes: with K of them missing, at most (C - K) / C.

    Args:
        split: Name of the split.
        num_labels: The number of classes, C.
        missing: Labels of the K classes without a text.
    """
    if not missing:
        return ""
    present = num_labels - len(missing)
    return (
        f"The {split} split has no text of {listing(missing)}, so macro averages over all "
        f"{num_labels} classes are at most {present}/{num_labels} = {present / num_labels:.4f}."
    )


def number_table(
    headers: Sequence[str], rows: Sequence[Sequence[str]], tablefmt: str = "simple"
) -> str:
    """Returns a table whose first column is aligned left and the others right."""
    align = ("left", *["right"] * (len(headers) - 1))
    return tabulate(rows, headers, tablefmt=tablefmt, colalign=align, disable_numparse=True)
