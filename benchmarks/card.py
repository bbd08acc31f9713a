"""The figures of edge/pretrained/README.md, the card of the bundle that ships."""

import statistics
from collections.abc import Mapping
from typing import Any

from record import read_record
from tabulate import tabulate

Record = Mapping[str, Any]


def blocks() -> dict[str, str]:
    """Returns what stands between the markers of the card, by their names."""
    record = read_record("pretrained")
    shipped = next(row for row in record["rows"] if row["seed"] == record["shipped"]["seed"])
    return {
        "quality": _quality(record, shipped),
        "per-class": _per_class(shipped["test"]),
        "weaknesses": _weaknesses(record, shipped["test"]),
        "coverage": _coverage(shipped["test"]),
        "raw-tweets": _raw_tweets(record, shipped["test"]),
        "probes": _probes(record),
        "recipe": _recipe(record),
    }


def _quality(record: Record, shipped: Record) -> str:
    rows = [
        [
            split,
            f"{shipped[split]['n']:,}",
            *(
                f"{shipped[split][metric]:.4f} {_interval(shipped[split]['intervals'][metric])}"
                for metric in ("accuracy", "macro_f1")
            ),
            f"{shipped[split]['ece']:.3f}",
            *(_spread(record, split, metric) for metric in ("accuracy", "macro_f1")),
        ]
        for split in ("validation", "test")
    ]
    seeds = len(record["rows"])
    headers = [
        "split", "n", "accuracy", "macro-F1", "ECE", f"accuracy, {seeds} seeds",
        f"macro-F1, {seeds} seeds",
    ]  # fmt: skip
    return (
        f"{_table(rows, headers)}\n\n[low, high]: 95 % bootstrap interval; ±: standard deviation "
        f"over the seeds of the recipe. Seed {record['shipped']['seed']} ships, since it was best "
        "on validation, so that row flatters it; the test split was read for this table only. "
        f"{shipped['size_bytes']:,} bytes, {shipped['test']['parameters']:,} parameters."
    )


def _per_class(test: Record) -> str:
    rows = [
        [label, *(f"{scores[it]:.4f}" for it in ("precision", "recall", "f1")), scores["support"]]
        for label, scores in test["per_class"].items()
    ]
    return _table(rows, ["emotion", "precision", "recall", "F1", "support"])


def _weaknesses(record: Record, test: Record) -> str:
    """Returns the weakest classes and the most frequent confusions in words."""
    labels = list(test["per_class"])
    weakest = sorted(labels, key=lambda it: test["per_class"][it]["f1"])[:2]
    confused = sorted(
        (
            (count, labels[true], labels[predicted])
            for true, counts in enumerate(test["confusion_matrix"])
            for predicted, count in enumerate(counts)
            if true != predicted
        ),
        reverse=True,
    )[:3]
    f1 = " and ".join(f"{it} (F1 {test['per_class'][it]['f1']:.3f})" for it in weakest)
    often = ", ".join(f"{true} taken for {other} ({count})" for count, true, other in confused)
    return f"Weakest at {f1}. Most frequent confusions among the {test['n']:,} test texts: {often}."


def _coverage(test: Record) -> str:
    rows = [
        [
            f"{row['min_confidence']:g}",
            f"{row['answered']:,}",
            f"{row['share']:.1%}",
            f"{row['accuracy']:.4f} {_interval(row['interval'])}",
        ]
        for row in test["coverage"]
        if row["interval"]
    ]
    return _table(rows, ["`--min_confidence`", "answered", "share", "accuracy of these"])


def _raw_tweets(record: Record, test: Record) -> str:
    rows = [["as they are", f"{test['accuracy']:.4f}", "–"]] + [
        [it["perturbation"], f"{it['accuracy']:.4f}", f"{it['changed']:.1%}"]
        for it in record["shipped"]["robustness"]
    ]
    return _table(rows, ["test texts", "accuracy", "answers changed"])


def _probes(record: Record) -> str:
    rows = [
        [f"`{it['text']}`" if it["text"] else "(nothing)", it["answer"], f"{it['confidence']:.2f}"]
        for it in record["shipped"]["probes"]
    ]
    return _table(rows, ["text", "answer", "confidence"])


def _recipe(record: Record) -> str:
    flags = f"temperature {record['temperature']:g} and alpha {record['alpha']:g}"
    further = f" and {record['unlabelled']:,} further texts, of which it saw no label,"
    return (
        f"A `feather` of {record['words']:,} words learned from what {len(record['teachers'])} "
        f"teachers ({', '.join(record['teachers'])}) answer to the "
        f"{record['data']['splits']['train']['n']:,} training texts"
        f"{further if record['unlabelled'] else ''} at {flags}; its matrices are stored in int8. "
        "Record: `results/pretrained.json`, made by `benchmarks/pretrained.py`."
    )


def _spread(record: Record, split: str, metric: str) -> str:
    values = [row[split][metric] for row in record["rows"]]
    return f"{statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}"


def _interval(bounds: list[float]) -> str:
    return f"[{bounds[0]:.3f}, {bounds[1]:.3f}]"


def _table(rows: list[list[Any]], headers: list[str]) -> str:
    align = ("left", *["right"] * (len(headers) - 1))
    return tabulate(rows, headers, tablefmt="github", colalign=align, disable_numparse=True)
