"""One self-contained HTML page of a comparison: opens from disk, asks the network for nothing."""

import base64
import hashlib
import importlib.resources
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from featherweight.comparison.page_tables import (
    DEVICES,
    NOISY,
    TESTED,
    badge,
    differences_table,
    disagreements_table,
    figures_table,
    interval,
    per_class_table,
    probability,
    robustness_table,
    times_table,
)
from featherweight.comparison.text import three_digits
from featherweight.reports.plots import (
    confusion_matrices,
    front_models,
    per_class_bars,
    trade_off,
    trade_off_rows,
)

Row = Mapping[str, Any]


def comparison_page(record: Row) -> str:
    """Returns the HTML of a comparison.

    The page holds its style, script and pictures, and its Content-Security-Policy allows no other.

    Args:
        record: The JSON record of a comparison.
    """
    data = record["data"]
    title = f"Comparison on {data['name']}, {data['split']} split, n = {data['n']:,}"
    style, script = _asset("page.css"), _asset("sort.js")
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; "
        f"script-src '{_hash(script)}'; base-uri 'none'; form-action 'none'"
    )
    sections = [
        _verdict(record),
        _figures(record),
        _trade_off(record),
        _differences(record),
        _per_class(record),
        _robustness(record),
        _disagreements(record),
        _measured(record),
    ]
    body = "\n".join(filter(None, sections))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{style}</style>
</head>
<body>
<h1>{escape(title)}</h1>
{body}
<script>{script}</script>
</body>
</html>
"""


def _verdict(record: Row) -> str:
    known = [row for row in record["rows"] if row["scores"]]
    best = max(known, key=lambda row: row["scores"]["macro_f1"], default=None)
    front = front_models(record)
    others = [row for row in record["rows"] if row["model"] != record["reference"]]
    parts = ["<h2>Verdict</h2>"]
    if best:
        score = f"{best['scores']['macro_f1']:.4f} {interval(best, 'macro_f1')}".strip()
        parts.append(f"<p>The highest macro-F1 is {score}, of {_name(best['model'])}.")
    if front:
        names = ", ".join(map(_name, front))
        parts.append(f"<p>Best trade-offs of macro-F1 and time for one text on the CPU: {names}.")
    if others:
        items = "\n".join(f"<li>{_name(row['model'])}: {_against(row)}</li>" for row in others)
        parts.append(f"<p>Against {_name(record['reference'])}:\n<ul>\n{items}\n</ul>")
        parts.append(
            '<p class="quiet">Paired tests on the same texts: exact McNemar for accuracy, '
            "bootstrap over texts for macro-F1 and for means over seeds; "
            "p is corrected for several comparisons (Holm). "
            "“No difference shown” is no proof that there is none."
        )
    return "\n".join(parts)


def _against(row: Row) -> str:
    """Returns in words how a row does beside the reference."""
    tests, ratios = row["tests"] or {}, row["ratios"] or {}
    parts = [
        f"{TESTED[metric]} {badge(test)} ({test['difference']:+.4f}, "
        f"p {probability(test['adjusted_p'])})"
        for metric, test in tests.items()
    ]
    if not row["scores"]:
        parts.append("quality not known")
    if ratios.get("size") is not None:
        parts.append(f"{_times(ratios['size'])} the size")
    for device, by_batch in (ratios.get("speed") or {}).items():
        speeds = ", ".join(
            f"{_times(ratio)} at batch {escape(batch_size)}"
            for batch_size, ratio in by_batch.items()
            if ratio is not None
        )
        if speeds:
            parts.append(f"speed on the {DEVICES[device]} {speeds}")
    return f"{'; '.join(parts) or 'nothing to set beside it'}."


def _figures(record: Row) -> str:
    noisy = any(cell["noisy"] for row in record["rows"] for cell in row["latencies"])
    seeds = any(len(row["members"]) > 1 for row in record["rows"])
    legend = f" {NOISY}noisy: the machine was too restless to rely on this time." if noisy else ""
    if seeds:
        legend += " Of several seeds, times, labels and matrices are those of the first."
    return f"""<h2>All figures</h2>
{figures_table(record)}
<p class="quiet">A click on a header sorts. [low, high]: 95 % interval. ±: standard deviation over
seeds. ECE: expected calibration error, 0 at best. Times are per batch, from texts to answers; p99:
99 % of the batches took no longer. A dash: not measured.{legend}</p>"""


def _trade_off(record: Row) -> str:
    if not trade_off_rows(record):
        return ""
    front = ", ".join(front_models(record))
    return f"""<h2>Quality against time</h2>
{_figure(trade_off(record), f"Macro-F1 against milliseconds. Best trade-offs: {front}")}"""


def _differences(record: Row) -> str:
    differences = differences_table(record)
    if not differences:
        return ""
    return f"""<h2>Against {escape(record["reference"])}</h2>
{differences}
<p class="quiet">Ratios: the row's over the reference's, speed in texts per second. Differences: the
row's less the reference's, with the 95 % interval.</p>"""


def _per_class(record: Row) -> str:
    by_label = per_class_table(record)
    if not by_label:
        return ""
    return f"""<h2>By label</h2>
{_figure(per_class_bars(record), "F1 of each model by label, as in the table below")}
{by_label}
<h2>Confusion matrices</h2>
{_figure(confusion_matrices(record), "Confusion matrices: true labels down, predicted across")}"""


def _robustness(record: Row) -> str:
    robustness = robustness_table(record)
    if not robustness:
        return ""
    return f"""<h2>Robustness</h2>
{robustness}
<p class="quiet">The same texts, typed differently. Changed: the share of answers that are no longer
what they were.</p>"""


def _disagreements(record: Row) -> str:
    disagreements = disagreements_table(record)
    if not disagreements:
        return ""
    return f"""<h2>Where they disagree most</h2>
{disagreements}
<p class="quiet">✗: not the label in the data, which may itself be wrong.</p>"""


def _measured(record: Row) -> str:
    data = record["data"]
    facts = {
        "data": f"{data['name']}, {data['split']} split, {data['n']:,} texts",
        "sha256 of the data": data["sha256"],
        "threads": record["threads"],
        **record["environment"],
    }
    listed = "\n".join(
        f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in _facts(facts)
    )
    return f"""<h2>How it was measured</h2>
<pre><code>{escape(record["command"])}</code></pre>
<dl>
{listed}
</dl>
{times_table(record)}"""


def _facts(mapping: Row, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yields name and value of each entry, nested ones under both their names."""
    for key, value in mapping.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, Mapping):
            yield from _facts(value, f"{name} ")
        elif isinstance(value, list | tuple):
            yield name, ", ".join(map(str, value))
        elif value is not None:
            yield name, str(value)


def _name(model: str) -> str:
    return f"<strong>{escape(model)}</strong>"


def _times(ratio: float) -> str:
    return "&lt; 0.001 ×" if ratio < 0.001 else f"{three_digits(ratio)} ×"


def _figure(png: bytes, description: str) -> str:
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    return f'<figure><div><img src="{source}" alt="{escape(description)}"></div></figure>'


def _asset(name: str) -> str:
    return (importlib.resources.files("featherweight.comparison") / "assets" / name).read_text(
        encoding="utf-8"
    )


def _hash(content: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}"
