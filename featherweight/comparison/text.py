"""A comparison's record as text: tables for a terminal or Markdown, and one CSV row a contender."""

import csv
import io
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from tabulate import tabulate

Record = Mapping[str, Any]
METRICS = {
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "macro_precision": "macro precision",
    "macro_recall": "macro recall",
}
DASH = "–"


def three_digits(value: float) -> str:
    """Returns a number to three significant digits, never with an exponent: 0.954, 12.3, 1,740."""
    return f"{Decimal(f'{value:.3g}'):,f}"


def quality(record: Record, tablefmt: str = "simple") -> str:
    """Returns size and quality of each row, with 95 % intervals or deviations over seeds."""
    headers = ["model", "parameters", "size MB", *METRICS.values(), "ECE"]
    rows = [
        [
            _name(row),
            f"{row['parameters']:,}",
            f"{row['size_bytes'] / 1e6:,.3f}",
            *(_score(row, metric) for metric in METRICS),
            f"{row['ece']:.3f}" if row["scores"] else DASH,
        ]
        for row in record["rows"]
    ]
    return _table(headers, rows, tablefmt)


def speed(record: Record, tablefmt: str = "simple") -> str:
    """Returns milliseconds per batch, end to end (p50 / p99), and the most texts a second."""
    places = sorted({(it["device"], it["batch_size"]) for it in _timings(record)})
    headers = ["model", *(f"{device} batch {size}" for device, size in places), "texts/s on CPU"]
    rows = []
    for row in record["rows"]:
        timings = {(it["device"], it["batch_size"]): it for it in row["latencies"]}
        rates = [it["texts_per_second"] for it in row["latencies"] if it["device"] == "cpu"]
        cells = [_milliseconds(timings.get(place), "p50", "p99") for place in places]
        rows.append([_name(row), *cells, f"{max(rates):,.0f}" if rates else DASH])
    return _table(headers, rows, tablefmt)


def against_reference(record: Record, tablefmt: str = "simple") -> str:
    """Returns ratios and verdicts of each row against the reference."""
    headers = ["model", "size ×", "faster × on CPU (batch)", "accuracy", "p", "macro F1", "p"]
    rows = []
    for row in record["rows"]:
        if row["model"] == record["reference"]:
            continue
        times = row["ratios"]["speed"].get("cpu", {})
        faster = ", ".join(f"{_times(value)} ({size})" for size, value in times.items())
        cells = [_name(row), three_digits(row["ratios"]["size"]), faster or DASH]
        rows.append([*cells, *_verdict(row, "accuracy"), *_verdict(row, "macro_f1")])
    return _table(headers, rows, tablefmt)


def per_class(record: Record, tablefmt: str = "simple") -> str:
    """Returns the F1 of each class, of the rows that answered."""
    labels = record["data"]["labels"]
    rows = [
        [_name(row), *(f"{row['per_class'][label]['f1']:.4f}" for label in labels)]
        for row in record["rows"]
        if row["per_class"]
    ]
    return _table(["F1", *labels], rows, tablefmt)


def robustness(record: Record, tablefmt: str = "simple") -> str:
    """Returns accuracy under each perturbation and the share of answers that changed."""
    perturbed = [row for row in record["rows"] if row["robustness"]]
    names = [result["perturbation"] for result in perturbed[0]["robustness"]]
    rows = [
        [_name(row), *(f"{it['accuracy']:.4f} ({it['changed']:.1%})" for it in row["robustness"])]
        for row in perturbed
    ]
    return _table(["model", *names], rows, tablefmt)


def disagreements(record: Record, tablefmt: str = "simple") -> str:
    """Returns the texts on which the contenders disagree most."""
    models = [row["model"] for row in record["rows"] if row["scores"]]
    rows = [
        [item["text"], item["target"], *(item["answers"][model] for model in models)]
        for item in record["disagreements"]
    ]
    return _table(["text", "true", *models], rows, tablefmt, text_column=True)


def sections(record: Record, tablefmt: str = "simple") -> Iterator[tuple[str, str]]:
    """Yields title and table of everything the record holds."""
    data = record["data"]
    title = f"Quality on {data['name']}, {data['split']} split, n = {data['n']:,}"
    yield title, quality(record, tablefmt)
    if _timings(record):
        title = f"Milliseconds per batch, end to end, p50 / p99, CPU threads: {record['threads']}"
        yield title, speed(record, tablefmt)
    if len(record["rows"]) > 1:
        yield f"Against {record['reference']}", against_reference(record, tablefmt)
    yield "F1 by class", per_class(record, tablefmt)
    if any(row["robustness"] for row in record["rows"]):
        yield "Accuracy as people type (answers changed)", robustness(record, tablefmt)
    if record["disagreements"]:
        yield "Where they disagree most", disagreements(record, tablefmt)


def legend(record: Record) -> str:
    """Returns what the signs in the tables mean, a line each."""
    lines = ["[low, high]: 95 % bootstrap interval. ECE: expected calibration error."]
    if any(row["deviations"] for row in record["rows"]):
        lines.append("±: standard deviation over seeds.")
    if any(row["tests"] for row in record["rows"]):
        lines.append(
            "p: of one seed, McNemar (exact) for accuracy and paired bootstrap for macro F1; "
            "of several, paired bootstrap for both. Corrected by Holm over all of them."
        )
    if any(it["noisy"] for it in _timings(record)):
        lines.append("*: the machine was restless; the rounds' medians lie too far apart.")
    lines += [f"{row['model']}: {row['note']}" for row in record["rows"] if row["note"]]
    return "\n".join(lines)


def terminal(record: Record) -> str:
    """Returns the comparison for a terminal."""
    tables = [f"{title}\n\n{table}" for title, table in sections(record)]
    return "\n\n".join([*tables, legend(record)])


def markdown(record: Record) -> str:
    """Returns the comparison as Markdown that shows the report's pictures."""
    tables = [f"## {title}\n\n{table}" for title, table in sections(record, "github")]
    machine = record["environment"]["cpu"]["model"]
    pictures = [
        f"![{name.replace('_', ' ')}]({name}.png)"
        for name in ("trade_off", "confusion_matrices", "per_class")
    ]
    how = f"Measured with `{record['command']}` on {machine}."
    parts = ["# Comparison", *tables, legend(record).replace("\n", "  \n"), how, *pictures]
    return "\n\n".join(parts) + "\n"


def comma_separated(record: Record) -> str:
    """Returns one CSV row a contender, every figure in a column of its own."""
    rows = [_flat(row) for row in record["rows"]]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    cells = {name: row[name] for name in ("model", "note", "parameters", "size_bytes", "ece")}
    for metric, score in row["scores"].items():
        cells[metric] = score
        if metric in row["intervals"]:
            cells[f"{metric}_low"], cells[f"{metric}_high"] = row["intervals"][metric]
        if row["deviations"]:
            cells[f"{metric}_deviation"] = row["deviations"][metric]
    for it in row["latencies"]:
        place = f"{it['device']}_{it['batch_size']}"
        cells |= {f"{place}_{q}_ms": it["phases"]["total"][q] for q in ("p50", "p99")}
        cells |= {f"{place}_{key}": it[key] for key in ("texts_per_second", "noisy")}
    for metric, test in (row["tests"] or {}).items():
        cells |= {f"{metric}_{key}": test[key] for key in ("difference", "adjusted_p", "verdict")}
    for it in row["robustness"]:
        cells[f"accuracy_{it['perturbation'].replace(' ', '_')}"] = it["accuracy"]
    return cells


def _timings(record: Record) -> list[Mapping[str, Any]]:
    return [timing for row in record["rows"] for timing in row["latencies"]]


def _name(row: Mapping[str, Any]) -> str:
    seeds = len(row["members"])
    return f"{row['model']} ({seeds} seeds)" if seeds > 1 else str(row["model"])


def _score(row: Mapping[str, Any], metric: str) -> str:
    if not row["scores"]:
        return DASH
    if row["deviations"]:
        return f"{row['scores'][metric]:.4f} ± {row['deviations'][metric]:.4f}"
    low, high = row["intervals"][metric]
    return f"{row['scores'][metric]:.4f} [{low:.3f}, {high:.3f}]"


def _milliseconds(timing: Mapping[str, Any] | None, *quantiles: str) -> str:
    if timing is None:
        return DASH
    total = timing["phases"]["total"]
    return " / ".join(three_digits(total[q]) for q in quantiles) + (" *" if timing["noisy"] else "")


def _times(ratio: float) -> str:
    # A transformer is a thousandth as fast as the tiny model, not 0.00 of it.
    return f"{ratio:.2f}" if ratio >= 0.1 else three_digits(ratio)


def _verdict(row: Mapping[str, Any], metric: str) -> list[str]:
    if not row["tests"]:
        return [DASH, DASH]
    test = row["tests"][metric]
    return [f"{test['difference']:+.4f} {test['verdict']}", f"{test['adjusted_p']:.3g}"]


def _table(
    headers: list[str], rows: list[list[str]], tablefmt: str, text_column: bool = False
) -> str:
    headers, *rows = [[_cell(cell, tablefmt) for cell in line] for line in (headers, *rows)]
    if text_column:
        widths = [44] if tablefmt == "simple" else None
        return tabulate(
            rows, headers, tablefmt=tablefmt, maxcolwidths=widths, disable_numparse=True
        )
    align = ("left", *["right"] * (len(headers) - 1))
    return tabulate(rows, headers, tablefmt=tablefmt, colalign=align, disable_numparse=True)


def _cell(text: str, tablefmt: str) -> str:
    """One line, and in Markdown no bar that would end the cell."""
    line = " ".join(text.split())
    return line.replace("|", "\\|") if tablefmt == "github" else line
