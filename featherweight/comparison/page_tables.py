"""The tables on the page of a comparison: which figures stand in which column."""

from collections.abc import Iterable, Iterator, Mapping
from html import escape
from typing import Any

from featherweight.comparison.html_table import MISSING, Cell, Column, number, table, text
from featherweight.comparison.text import three_digits
from featherweight.reports.plots import latency_at

Row = Mapping[str, Any]

DEVICES = {"cpu": "CPU", "cuda": "GPU"}
NOISY = '<span class="noisy" title="noisy">⚠</span> '

TESTED = {"accuracy": "accuracy", "macro_f1": "macro F1"}

_MACRO = {"macro_f1": "F1", "macro_precision": "precision", "macro_recall": "recall"}
_PERCENTILES = ("p50", "p90", "p95", "p99")
_VERDICT_SIGNS = {"better": "▲", "worse": "▼"}


def figures_table(record: Row) -> str:
    """Returns a row a model: size, quality with its uncertainty, time on each device."""
    places = _places(record)
    columns = [Column(name) for name in ("model", "parameters", "size MB", "accuracy")]
    columns += [Column(name, "macro average") for name in _MACRO.values()]
    columns += [Column("weighted F1"), Column("ECE")]
    for device, batch_size in places:
        group = f"{DEVICES[device]}, batch of {batch_size}"
        columns += [Column(name, group) for name in ("p50 ms", "p99 ms", "texts/s")]
    rows = (
        [
            _described(row),
            number(row["parameters"], ","),
            _megabytes(row["size_bytes"]),
            *(_score(row, metric) for metric in ("accuracy", *_MACRO, "weighted_f1")),
            number(row["ece"], ".3f"),
            *(cell for place in places for cell in _speed(latency_at(row, *place))),
        ]
        for row in record["rows"]
    )
    return table("All figures", columns, rows)


def differences_table(record: Row) -> str:
    """Returns a row a model but the reference: ratios and paired tests against it; "" if none."""
    rows = [row for row in record["rows"] if row["model"] != record["reference"]]
    places = _places(record)
    columns = [Column("model"), Column("size", "ratio")]
    columns += [Column(name, "ratio") for name in TESTED.values()]
    columns += [Column(f"{DEVICES[device]}, batch of {n}", "speed ratio") for device, n in places]
    for name in TESTED.values():
        columns += [Column("verdict", name, "text")]
        columns += [Column(part, name) for part in ("difference", "p", "corrected p")]
    cells = (
        [
            text(row["model"]),
            *(_ratio((row["ratios"] or {}).get(name)) for name in ("size", *TESTED)),
            *(_ratio(_speed_ratio(row, *place)) for place in places),
            *(cell for metric in TESTED for cell in _test((row["tests"] or {}).get(metric))),
        ]
        for row in rows
    )
    return table(f"Against {record['reference']}", columns, cells) if rows else ""


def per_class_table(record: Row) -> str:
    """Returns a row a label: precision, recall and F1 of each model; "" if none has them."""
    rows = [row for row in record["rows"] if row["per_class"]]
    if not rows:
        return ""
    columns = [Column("label"), Column("texts")]
    columns += [
        Column(name, row["model"]) for row in rows for name in ("precision", "recall", "F1")
    ]
    cells = (
        [
            text(label),
            number(rows[0]["per_class"][label]["support"], ","),
            *(
                number(row["per_class"][label][name], ".3f")
                for row in rows
                for name in ("precision", "recall", "f1")
            ),
        ]
        for label in record["data"]["labels"]
    )
    return table("By label", columns, cells)


def robustness_table(record: Row) -> str:
    """Returns a row a model: accuracy and changed answers by perturbation; "" if none was asked."""
    rows = [row for row in record["rows"] if row["robustness"]]
    names = dict.fromkeys(cell["perturbation"] for row in rows for cell in row["robustness"])
    columns = [Column("model"), Column("accuracy", "as they are")]
    columns += [Column(part, name) for name in names for part in ("accuracy", "changed %")]
    cells = ([text(row["model"]), _score(row, "accuracy"), *_perturbed(row, names)] for row in rows)
    return table("Robustness", columns, cells) if rows else ""


def disagreements_table(record: Row) -> str:
    """Returns a row a text: its label and each model's answer; "" if none was asked."""
    items = record["disagreements"]
    answering = {model for item in items for model in item["answers"]}
    models = [row["model"] for row in record["rows"] if row["model"] in answering]
    columns = [Column(name, kind="text") for name in ("text", "true label", *models)]
    cells = (
        [
            text(item["text"]),
            text(item["target"]),
            *(_answer(item["answers"].get(model), item["target"]) for model in models),
        ]
        for item in items
    )
    return table("Where they disagree most", columns, cells) if items else ""


def times_table(record: Row) -> str:
    """Returns a row a model, device and batch size: its times in full; "" if none was timed."""
    columns = [Column("model"), Column("device", kind="text"), Column("batch")]
    columns += [Column(name, kind="text") for name in ("dtype", "backend")]
    columns += [Column(name) for name in ("threads", "batches timed", "spread %")]
    for phase in ("encode", "forward", "total"):
        columns += [Column(name, f"{phase} ms") for name in _PERCENTILES]
    columns += [Column(name) for name in ("first batch ms", "load ms", "peak MB", "GPU peak MB")]
    cells = [_times(row, latency) for row in record["rows"] for latency in row["latencies"]]
    return table("Times in full", columns, cells) if cells else ""


def badge(test: Row) -> str:
    """Returns the HTML of a test's verdict, with a sign and a color."""
    verdict = test["verdict"]
    kind = verdict if verdict in _VERDICT_SIGNS else "same"
    return f'<span class="{kind}">{_VERDICT_SIGNS.get(verdict, "○")} {escape(verdict)}</span>'


def probability(value: float) -> str:
    """Returns the HTML of a p-value."""
    return "&lt; 0.0001" if value < 0.0001 else f"{value:.4f}"


def interval(row: Row, metric: str) -> str:
    """Returns "[0.935, 0.959]", or nothing where the row has no interval."""
    bounds = (row["intervals"] or {}).get(metric)
    return f"[{bounds[0]:.3f}, {bounds[1]:.3f}]" if bounds else ""


def _places(record: Row) -> list[tuple[str, int]]:
    """Returns the devices and batch sizes that any row was timed at, the CPU first."""
    cells = [cell for row in record["rows"] for cell in row["latencies"]]
    return sorted({(cell["device"], cell["batch_size"]) for cell in cells})


def _described(row: Row) -> Cell:
    seeds = len(row["members"])
    of_seeds = f"mean of {seeds}: {', '.join(row['members'])}" if seeds > 1 else ""
    return text(row["model"], "; ".join(filter(None, (row["note"], of_seeds))))


def _score(row: Row, metric: str) -> Cell:
    if not row["scores"]:
        return MISSING
    deviation = (row["deviations"] or {}).get(metric)
    spread = "" if deviation is None else f"± {deviation:.4f}"
    return number(row["scores"][metric], ".4f", f"{spread} {interval(row, metric)}".strip())


def _speed(latency: Row | None) -> list[Cell]:
    if latency is None:
        return [MISSING] * 3
    total, sign = latency["phases"]["total"], _sign(latency)
    return [
        _milliseconds(total["p50"], sign),
        _milliseconds(total["p99"], sign),
        number(latency["texts_per_second"], ",.0f", sign=sign),
    ]


def _times(row: Row, latency: Row) -> list[Cell]:
    on_gpu = latency["gpu_memory_bytes"]
    return [
        text(row["model"]),
        text(DEVICES[latency["device"]], latency["device_name"]),
        number(latency["batch_size"], "d"),
        text(latency["dtype"]),
        text(latency["backend"]),
        number(latency["threads"], "d"),
        number(latency["samples"], ","),
        number(100 * latency["spread"], ".1f", sign=_sign(latency)),
        *(
            _milliseconds(latency["phases"][phase][name])
            for phase in ("encode", "forward", "total")
            for name in _PERCENTILES
        ),
        _milliseconds(latency["first_batch_ms"]),
        number(latency["load_ms"], ",.0f"),
        number(latency["peak_memory_bytes"] / 1e6, ",.0f"),
        MISSING if on_gpu is None else number(on_gpu / 1e6, ",.0f"),
    ]


def _sign(latency: Row) -> str:
    return NOISY if latency["noisy"] else ""


def _milliseconds(value: float, sign: str = "") -> Cell:
    return number(value, ".4f" if value < 1 else ",.2f", sign=sign)


def _megabytes(size_bytes: int) -> Cell:
    # The smallest baseline is a few bytes.
    return number(size_bytes / 1e6, ",.3f" if size_bytes >= 1000 else ".6f")


def _ratio(value: float | None) -> Cell:
    return MISSING if value is None else Cell(three_digits(value), key=repr(value))


def _speed_ratio(row: Row, device: str, batch_size: int) -> float | None:
    speed = (row["ratios"] or {}).get("speed") or {}
    return speed.get(device, {}).get(str(batch_size))


def _test(test: Row | None) -> list[Cell]:
    if test is None:
        return [MISSING] * 4
    low, high = test["interval"]
    return [
        Cell(badge(test)),
        number(test["difference"], "+.4f", f"[{low:+.3f}, {high:+.3f}]"),
        *(Cell(probability(test[name]), repr(test[name])) for name in ("p_value", "adjusted_p")),
    ]


def _perturbed(row: Row, names: Iterable[str]) -> Iterator[Cell]:
    cells = {cell["perturbation"]: cell for cell in row["robustness"]}
    for name in names:
        cell = cells.get(name)
        yield number(cell["accuracy"], ".4f") if cell else MISSING
        yield number(100 * cell["changed"], ".1f") if cell else MISSING


def _answer(answer: str | None, target: str) -> Cell:
    if answer is None:
        return MISSING
    if answer == target:
        return text(answer)
    return Cell(f'<span class="wrong">✗ {escape(answer)}</span>')
