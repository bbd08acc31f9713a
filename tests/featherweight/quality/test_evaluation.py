import json
import tracemalloc
from collections.abc import Sequence

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, precision_recall_fscore_support

from featherweight.baselines import MostFrequentClass
from featherweight.classifier import FloatArray, IntArray
from featherweight.data.dataset import Split
from featherweight.quality.evaluation import (
    MIN_CONFIDENCES,
    Evaluation,
    bootstrap,
    coverages,
    evaluate,
    expected_calibration_error,
    macro_f1,
)

TARGETS = [0, 0, 0, 0, 1, 1, 1, 2, 2, 2]
PREDICTIONS = [0, 0, 1, 2, 1, 1, 0, 2, 2, 2]
ABC = ("a", "b", "c")


def evaluation(
    targets: Sequence[int],
    predictions: Sequence[int],
    labels: tuple[str, ...] = ABC,
    confidence: float = 1.0,
) -> Evaluation:
    """Returns an evaluation with these predictions, all with the same confidence."""
    rest = (1 - confidence) / (len(labels) - 1)
    probabilities = np.full((len(predictions), len(labels)), rest)
    probabilities[np.arange(len(predictions)), predictions] = confidence
    ids = np.array(targets, dtype=np.int64)
    return Evaluation("model", "data", "test", labels, ids, probabilities, 12, 345)


def random_evaluation(n: int = 400, classes: int = 4) -> Evaluation:
    rng = np.random.default_rng(5)
    targets = rng.choice(classes, size=n, p=[0.5, 0.3, 0.15, 0.05])
    logits = rng.normal(size=(n, classes)) + 1.5 * np.eye(classes)[targets]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = tuple("abcd"[:classes])
    return Evaluation("model", "data", "test", labels, targets, probabilities, 12, 345)


def test_the_confusion_matrix_has_true_rows_and_predicted_columns() -> None:
    matrix = evaluation(TARGETS, PREDICTIONS).confusion
    assert matrix.tolist() == [[2, 1, 1], [1, 2, 0], [0, 0, 3]]


def test_scores_are_those_worked_by_hand() -> None:
    assert evaluation(TARGETS, PREDICTIONS).scores == pytest.approx(
        {
            "accuracy": 7 / 10,
            "macro_precision": (2 / 3 + 2 / 3 + 3 / 4) / 3,
            "macro_recall": (2 / 4 + 2 / 3 + 3 / 3) / 3,
            "macro_f1": (4 / 7 + 2 / 3 + 6 / 7) / 3,
            "weighted_f1": (4 * 4 / 7 + 3 * 2 / 3 + 3 * 6 / 7) / 10,
        }
    )


def test_classes_without_a_text_limit_the_macro_averages() -> None:
    assert evaluation(TARGETS, PREDICTIONS).missing_classes == ()
    right = evaluation([0, 0, 3], [0, 0, 3], labels=("a", "b", "c", "d"))
    assert right.missing_classes == ("b", "c")
    assert right.scores["macro_f1"] == right.scores["macro_recall"] == 2 / 4
    assert right.to_json()["missing_classes"] == ["b", "c"]


def test_scores_per_class_are_those_worked_by_hand() -> None:
    per_class = evaluation(TARGETS, PREDICTIONS).per_class()
    assert list(per_class) == ["a", "b", "c"]
    expected = {"precision": 2 / 3, "recall": 2 / 4, "f1": 4 / 7, "support": 4}
    assert per_class["a"] == pytest.approx(expected)


def test_class_without_texts_and_predictions_counts_as_zero() -> None:
    four = evaluation(TARGETS, PREDICTIONS, (*ABC, "d"))
    three = evaluation(TARGETS, PREDICTIONS)
    for score in ("macro_f1", "macro_precision", "macro_recall"):
        assert four.scores[score] == pytest.approx(three.scores[score] * 3 / 4)
    assert four.scores["weighted_f1"] == pytest.approx(three.scores["weighted_f1"])
    assert four.per_class()["d"] == {"precision": 0, "recall": 0, "f1": 0, "support": 0}
    assert four.confusion.shape == (4, 4)


def test_a_class_that_is_only_predicted_has_no_precision() -> None:
    scores = evaluation([0, 0, 1], [0, 2, 1]).per_class()
    assert scores["c"] == {"precision": 0, "recall": 0, "f1": 0, "support": 0}
    assert scores["a"] == pytest.approx({"precision": 1, "recall": 0.5, "f1": 2 / 3, "support": 2})


@pytest.mark.filterwarnings("error")
def test_scores_are_those_of_sklearn() -> None:
    answers = random_evaluation()
    targets, predictions = answers.targets, answers.predictions
    precision, recall, f1, support = precision_recall_fscore_support(targets, predictions)
    assert answers.scores == pytest.approx(
        {
            "accuracy": accuracy_score(targets, predictions),
            "macro_f1": f1.mean(),
            "macro_precision": precision.mean(),
            "macro_recall": recall.mean(),
            "weighted_f1": f1_score(targets, predictions, average="weighted"),
        }
    )
    per_class = answers.per_class()
    assert [scores["f1"] for scores in per_class.values()] == pytest.approx(f1.tolist())
    assert [scores["support"] for scores in per_class.values()] == support.tolist()


def test_macro_f1_is_the_mean_over_all_classes() -> None:
    targets, predictions = np.array(TARGETS), np.array(PREDICTIONS)
    assert macro_f1(targets, predictions, 3) == pytest.approx((4 / 7 + 2 / 3 + 6 / 7) / 3)
    assert macro_f1(targets, predictions, 4) == pytest.approx((4 / 7 + 2 / 3 + 6 / 7) / 4)


def two_classes(rows: Sequence[tuple[float, bool]]) -> tuple[IntArray, FloatArray]:
    """Returns targets and probabilities for rows of (confidence, correct)."""
    probabilities = np.array([[confidence, 1 - confidence] for confidence, _ in rows])
    return np.array([0 if right else 1 for _, right in rows], dtype=np.int64), probabilities


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        pytest.param([(1.0, True), (1.0, True)], 0.0, id="sure-and-right"),
        pytest.param([(1.0, False)], 1.0, id="sure-and-wrong"),
        pytest.param([(0.9, True), (0.9, False)], 0.4, id="one-bin-is-averaged"),
        pytest.param([(0.9, True), (0.9, True), (0.65, False)], 0.85 / 3, id="two-bins"),
        # Bins are (k/15, (k+1)/15]: 12/15 and 0.79 are in one bin, 0.81 in another.
        pytest.param([(0.8, True), (0.79, False)], 0.59 / 2, id="edge-below"),
        pytest.param([(0.8, True), (0.81, False)], (0.2 + 0.81) / 2, id="edge-above"),
    ],
)
def test_calibration_error_is_that_worked_by_hand(
    rows: list[tuple[float, bool]], expected: float
) -> None:
    assert expected_calibration_error(*two_classes(rows)) == pytest.approx(expected)


def test_calibration_error_is_the_weighted_gap_of_fifteen_bins() -> None:
    answers = random_evaluation()
    confidences = answers.probabilities.max(axis=1)
    right = answers.predictions == answers.targets
    expected = 0.0
    for low in range(15):
        inside = (confidences > low / 15) & (confidences <= (low + 1) / 15)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidences[inside].mean())
    assert answers.ece == pytest.approx(expected)


def test_intervals_are_those_of_resampling_the_texts() -> None:
    answers = random_evaluation()
    rng = np.random.default_rng(1)
    samples = []
    for _ in range(3_000):
        rows = rng.integers(0, len(answers.targets), len(answers.targets))
        targets, predictions = answers.targets[rows], answers.predictions[rows]
        hits = np.bincount(targets[targets == predictions], minlength=4)
        precision = hits / np.bincount(predictions, minlength=4).clip(1)
        recall = hits / np.bincount(targets, minlength=4).clip(1)
        f1 = 2 * precision * recall / (precision + recall).clip(1e-9)
        samples.append([hits.sum() / len(rows), f1.mean(), precision.mean(), recall.mean()])
    bounds = np.percentile(samples, [2.5, 97.5], axis=0).T

    names = ["accuracy", "macro_f1", "macro_precision", "macro_recall"]
    assert list(answers.intervals) == names
    # With this many resamples, the bounds vary by about 0.003.
    for name, expected in zip(names, bounds, strict=True):
        assert answers.intervals[name] == pytest.approx(expected, abs=0.012), name


@pytest.mark.parametrize("absent", [None, 0, 29], ids=["all", "no first", "no last"])
def test_intervals_are_those_of_all_cells_of_the_matrix(absent: int | None) -> None:
    rng = np.random.default_rng(2)
    matrix = rng.poisson(0.5, (30, 30)) + 5 * np.eye(30, dtype=np.int64)
    if absent is not None:
        matrix[absent] = 0
        matrix[:, absent] = 0
    total = matrix.sum()
    draws = np.random.default_rng(7).multinomial(total, matrix.ravel() / total, size=2_000)
    counts = draws.reshape(-1, 30, 30)
    hits, true, predicted = counts.diagonal(axis1=1, axis2=2), counts.sum(axis=2), counts.sum(1)
    samples = {
        "accuracy": hits.sum(axis=1) / total,
        "macro_f1": (2 * hits / (true + predicted).clip(1)).mean(axis=1),
        "macro_precision": (hits / predicted.clip(1)).mean(axis=1),
        "macro_recall": (hits / true.clip(1)).mean(axis=1),
    }
    for name, interval in bootstrap(matrix, seed=7).items():
        bounds = np.percentile(samples[name], [2.5, 97.5])
        assert interval == pytest.approx(bounds, abs=1e-12), name


def test_memory_of_the_intervals_does_not_grow_with_the_square_of_the_classes() -> None:
    rng = np.random.default_rng(3)
    matrix = np.zeros((300, 300), np.int64)
    np.add.at(matrix, (rng.integers(0, 300, 1_000), rng.integers(0, 300, 1_000)), 1)
    tracemalloc.start()
    try:
        bootstrap(matrix)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 200e6  # 2,000 matrices would take 1,440 MB


def test_intervals_contain_the_score_and_narrow_with_more_texts() -> None:
    few = evaluation(TARGETS * 5, PREDICTIONS * 5)
    many = evaluation(TARGETS * 500, PREDICTIONS * 500)
    for name, (low, high) in few.intervals.items():
        assert low < few.scores[name] < high
        narrow = many.intervals[name]
        assert (narrow[1] - narrow[0]) == pytest.approx((high - low) / 10, rel=0.25)


def test_intervals_are_reproducible() -> None:
    matrix = evaluation(TARGETS, PREDICTIONS).confusion
    assert bootstrap(matrix) == bootstrap(matrix) == bootstrap(matrix, seed=0)
    assert bootstrap(matrix) != bootstrap(matrix, seed=1)


@pytest.mark.filterwarnings("error")
def test_intervals_of_a_perfect_model_with_an_absent_class() -> None:
    intervals = evaluation([0, 1] * 50, [0, 1] * 50).intervals
    assert intervals["accuracy"] == (1, 1)
    assert intervals["macro_f1"] == pytest.approx((2 / 3, 2 / 3))


def test_json_has_exactly_the_documented_keys() -> None:
    record = json.loads(json.dumps(evaluation(TARGETS, PREDICTIONS, confidence=0.8).to_json()))
    assert list(record) == [
        "model", "data", "split", "n", "parameters", "size_bytes", "accuracy", "macro_f1",
        "macro_precision", "macro_recall", "weighted_f1", "ece", "intervals", "missing_classes",
        "per_class",
        "confusion_matrix", "coverage",
    ]  # fmt: skip
    assert (record["model"], record["data"], record["split"]) == ("model", "data", "test")
    assert (record["n"], record["parameters"], record["size_bytes"]) == (10, 12, 345)
    assert record["ece"] == pytest.approx(0.1)
    assert set(record["intervals"]) == {
        "accuracy", "macro_f1", "macro_precision", "macro_recall",
    }  # fmt: skip
    assert all(len(interval) == 2 for interval in record["intervals"].values())
    assert set(record["per_class"]["a"]) == {"precision", "recall", "f1", "support"}
    assert record["confusion_matrix"] == [[2, 1, 1], [1, 2, 0], [0, 0, 3]]
    assert type(record["per_class"]["a"]["support"]) is int


def test_evaluate_stores_the_predictions() -> None:
    train = Split("train", ("a", "b", "c"), np.array([1, 1, 0]))
    test = Split("test", ("d", "e"), np.array([1, 0]))
    answers = evaluate(MostFrequentClass(train, ("no", "yes")), test, "letters")
    assert (answers.model, answers.data, answers.split) == (
        "most frequent class",
        "letters",
        "test",
    )
    assert answers.predictions.tolist() == [1, 1]
    assert answers.scores["accuracy"] == 0.5
    np.testing.assert_allclose(answers.probabilities, [[1 / 3, 2 / 3]] * 2)


# Confidences 0.55, 0.65, 0.85, 0.97; the first and the third prediction are wrong.
COVERAGE_PROBABILITIES = np.array([[0.55, 0.45], [0.35, 0.65], [0.85, 0.15], [0.03, 0.97]])
COVERAGE_TARGETS = np.array([1, 1, 1, 1])


def test_coverage_worked_by_hand() -> None:
    rows = coverages(COVERAGE_TARGETS, COVERAGE_PROBABILITIES)
    results = {row.min_confidence: (row.answered, row.accuracy) for row in rows}
    assert tuple(results) == MIN_CONFIDENCES
    assert results[0.0] == (4, 0.5)
    assert results[0.6] == (3, pytest.approx(2 / 3))
    assert results[0.7] == (2, 0.5)
    assert results[0.95] == (1, 1.0)
    # Wilson, 2 of 4: (2 + z²/2) / (4 + z²) ± z / (4 + z²) · sqrt(1 + z²/4), with z = 1.959964.
    assert rows[0].interval == pytest.approx((0.150036, 0.849964), abs=1e-5)
    assert rows[-1] == (0.99, 0, 0.0, None, None)
    assert json.loads(json.dumps([row._asdict() for row in rows]))[0]["answered"] == 4


def test_confidence_equal_to_the_minimum_is_accepted() -> None:
    rows = coverages(COVERAGE_TARGETS[:1], np.array([[0.1, 0.9]]))
    (row,) = [row for row in rows if row.min_confidence == 0.9]
    assert (row.answered, row.share, row.accuracy) == (1, 1.0, 1.0)
