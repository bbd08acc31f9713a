"""The tables of a comparison, made from its record; text.py and page.py render them."""

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any

from featherweight.comparison.record import Record, model_name, remarks
from featherweight.comparison.table import MISSING, Cell, Column, Table
from featherweight.reports.classes import hidden_classes, shown_classes
from featherweight.reports.numbers import interval, probability, three_digits

DEVICES = {"cpu": "CPU", "cuda": "GPU"}
TESTED = {"accuracy": "accuracy", "macro_f1": "macro F1"}
_MAX_LABEL_COLUMNS = 12
METRICS = TESTED | {"macro_precision": "macro precision", "macro_recall": "macro recall"}


def sections(record: Record) -> dict[str, Table]:
    """Returns the tables for text that have figures, by a short name."""
    tables = {
        "quality": quality(record),
        "speed": speed(record),
        "reference": against_reference(record),
        "classes": f1_by_label(record),
        "robustness": robustness(record),
        "disagreements": disagreements(record),
    }
    if not _places(record):
        del tables["speed"]
    return {name: table for name, table in tables.items() if table.items}


def all_figures(record: Record) -> Table:
    """Returns quality and speed in one table."""
    scores, times = quality(record), speed(record)
    return Table("All figures", [*scores.columns, *times.columns[1:]], times.items)


def quality(record: Record) -> Table:
    """Returns one row per model: size, and scores with intervals or deviations over seeds."""
    data = record["data"]
    columns = [
        Column("model", _described),
        Column("parameters", _number("{:,}".format, "parameters")),
        Column("size MB", _number(_megabytes, "size_bytes")),
        *(Column(name, partial(_score, metric)) for metric, name in METRICS.items()),
        Column("weighted F1", partial(_score, "weighted_f1"), only="page"),
        Column("ECE", _number("{:.3f}".format, "ece")),
    ]
    title = f"Quality on {data['name']}, {data['split']} split, n = {data['n']:,}"
    return Table(title, columns, record["rows"])


def speed(record: Record) -> Table:
    """Returns one row per model: milliseconds per batch on each device and at each batch size."""
    columns = [Column("model", _named)]
    for place in _places(record):
        group, noisy = _place_name(place), ("at", place, "noisy")
        median = _number(three_digits, "at", place, "total_ms", "p50", noisy=noisy)
        slow = _number(three_digits, "at", place, "total_ms", "p99", noisy=noisy)
        rate = _number("{:,.0f}".format, "at", place, "texts_per_second", noisy=noisy)
        columns += [
            Column("p50 ms", median, group, short=group),
            Column("p99 ms", slow, group, joined=" / {}"),
            Column("texts/s", rate, group, only="page"),
        ]
    columns.append(Column("texts/s on CPU", _number("{:,.0f}".format, "max_rate"), only="text"))
    items = []
    for row in record["rows"]:
        at = {(timed["device"], timed["batch_size"]): timed for timed in row["latencies"]}
        rates = [timed["texts_per_second"] for (device, _), timed in at.items() if device == "cpu"]
        items.append({**row, "at": at, "max_rate": max(rates, default=None)})
    title = f"Milliseconds per batch, end to end, p50 / p99, CPU threads: {record['threads']}"
    return Table(title, columns, items)


def against_reference(record: Record) -> Table:
    """Returns one row per other model: ratios and paired tests against the reference."""
    columns = [Column("model", _named), Column("size ×", _number(three_digits, "ratios", "size"))]
    for metric, name in TESTED.items():
        columns.append(Column(f"{name} ×", _number(three_digits, "ratios", metric), only="page"))
    for place in _places(record):
        name, (device, batch_size) = _place_name(place), place
        speedup = _number(three_digits, "ratios", "speed", device, str(batch_size))
        columns.append(Column(name, speedup, "speed ×", short=f"speed ×, {name}"))
    for metric, name in TESTED.items():
        p_value, corrected = (
            _number(probability, "tests", metric, key) for key in ("p_value", "adjusted_p")
        )
        columns += [
            Column("verdict", partial(_tested, metric, verdict), name, left=True, short=name),
            Column("difference", partial(_tested, metric, _difference), name, joined=" {}"),
            Column("p", p_value, name, only="page"),
            Column("corrected p", corrected, name, short="p"),
        ]
    others = [row for row in record["rows"] if row["model"] != record["reference"]]
    return Table(f"Against {record['reference']}", columns, others)


def f1_by_label(record: Record) -> Table:
    """Returns the F1 of each model on each label: a row per model, or per label of many."""
    models, labels = _scored(record), record["data"]["labels"]
    if len(labels) > _MAX_LABEL_COLUMNS:
        return _label_rows(record, "F1 by label", ("F1",))
    scores = [Column(label, _number("{:.4f}".format, "per_class", label, "f1")) for label in labels]
    return Table("F1 by label", [Column("model", _named), *scores], models)


def by_label(record: Record) -> Table:
    """Returns one row per label: precision, recall and F1 of each evaluated model."""
    return _label_rows(record, "By label", ("precision", "recall", "F1"))


def _label_rows(record: Record, title: str, scores: Sequence[str]) -> Table:
    """Returns one row per label, without those that `shown_classes` leaves out."""
    models = _scored(record)
    columns = [
        Column("label", _text("label")),
        Column("texts", _number("{:,}".format, 0, "support")),
    ]
    for number, model in enumerate(models):
        for name in scores:
            score = _number("{:.4f}".format, number, name.lower())
            columns.append(Column(name, score, group=model_name(model), short=model_name(model)))
    classes = [model["per_class"] for model in models]
    items = [
        {"label": label, **dict(enumerate(scores[label] for scores in classes))}
        for label in (shown_classes(classes) if classes else ())
    ]
    return Table(
        title, columns, items, hidden_classes(len(record["data"]["labels"]), "report.json")
    )


def _scored(record: Record) -> list[Record]:
    return [row for row in record["rows"] if row["per_class"]]


def robustness(record: Record) -> Table:
    """Returns one row per evaluated model: accuracy and changed predictions by perturbation."""
    items = [
        {**row, "perturbed": {result["perturbation"]: result for result in row["robustness"]}}
        for row in record["rows"]
        if row["robustness"]
    ]
    columns = [
        Column("model", _named),
        Column("accuracy", partial(_score, "accuracy"), "unperturbed", short="unperturbed"),
    ]
    for name in dict.fromkeys(name for item in items for name in item["perturbed"]):
        accuracy = _number("{:.4f}".format, "perturbed", name, "accuracy")
        changed = _number("{:.1%}".format, "perturbed", name, "changed")
        columns += [
            Column("accuracy", accuracy, name, short=name),
            Column("changed", changed, name, joined=" ({})"),
        ]
    return Table("Robustness: accuracy (predictions changed)", columns, items)


def disagreements(record: Record) -> Table:
    """Returns one row per text: its label and the prediction of each model."""
    predicting = {model for item in record["disagreements"] for model in item["answers"]}
    columns = [
        Column("text", _text("text"), left=True),
        Column("true label", _text("target"), left=True),
    ]
    for row in record["rows"]:
        if row["model"] in predicting:
            prediction = partial(_prediction, row["model"])
            columns.append(Column(model_name(row), prediction, left=True))
    return Table("Texts on which the models disagree most", columns, record["disagreements"])


def times(record: Record) -> Table:
    """Returns one row per model, device and batch size: everything that was measured."""
    columns = [
        Column("model", lambda latency: _named(latency["row"])),
        Column("device", _device, left=True),
        Column("batch size", _number(str, "batch_size")),
        Column("dtype", _text("dtype"), left=True),
        Column("backend", _text("backend"), left=True),
        Column("threads", _number(str, "threads")),
        Column("batches timed", _number("{:,}".format, "samples")),
        Column("spread", _number("{:.1%}".format, "spread", noisy=("noisy",))),
    ]
    for phase in ("encode", "forward", "total"):
        for name in ("p50", "p90", "p95", "p99"):
            milliseconds = _number(three_digits, f"{phase}_ms", name)
            columns.append(Column(name, milliseconds, group=f"{phase} ms"))
    columns += [
        Column("first batch ms", _number(three_digits, "first_batch_ms")),
        Column("load ms", _number("{:,.0f}".format, "load_ms")),
        Column("peak MB", _number(_whole_megabytes, "peak_memory_bytes")),
        Column("GPU peak MB", _number(_whole_megabytes, "gpu_memory_bytes")),
    ]
    items = [{**latency, "row": row} for row in record["rows"] for latency in row["latencies"]]
    return Table("Times in full", columns, items)


def verdict(test: Record) -> Cell:
    """Returns the verdict of a paired test."""
    shown = str(test["verdict"])
    return Cell(shown, flag=shown if shown in ("better", "worse") else "same")


def _number(
    show: Callable[[Any], str], *path: Hashable, noisy: Sequence[Hashable] = ()
) -> Callable[[Record], Cell]:
    """Returns a function from an item to the cell of a number.

    Args:
        show: Formats the number.
        path: Keys that lead to it; the cell is missing if they lead nowhere.
        noisy: Keys that lead to whether it is noisy.
    """

    def cell(item: Record) -> Cell:
        value = _find(item, path)
        if value is None:
            return MISSING
        return Cell(show(value), value, flag="noisy" if noisy and _find(item, noisy) else "")

    return cell


def _find(item: Record, path: Sequence[Hashable]) -> Any:
    found: Any = item
    for key in path:
        found = (found or {}).get(key)
    return found


def _text(key: str) -> Callable[[Record], Cell]:
    return lambda item: Cell(item[key])


def _places(record: Record) -> list[tuple[str, int]]:
    """Returns the devices and batch sizes that any row was timed at, the CPU first."""
    latencies = [latency for row in record["rows"] for latency in row["latencies"]]
    return sorted({(latency["device"], latency["batch_size"]) for latency in latencies})


def _place_name(place: tuple[str, int]) -> str:
    return f"{DEVICES[place[0]]} batch {place[1]}"


def _megabytes(size_bytes: int) -> str:
    # The smallest baseline has a few bytes.
    return f"{size_bytes / 1e6:,.3f}" if size_bytes >= 1000 else f"{size_bytes / 1e6:.6f}"


def _whole_megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:,.0f}"


def _named(row: Record) -> Cell:
    seeds = len(row["members"])
    return Cell(f"{model_name(row)} ({seeds} seeds)" if seeds > 1 else model_name(row))


def _described(row: Record) -> Cell:
    members = [", ".join(row["members"])] if len(row["members"]) > 1 else []
    return _named(row)._replace(detail="; ".join([*remarks(row), *members]))


def _score(metric: str, row: Record) -> Cell:
    """Returns a score, with its deviation over seeds or else its interval."""
    score = _find(row, ("scores", metric))
    if score is None:
        return MISSING
    deviation, bounds = _find(row, ("deviations", metric)), _find(row, ("intervals", metric))
    shown = interval(bounds) if bounds else ""
    note, detail = (shown, "") if deviation is None else (f"± {deviation:.4f}", shown)
    return Cell(f"{score:.4f}", score, note, detail)


def _device(latency: Record) -> Cell:
    return Cell(DEVICES[latency["device"]], detail=latency["device_name"])


def _tested(metric: str, show: Callable[[Record], Cell], row: Record) -> Cell:
    return show(row["tests"][metric]) if row["tests"] else MISSING


def _difference(test: Record) -> Cell:
    difference, (low, high) = test["difference"], test["interval"]
    return Cell(f"{difference:+.4f}", difference, detail=f"[{low:+.3f}, {high:+.3f}]")


def _prediction(model: str, item: Record) -> Cell:
    predicted = item["answers"].get(model)
    if predicted is None:
        return MISSING
    return Cell(predicted, flag="" if predicted == item["target"] else "wrong")
