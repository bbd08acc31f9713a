"""How the templates format values: the jinja2 filters."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tabulate import tabulate

from featherweight.reports.numbers import DASH, three_digits


def aligned(table: str) -> str:
    """Pads the columns of a Markdown table; `-:` in its second line aligns to the right."""
    headers, rules, *rows = (
        [cell.strip() for cell in line.strip()[1:-1].split("|")]
        for line in table.strip().splitlines()
    )
    align = ["right" if rule.endswith(":") else "left" for rule in rules]
    padded = tabulate(rows, headers, tablefmt="github", colalign=align, disable_numparse=True)
    return f"{padded}\n"


def interval(bounds: Sequence[float]) -> str:
    """Returns the bounds of an interval as "[low, high]"."""
    return f"[{bounds[0]:.3f}, {bounds[1]:.3f}]"


def score(evaluation: Mapping[str, Any] | None, metric: str) -> str:
    """Returns a metric with its interval, or a dash for a model that was only timed."""
    if not evaluation:
        return DASH
    return f"{evaluation[metric]:.4f} {interval(evaluation['intervals'][metric])}"


def spread(evaluations: Iterable[Mapping[str, Any]], metric: str) -> str:
    """Returns the mean of a metric over seeds ± its standard deviation."""
    values = [evaluation[metric] for evaluation in evaluations]
    deviation = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4f}{deviation}"


def timing(timings: Mapping[str, Any], key: str) -> str:
    """Returns a measured time or rate, with a star if it is noisy."""
    return three_digits(timings[key]) + (" *" if timings["noisy"] else "")


FILTERS: Mapping[str, Callable[..., str]] = {
    "aligned": aligned,
    "digits": three_digits,
    "interval": interval,
    "kilobytes": lambda size_bytes: f"{size_bytes / 1000:,.0f}",
    "number": lambda value, spec=",": format(value, spec),
    "score": score,
    "spread": spread,
    "timing": timing,
}
