"""The figures of edge/pretrained/README.md, the card of the bundle that ships."""

from collections.abc import Mapping
from typing import Any

from rendering.tables import interval, spread
from shared.record import read_record
from tabulate import tabulate

Record = Mapping[str, Any]


def blocks() -> dict[str, str]:
    """Returns what stands between the markers of the card, by their names."""
    record = read_record("pretrained")
    ours = shipped(record)
    return {
        "quality": _quality(record, ours),
        "per-class": _per_class(ours["test"]),
        "weaknesses": _weaknesses(ours["test"]),
        "coverage": _coverage(ours["test"]),
        "raw-tweets": _raw_tweets(record, ours["test"]),
        "probes": _probes(record),
        "recipe": _recipe(record),
        "recipes": recipes(record),
    }


def shipped(record: Record) -> Record:
    """Returns the figures of the bundle that ships."""
    chosen = record["shipped"]
    row: Record = next(
        it for it in record["rows"] if all(it[name] == chosen[name] for name in ("recipe", "seed"))
    )
    return row


def recipes(record: Record) -> str:
    """Returns a row for each recipe: what it learned from, and its seeds' mean on either split."""
    rows = []
    for name, facts in record["recipes"].items():
        seeds = [row for row in record["rows"] if row["recipe"] == name]
        rows.append(
            [
                f"{facts['data']['splits']['train']['n']:,}",
                len(seeds),
                *(
                    spread([row[split][metric] for row in seeds])
                    for split in ("validation", "test")
                    for metric in ("accuracy", "macro_f1")
                ),
                "yes" if name == record["shipped"]["recipe"] else "",
            ]
        )
    headers = [
        "labels learned from", "seeds", "validation accuracy", "validation macro-F1",
        "test accuracy", "test macro-F1", "ships",
    ]  # fmt: skip
    return _table(rows, headers)


def _quality(record: Record, ours: Record) -> str:
    rows = [
        [
            split,
            f"{ours[split]['n']:,}",
            *(
                f"{ours[split][metric]:.4f} {interval(ours[split]['intervals'][metric])}"
                for metric in ("accuracy", "macro_f1")
            ),
            f"{ours[split]['ece']:.3f}",
        ]
        for split in ("validation", "test")
    ]
    return (
        f"{_table(rows, ['split', 'n', 'accuracy', 'macro-F1', 'ECE'])}\n\n[low, high]: 95 % "
        f"bootstrap interval. {ours['size_bytes']:,} bytes, {ours['test']['parameters']:,} "
        f"parameters. Of {len(record['rows'])} bundles this one, seed {record['shipped']['seed']} "
        "of its recipe, was best on validation, so that row flatters it; the test split was read "
        "for this table only."
    )


def _per_class(test: Record) -> str:
    rows = [
        [label, *(f"{scores[it]:.4f}" for it in ("precision", "recall", "f1")), scores["support"]]
        for label, scores in test["per_class"].items()
    ]
    return _table(rows, ["emotion", "precision", "recall", "F1", "support"])


def _weaknesses(test: Record) -> str:
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
            f"{row['accuracy']:.4f} {interval(row['interval'])}",
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
    facts, plain = record["recipes"][record["shipped"]["recipe"]], record["data"]["splits"]["train"]
    learned = facts["data"]["splits"]["train"]["n"]
    more = record["further"]["n"]
    labels = (
        f"Teachers and student learned from the labels of {learned:,} texts: the {plain['n']:,} of "
        f"the official training split and {more:,} further ones of the same collection, which "
        "stand in none of its splits. Published figures use the former alone, and so does the "
        "other recipe in this table."
        if learned > plain["n"]
        else f"Teachers and student learned from the {learned:,} texts of the official training "
        f"split; to {more:,} further ones only the teachers' answers were learned."
    )
    return (
        f"A `feather` of {record['shape']['hidden_dim']} units a direction and "
        f"{record['shape']['vocab_size']:,} words learned what {len(facts['teachers'])} teachers "
        f"({', '.join(facts['teachers'])}) answer, at temperature {record['temperature']:g} and "
        f"alpha {record['alpha']:g}; its matrices are stored in int8. {labels}"
    )


def _table(rows: list[list[Any]], headers: list[str]) -> str:
    align = ("left", *["right"] * (len(headers) - 1))
    return tabulate(rows, headers, tablefmt="github", colalign=align, disable_numparse=True)
