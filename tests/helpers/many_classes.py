"""A comparison on a data set with a given number of classes."""

from typing import Any

import numpy as np

from featherweight.comparison.record import Row, build_record
from featherweight.quality.evaluation import Evaluation

_TEXTS = 20  # of each class


def with_classes(count: int) -> dict[str, Any]:
    """Returns the record of two models; the first is better at classes with a higher id."""
    targets = np.repeat(np.arange(count), _TEXTS)
    labels = tuple(f"topic {number}" for number in range(count))
    evaluations = []
    for name, shares in (("rising", np.arange(count) / count), ("constant", np.full(count, 0.5))):
        right = np.arange(_TEXTS) < _TEXTS * shares[:, np.newaxis]  # (C, texts)
        predictions = np.where(right.ravel(), targets, (targets + 1) % count)
        probabilities = np.eye(count)[predictions]
        evaluations.append(Evaluation(name, "d", "test", labels, targets, probabilities, 1, 2))
    rows = [Row(evaluation.model, (evaluation,)) for evaluation in evaluations]
    record = build_record(rows, ["x"] * len(targets), "rising", 0)
    record["data"]["sha256"] = "0"
    return record | {
        "threads": 1, "environment": {"cpu": {"model": "a processor"}}, "command": "compare",
    }  # fmt: skip
