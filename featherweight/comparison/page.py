"""Renders a comparison's record as one self-contained HTML page that makes no network requests."""

import base64
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from featherweight.comparison import tables, text
from featherweight.comparison.plots import front_models
from featherweight.comparison.record import Record, model_name
from featherweight.reports.numbers import probability, three_digits, with_interval

_SIGNS = {"noisy": "⚠", "wrong": "✗", "better": "▲", "worse": "▼", "same": "○"}
_TABLES = {
    "figures": tables.all_figures,
    "against": tables.against_reference,
    "labels": tables.by_label,
    "robustness": tables.robustness,
    "disagreements": tables.disagreements,
    "times": tables.times,
}


def comparison_page(record: Record, pictures: Mapping[str, bytes]) -> str:
    """Returns the HTML of a comparison.

    The page embeds its style, script and pictures; its Content-Security-Policy allows no other.

    Args:
        record: The JSON record of a comparison.
        pictures: PNGs by name; see `plots.pictures`.
    """
    loader = PackageLoader("featherweight.comparison", "assets")
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, script = (loader.get_source(environment, name)[0] for name in ("page.css", "sort.js"))
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; "
        f"script-src '{_hash(script)}'; base-uri 'none'; form-action 'none'"
    )
    return environment.get_template("page.html.jinja").render(
        policy=policy,
        style=style,
        script=script,
        signs=_SIGNS,
        record=record,
        best=_best(record),
        front=front_models(record),
        others=[_summary(row) for row in record["rows"] if row["model"] != record["reference"]],
        tables={name: build(record).shown_in("page") for name, build in _TABLES.items()},
        legend=text.explanations(record, _SIGNS["noisy"]),
        pictures={name: base64.b64encode(png).decode() for name, png in pictures.items()},
        environment=list(_flattened(record["environment"])),
    )


def _best(record: Record) -> tuple[str, str] | None:
    """Returns the model with the highest macro-F1, and its score; None if there are no scores."""
    scored = [row for row in record["rows"] if row["scores"]]
    if not scored:
        return None
    best = max(scored, key=lambda row: row["scores"]["macro_f1"])
    bounds = (best["intervals"] or {}).get("macro_f1")
    score = best["scores"]["macro_f1"]
    return model_name(best), with_interval(score, bounds) if bounds else f"{score:.4f}"


def _summary(row: Record) -> dict[str, Any]:
    """Returns how a model differs from the reference: its tests, and its ratios in words."""
    ratios = row["ratios"]
    facts = [] if row["scores"] else ["quality not known"]
    if ratios["size"] is not None:
        facts.append(f"{three_digits(ratios['size'])} × the size")
    for device, by_batch in ratios["speed"].items():
        speeds = [f"{three_digits(ratio)} × at batch {size}" for size, ratio in by_batch.items()]
        facts.append(f"speed on the {tables.DEVICES[device]} {', '.join(speeds)}")
    tests = [
        (
            tables.TESTED[metric],
            tables.verdict(test),
            f"({test['difference']:+.4f}, p {probability(test['adjusted_p'])})",
        )
        for metric, test in (row["tests"] or {}).items()
    ]
    return {"model": model_name(row), "tests": tests, "facts": facts}


def _flattened(mapping: Record, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yields name and value of each entry; a nested entry is prefixed with its parent's name."""
    for key, value in mapping.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, Mapping):
            yield from _flattened(value, f"{name} ")
        elif isinstance(value, list | tuple):
            yield name, ", ".join(map(str, value))
        elif value is not None:
            yield name, str(value)


def _hash(content: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}"
