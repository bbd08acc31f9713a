"""Evaluations and Latencies -> one record that says which differences are real.

The record is plain JSON: tables, pictures and the page are made from it and from nothing else.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from featherweight.errors import UsageError
from featherweight.quality.evaluation import Evaluation
from featherweight.quality.robustness import Robustness
from featherweight.quality.significance import (
    PairedTest,
    compare_groups,
    holm,
    mcnemar_accuracy,
)
from featherweight.timing.latency import Latency

_INTERVALS = ("accuracy", "macro_f1", "macro_precision", "macro_recall")


@dataclass(frozen=True)
class Row:
    """One contender, or several seeds of one.

    Attributes:
        model: What the table calls it.
        evaluations: One a seed; none of a model that was timed only.
        latencies: One a device and batch size, those of the first seed.
        robustness: One a perturbation, those of the first seed.
        note: What a reader must know.
        parameters: Learned values of a model without evaluations, which state their own.
        size_bytes: Bytes to ship a model without evaluations, which state their own.
    """

    model: str
    evaluations: tuple[Evaluation, ...] = ()
    latencies: tuple[Latency, ...] = ()
    robustness: tuple[Robustness, ...] = ()
    note: str = ""
    parameters: int = 0
    size_bytes: int = 0


def build_record(
    rows: Sequence[Row], texts: Sequence[str], reference: str, most: int
) -> dict[str, Any]:
    """Puts contenders side by side.

    Args:
        rows: The contenders; those with evaluations all answered the same N texts.
        texts: The N texts.
        reference: Name of the row that the others are tested against.
        most: How many of the texts to list on which the contenders disagree most.

    Returns:
        "reference", "data" (name, split, n, labels), "rows" and "disagreements".

    Raises:
        UsageError: No row has answered, one answered other texts, or no row that has answered
            bears the reference's name.
    """
    by_name = {row.model: row for row in rows}
    if len(by_name) < len(rows):
        raise UsageError("two contenders have the same name: rename a run, or give --group")
    answered = [row for row in rows if row.evaluations]
    if not answered:
        raise UsageError("no contender has answered a text: add a model that was trained")
    base = _reference(reference, by_name, answered)
    first = answered[0].evaluations[0]
    for row in answered:
        for evaluation in row.evaluations:
            refuse_incomparable(first, evaluation)
    tests = significance(base, [row for row in answered if row is not base])
    return {
        "reference": reference,
        "data": {
            "name": first.data,
            "split": first.split,
            "n": len(first.targets),
            "labels": list(first.labels),
        },
        "rows": [
            {**_figures(row), "ratios": _ratios(row, base), "tests": tests.get(row.model)}
            for row in rows
        ],
        "disagreements": disagreements(answered, texts, most),
    }


def _reference(name: str, by_name: Mapping[str, Row], answered: Sequence[Row]) -> Row:
    choices = ", ".join(row.model for row in answered)
    if name not in by_name:
        raise UsageError(f"--reference {name}: choose one of {choices}")
    if not by_name[name].evaluations:
        raise UsageError(f"--reference {name} was timed only: choose one of {choices}")
    return by_name[name]


def refuse_incomparable(one: Evaluation, other: Evaluation) -> None:
    """Refuses figures that were not measured on the same labeled texts.

    Raises:
        UsageError: Data, split, labels or targets differ; the message says which.
    """
    for what, left, right in (
        ("data", one.data, other.data),
        ("split", one.split, other.split),
        ("labels", ", ".join(one.labels), ", ".join(other.labels)),
    ):
        if left != right:
            raise UsageError(
                f"{one.model} and {other.model} are not comparable: {what} {left} and {right}"
            )
    if not np.array_equal(one.targets, other.targets):
        raise UsageError(f"{one.model} and {other.model} answered other texts: not comparable")


def significance(base: Row, others: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Tests every row against the base on the same texts, corrected over all tests by Holm.

    All of them have evaluations.

    Returns:
        By row name, the tests of accuracy and macro-F1.
    """
    tests = holm([test for row in others for test in _tests(base, row)])
    pairs = zip(tests[::2], tests[1::2], strict=True)
    return {
        row.model: {test.metric: test.to_json() for test in pair}
        for row, pair in zip(others, pairs, strict=True)
    }


def disagreements(rows: Sequence[Row], texts: Sequence[str], most: int) -> list[dict[str, Any]]:
    """Returns the texts with the most different answers, then with the most wrong ones.

    All rows have evaluations.
    """
    evaluations = [row.evaluations[0] for row in rows]
    labels, targets = evaluations[0].labels, evaluations[0].targets
    answers = np.stack([evaluation.predictions for evaluation in evaluations])  # (R, N)
    different = np.array([len(set(column)) for column in answers.T])
    wrong = (answers != targets).sum(axis=0)
    order = np.lexsort((-wrong, -different))[:most]
    return [
        {
            "text": texts[index],
            "target": labels[targets[index]],
            "answers": {
                row.model: labels[answer]
                for row, answer in zip(rows, answers[:, index], strict=True)
            },
        }
        for index in order.tolist()
        if different[index] > 1
    ]


def _tests(base: Row, row: Row) -> tuple[PairedTest, PairedTest]:
    targets, num_labels = base.evaluations[0].targets, len(base.evaluations[0].labels)
    ours = [evaluation.predictions for evaluation in base.evaluations]
    theirs = [evaluation.predictions for evaluation in row.evaluations]
    if len(ours) == len(theirs) == 1:
        return (
            mcnemar_accuracy(targets, ours[0], theirs[0]),
            compare_groups(targets, ours, theirs, num_labels, "macro_f1"),
        )
    return (
        compare_groups(targets, ours, theirs, num_labels, "accuracy"),
        compare_groups(targets, ours, theirs, num_labels, "macro_f1"),
    )


def _figures(row: Row) -> dict[str, Any]:
    """Everything about a row alone."""
    return {
        "model": row.model,
        "members": [evaluation.model for evaluation in row.evaluations],
        "note": row.note,
        **_weight(row),
        **_quality(row.evaluations),
        "latencies": [_timing(latency) for latency in row.latencies],
        "robustness": [vars(result) for result in row.robustness],
    }


def _weight(row: Row) -> dict[str, int]:
    source: Evaluation | Row = row.evaluations[0] if row.evaluations else row
    return {"parameters": source.parameters, "size_bytes": source.size_bytes}


def _quality(evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """Means over the seeds, classes of the first; all empty of a model that was timed only."""
    if not evaluations:
        return {
            "scores": {},
            "deviations": None,
            "intervals": {},
            "ece": None,
            "per_class": {},
            "confusion_matrix": None,
        }
    records = [evaluation.to_json() for evaluation in evaluations]
    scores = {
        name: [evaluation.scores[name] for evaluation in evaluations]
        for name in evaluations[0].scores
    }
    several = len(records) > 1
    return {
        "scores": {name: statistics.mean(values) for name, values in scores.items()},
        "deviations": (
            {name: statistics.stdev(values) for name, values in scores.items()} if several else None
        ),
        "intervals": {name: _mean_interval(records, name) for name in _INTERVALS},
        "ece": statistics.mean(record["ece"] for record in records),
        "per_class": records[0]["per_class"],
        "confusion_matrix": records[0]["confusion_matrix"],
    }


def _mean_interval(records: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    """The mean bounds: how far the texts alone leave one seed's figure open."""
    bounds = [record["intervals"][name] for record in records]
    return [statistics.mean(ends) for ends in zip(*bounds, strict=True)]


def _timing(latency: Latency) -> dict[str, Any]:
    return latency.to_json(raw=False) | {
        "phases": {
            phase: {f"p{q}": latency.percentile(q, phase) for q in (50, 90, 95, 99)}
            for phase in ("encode", "forward", "total")
        }
    }


def _ratios(row: Row, base: Row) -> dict[str, Any]:
    """Size, accuracy and macro-F1 as shares of the base's; speed as how often faster."""
    ours, theirs = _figures_of(base), _figures_of(row)
    base_ms = {(it.device, it.batch_size): it.percentile(50) for it in base.latencies}
    speed: dict[str, dict[str, float]] = {}
    for latency in row.latencies:
        place = (latency.device, latency.batch_size)
        if place in base_ms:
            times = base_ms[place] / latency.percentile(50)
            speed.setdefault(latency.device, {})[str(latency.batch_size)] = times
    shares = {name: _share(theirs[name], ours[name]) for name in ours}
    return {**shares, "speed": speed}


def _share(part: float | None, whole: float | None) -> float | None:
    return part / whole if part is not None and whole else None


def _figures_of(row: Row) -> dict[str, float | None]:
    size = _weight(row)["size_bytes"]
    if not row.evaluations:
        return {"size": size, "accuracy": None, "macro_f1": None}
    return {
        "size": size,
        "accuracy": statistics.mean(it.scores["accuracy"] for it in row.evaluations),
        "macro_f1": statistics.mean(it.scores["macro_f1"] for it in row.evaluations),
    }
