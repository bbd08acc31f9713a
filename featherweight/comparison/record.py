"""Turns evaluations and latencies into one record, with significance tests of the differences.

The record is plain JSON; all tables, pictures and the page are made from it alone.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from featherweight.data.rows import listing
from featherweight.errors import UsageError, shortened
from featherweight.quality.evaluation import Evaluation
from featherweight.quality.robustness import Robustness
from featherweight.quality.significance import PairedTest, compare_groups, holm, mcnemar_accuracy
from featherweight.timing.latency import Latency

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """One model, or several seeds of one.

    Attributes:
        model: Name in the tables.
        evaluations: One per seed; none for a model that was only timed.
        latencies: One per device and batch size, of the first seed.
        robustness: One per perturbation, of the first seed.
        note: A remark for the reader.
        rejected: Why `compress` rejected the variant; empty otherwise.
        method: Compression method of a variant; empty otherwise.
        origin: Name of the run that a variant was made from; empty otherwise.
        parameters: Number of parameters, for a model without evaluations.
        size_bytes: Size in bytes, for a model without evaluations.
    """

    model: str
    evaluations: tuple[Evaluation, ...] = ()
    latencies: tuple[Latency, ...] = ()
    robustness: tuple[Robustness, ...] = ()
    note: str = ""
    rejected: str = ""
    method: str = ""
    origin: str = ""
    parameters: int = 0
    size_bytes: int = 0


def build_record(
    rows: Sequence[Row], texts: Sequence[str], reference: str, max_disagreements: int
) -> dict[str, Any]:
    """Builds the record of a comparison.

    Args:
        rows: The models; those with evaluations were evaluated on the same N texts.
        texts: The N texts.
        reference: Name of the row that the others are tested against.
        max_disagreements: How many texts to list on which the models disagree most.

    Returns:
        "reference", "data" (name, split, n, labels, missing classes), "rows" and "disagreements".

    Raises:
        UsageError: Two rows have the same name, none has evaluations, the evaluations are of
            different texts, or no row with evaluations has the reference's name.
    """
    by_name = {row.model: row for row in rows}
    if len(by_name) < len(rows):
        raise UsageError("two models have the same name: rename a run, or give --group")
    evaluated = [row for row in rows if row.evaluations]
    if not evaluated:
        raise UsageError("no model was evaluated: add a trained model")
    base = _reference(reference, by_name, evaluated)
    first, *others = (evaluation for row in evaluated for evaluation in row.evaluations)
    for evaluation in others:
        _refuse_incomparable(first, evaluation)
    n = len(first.targets)
    tests = _significance(base, [row for row in evaluated if row is not base])
    figures = {row.model: _figures(row) for row in rows}
    return {
        "reference": reference,
        "data": {
            "name": first.data,
            "split": first.split,
            "n": n,
            "labels": list(first.labels),
            "missing_classes": list(first.missing_classes),
        },
        "rows": [
            {**row, "ratios": _ratios(row, figures[reference]), "tests": tests.get(name)}
            for name, row in figures.items()
        ],
        "disagreements": disagreements(evaluated, texts, max_disagreements),
    }


def model_name(row: Record) -> str:
    """Returns the name of a row as shown: a rejected variant is marked."""
    name = str(row["model"])
    if not row.get("rejected"):
        return name
    return f"{name[:-1]}, rejected)" if name.endswith(")") else f"{name} (rejected)"


def remarks(row: Record) -> list[str]:
    """Returns the note on a row, and why a variant was rejected."""
    rejected = row.get("rejected")
    return [*filter(None, [row["note"], rejected and f"rejected: {rejected}"])]


def latency_at(row: Record, device: str, batch_size: int) -> Record | None:
    """Returns the latency of a row on "cpu" or "cuda" at a batch size; None if not measured."""
    for latency in row["latencies"]:
        if (latency["device"], latency["batch_size"]) == (device, batch_size):
            return latency
    return None


def disagreements(
    rows: Sequence[Row], texts: Sequence[str], max_disagreements: int
) -> list[dict[str, Any]]:
    """Returns the texts with the most distinct predictions, ties by the most wrong ones.

    Args:
        rows: Rows with evaluations.
        texts: The N texts.
        max_disagreements: Maximum number of texts.
    """
    evaluations = [row.evaluations[0] for row in rows]
    labels, targets = evaluations[0].labels, evaluations[0].targets
    predictions = np.stack([evaluation.predictions for evaluation in evaluations])  # (R, N)
    distinct = np.array([len(set(column)) for column in predictions.T])
    wrong = (predictions != targets).sum(axis=0)
    order = np.lexsort((-wrong, -distinct))[:max_disagreements]
    return [
        {
            "text": texts[index],
            "target": labels[targets[index]],
            "answers": {
                row.model: labels[prediction]
                for row, prediction in zip(rows, predictions[:, index], strict=True)
            },
        }
        for index in order.tolist()
        if distinct[index] > 1
    ]


def _reference(name: str, by_name: Mapping[str, Row], evaluated: Sequence[Row]) -> Row:
    choices = listing(row.model for row in evaluated)
    if name not in by_name:
        raise UsageError(f"--reference {shortened(name)}: choose one of {choices}")
    if not by_name[name].evaluations:
        raise UsageError(f"--reference {shortened(name)} was only timed: choose one of {choices}")
    return by_name[name]


def _refuse_incomparable(one: Evaluation, other: Evaluation) -> None:
    """Refuses evaluations on different labeled texts.

    Raises:
        UsageError: Data, split, labels or targets differ; the message says which.
    """
    names = f"{one.model} and {other.model}"
    for field, value, other_value in (
        ("data", one.data, other.data),
        ("split", one.split, other.split),
        ("labels", one.labels, other.labels),
    ):
        if value != other_value:
            shown = [
                each if isinstance(each, str) else listing(each) for each in (value, other_value)
            ]
            raise UsageError(f"{names} are not comparable: {field} {' and '.join(shown)}")
    if not np.array_equal(one.targets, other.targets):
        raise UsageError(f"{names} are not comparable: evaluated on different texts")


def _significance(reference: Row, others: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Tests every row against the reference, corrected over all tests by Holm.

    Returns:
        The tests of accuracy and macro-F1, by row name.
    """
    tests = holm([test for row in others for test in _paired_tests(reference, row)])
    pairs = zip(tests[::2], tests[1::2], strict=True)
    return {
        row.model: {test.metric: test.to_json() for test in pair}
        for row, pair in zip(others, pairs, strict=True)
    }


def _paired_tests(reference: Row, other: Row) -> tuple[PairedTest, PairedTest]:
    targets = reference.evaluations[0].targets
    num_labels = len(reference.evaluations[0].labels)
    before = [evaluation.predictions for evaluation in reference.evaluations]
    after = [evaluation.predictions for evaluation in other.evaluations]
    macro_f1 = compare_groups(targets, before, after, num_labels, "macro_f1")
    if len(before) == len(after) == 1:
        return mcnemar_accuracy(targets, before[0], after[0]), macro_f1
    return compare_groups(targets, before, after, num_labels, "accuracy"), macro_f1


def _figures(row: Row) -> dict[str, Any]:
    """Returns everything about a row that does not depend on the others."""
    measured: Evaluation | Row = row.evaluations[0] if row.evaluations else row
    return {
        "model": row.model,
        "members": [evaluation.model for evaluation in row.evaluations],
        "note": row.note,
        "rejected": row.rejected,
        "method": row.method,
        "origin": row.origin,
        "parameters": measured.parameters,
        "size_bytes": measured.size_bytes,
        **_quality(row.evaluations),
        "latencies": [latency.to_json(raw=False) for latency in row.latencies],
        "robustness": [vars(result) for result in row.robustness],
    }


def _quality(evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """Returns means over the seeds, and the first seed's classes; empty if only timed."""
    if not evaluations:
        return {
            **dict.fromkeys(("deviations", "ece", "confusion_matrix")),
            **{name: {} for name in ("scores", "intervals", "per_class")},
        }
    first = evaluations[0]
    scores = {
        name: [evaluation.scores[name] for evaluation in evaluations] for name in first.scores
    }
    several = len(evaluations) > 1
    return {
        "scores": {name: statistics.mean(values) for name, values in scores.items()},
        "deviations": (
            {name: statistics.stdev(values) for name, values in scores.items()} if several else None
        ),
        "intervals": {name: _mean_interval(evaluations, name) for name in first.intervals},
        "ece": statistics.mean(evaluation.ece for evaluation in evaluations),
        "per_class": first.per_class(),
        "confusion_matrix": first.confusion.tolist(),
    }


def _mean_interval(evaluations: Sequence[Evaluation], name: str) -> list[float]:
    """Returns the mean bounds: the uncertainty of one seed's score due to the texts alone."""
    bounds = [evaluation.intervals[name] for evaluation in evaluations]
    return [statistics.mean(ends) for ends in zip(*bounds, strict=True)]


def _ratios(row: Record, reference: Record) -> dict[str, Any]:
    """Returns size, accuracy and macro-F1 over the reference's, and the speedups."""
    speed: dict[str, dict[str, float]] = {}
    for latency in row["latencies"]:
        device, batch_size = latency["device"], latency["batch_size"]
        before = latency_at(reference, device, batch_size)
        if before:
            speedup = before["total_ms"]["p50"] / latency["total_ms"]["p50"]
            speed.setdefault(device, {})[str(batch_size)] = speedup
    return {
        "size": _ratio(row["size_bytes"], reference["size_bytes"]),
        **{
            metric: _ratio(row["scores"].get(metric), reference["scores"][metric])
            for metric in ("accuracy", "macro_f1")
        },
        "speed": speed,
    }


def _ratio(value: float | None, reference: float) -> float | None:
    return value / reference if value is not None and reference else None
