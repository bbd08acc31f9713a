"""How the templates format values: the jinja2 filters."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tabulate import tabulate

from featherweight.reports import numbers
from featherweight.reports.numbers import DASH, three_digits, with_interval


def aligned(table: str) -> str:
    """Pads the columns of a Markdown table; `-:` in its second line aligns to the right."""
    headers, rules, *rows = (
        [cell.strip() for cell in line.strip()[1:-1].split("|")]
        for line in table.strip().splitlines()
    )
    align = ["right" if rule.endswith(":") else "left" for rule in rules]
    padded = tabulate(rows, headers, tablefmt="github", colalign=align, disable_numparse=True)
    return f"{padded}\n"


def score(evaluation: Mapping[str, Any] | None, metric: str) -> str:
    """Returns a metric with its interval, or a dash for a model that was only timed."""
    if not evaluation:
        return DASH
    return with_interval(evaluation[metric], evaluation["intervals"][metric])


def spread(evaluations: Iterable[Mapping[str, Any]], metric: str) -> str:
    """Returns the mean of a metric over seeds ± its standard deviation."""
    return numbers.spread([evaluation[metric] for evaluation in evaluations])


def timing(timings: Mapping[str, Any], key: str) -> str:
    """Returns a measured time or rate, with a star if it is noisy."""
    return three_digits(timings[key]) + (" *" if timings["noisy"] else "")


FILTERS: Mapping[str, Callable[..., str]] = {
    "aligned": aligned,
    "digits": three_digits,
    "interval": numbers.interval,
    "kilobytes": lambda size_bytes: f"{size_bytes / 1000:,.0f}",
    "number": lambda value, spec=",": format(value, spec),
    "score": score,
    "spread": spread,
    "timing": timing,
}
