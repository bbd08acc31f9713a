import json
import tracemalloc
from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import f1_score
from statsmodels.stats.contingency_tables import mcnemar

from featherweight.classifier import IntArray
from featherweight.quality import significance
from featherweight.quality.significance import (
    Metric,
    PairedTest,
    compare_groups,
    holm,
    mcnemar_accuracy,
)

N, CLASSES = 2000, 6


def ids(values: Sequence[int]) -> IntArray:
    return np.array(values, dtype=np.int64)


def answers(targets: IntArray, accuracy: float, seed: int) -> IntArray:
    """Returns predictions that are correct with this probability and random otherwise."""
    rng = np.random.default_rng(seed)
    guesses = rng.integers(0, CLASSES, size=len(targets))
    return np.where(rng.random(len(targets)) < accuracy, targets, guesses)


def broken(predictions: IntArray, share: float) -> IntArray:
    """Returns a copy in which this share of the predictions is another class."""
    rows = np.random.default_rng(3).choice(len(predictions), int(share * len(predictions)), False)
    copy = predictions.copy()
    copy[rows] = (copy[rows] + 1) % CLASSES
    return copy


@pytest.fixture
def targets() -> IntArray:
    shares = [0.35, 0.29, 0.14, 0.13, 0.06, 0.03]
    return np.random.default_rng(0).choice(CLASSES, size=N, p=shares)


@pytest.fixture
def reference(targets: IntArray) -> IntArray:
    return answers(targets, 0.92, seed=1)


def macro_f1_test(
    targets: IntArray, reference: IntArray, contender: IntArray, num_labels: int, seed: int = 0
) -> PairedTest:
    return compare_groups(targets, [reference], [contender], num_labels, "macro_f1", seed)


def paired(p_value: float, difference: float = 0.1, adjusted_p: float | None = None) -> PairedTest:
    return PairedTest("accuracy", 2000, difference, (0.05, 0.15), p_value, adjusted_p)


def test_mcnemar_worked_by_hand() -> None:
    # 10 texts: only the reference is correct on 1, only the contender on 5, both on 3.
    targets = ids([0] * 10)
    reference = ids([0] + [1] * 5 + [0] * 3 + [1])
    contender = ids([1] + [0] * 5 + [0] * 3 + [1])
    test = mcnemar_accuracy(targets, reference, contender)
    assert (test.metric, test.n) == ("accuracy", 10)
    assert test.difference == pytest.approx(0.4)
    # Binomial with n = 6, at most 1, two-sided: 2 * (1 + 6) / 2^6.
    assert test.p_value == pytest.approx(14 / 64)


def test_mcnemar_equals_scipy_and_statsmodels(targets: IntArray, reference: IntArray) -> None:
    contender = answers(targets, 0.9, seed=2)
    right, also_right = reference == targets, contender == targets
    only_reference = int((right & ~also_right).sum())
    only_contender = int((~right & also_right).sum())
    p_value = mcnemar_accuracy(targets, reference, contender).p_value
    assert 0 < p_value < 1
    assert p_value == pytest.approx(
        binomtest(only_reference, only_reference + only_contender).pvalue
    )
    table = [[0, only_reference], [only_contender, 0]]
    assert p_value == pytest.approx(mcnemar(table, exact=True).pvalue)


def test_different_errors_are_no_difference_in_accuracy() -> None:
    test = mcnemar_accuracy(ids([0, 0, 1, 1]), ids([0, 1, 2, 1]), ids([0, 2, 0, 1]))
    assert (test.difference, test.interval, test.p_value) == (0, (0, 0), 1)


def test_difference_in_macro_f1_worked_by_hand() -> None:
    targets = ids([0, 0, 1, 1])
    # Reference: F1 of 2/3 for class 0 (2 * 1 / (2 + 1)) and 4/5 for class 1 (2 * 2 / (2 + 3)).
    test = macro_f1_test(targets, ids([0, 1, 1, 1]), ids([0, 0, 1, 1]), num_labels=2)
    assert test.difference == pytest.approx(1 - (2 / 3 + 4 / 5) / 2)
    # A third class that never occurs counts as 0 for both.
    test = macro_f1_test(targets, ids([0, 1, 1, 1]), ids([0, 0, 1, 1]), num_labels=3)
    assert test.difference == pytest.approx(2 / 3 - (2 / 3 + 4 / 5) / 3)
    # One text per class: a perfect reference against F1 scores of 2/3 and 0.
    test = macro_f1_test(ids([0, 1]), ids([0, 1]), ids([0, 0]), num_labels=2)
    assert test.difference == pytest.approx(1 / 3 - 1)


def test_the_p_value_counts_the_resamples_on_the_other_side() -> None:
    # The contender is correct on both texts, the reference on one. A resample of the
    # two misses the other with probability 1/4: two-sided p = 1/2, and no resample is below 0.
    test = compare_groups(ids([0, 0]), [ids([0, 1])], [ids([0, 0])], 2, "accuracy")
    assert test.difference == 0.5
    assert test.interval == (0, 1)
    assert test.p_value == pytest.approx(2 * 0.25, abs=0.02)
    # No resample on the other side: the smallest p-value of 10,000 resamples.
    test = compare_groups(ids([0, 0]), [ids([1, 1])], [ids([0, 0])], 2, "accuracy")
    assert test.p_value == pytest.approx(2 / 10_001)


def plain_score(metric: Metric, targets: IntArray, predictions: IntArray) -> float:
    """Computes the score class by class."""
    if metric == "accuracy":
        return float((targets == predictions).mean())
    f1 = []
    for label in range(CLASSES):
        true, answered = targets == label, predictions == label
        texts = true.sum() + answered.sum()
        f1.append(2 * (true & answered).sum() / texts if texts else 0)
    return float(np.mean(f1))


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_bootstrap_equals_resampling_texts_one_by_one(targets: IntArray, metric: Metric) -> None:
    some = targets[:150]
    one, other = answers(some, 0.7, seed=1), answers(some, 0.78, seed=2)
    rng = np.random.default_rng(9)
    slow = []
    for _ in range(2000):
        rows = rng.integers(0, len(some), size=len(some))
        before = plain_score(metric, some[rows], one[rows])
        slow.append(plain_score(metric, some[rows], other[rows]) - before)
    test = compare_groups(some, [one], [other], CLASSES, metric)
    assert test.interval == pytest.approx(np.percentile(slow, [2.5, 97.5]), abs=0.02)
    share = min((np.array(slow) <= 0).mean(), (np.array(slow) >= 0).mean())
    assert test.p_value == pytest.approx(2 * share, abs=0.06)


def test_difference_in_macro_f1_equals_sklearn(targets: IntArray, reference: IntArray) -> None:
    contender = answers(targets, 0.9, seed=2)
    one, other = (
        f1_score(targets, predictions, average="macro") for predictions in (reference, contender)
    )
    test = macro_f1_test(targets, reference, contender, CLASSES)
    assert test.difference == pytest.approx(other - one)


def test_two_copies_of_one_model_show_no_difference(targets: IntArray, reference: IntArray) -> None:
    copy = reference.copy()
    for test in holm(
        [
            mcnemar_accuracy(targets, reference, copy),
            macro_f1_test(targets, reference, copy, CLASSES),
        ]
    ):
        assert (test.difference, test.interval, test.p_value) == (0, (0, 0), 1)
        assert test.verdict == "no difference shown (n = 2000)"


def test_copy_with_five_percent_wrong_predictions_is_worse(
    targets: IntArray, reference: IntArray
) -> None:
    copy = broken(reference, 0.05)
    tests = [
        mcnemar_accuracy(targets, reference, copy),
        macro_f1_test(targets, reference, copy, CLASSES),
    ]
    assert [test.verdict for test in holm(tests)] == ["worse", "worse"]
    assert all(test.interval[0] < test.difference < test.interval[1] < 0 for test in tests)
    assert mcnemar_accuracy(targets, copy, reference).verdict == "better"


def test_interval_of_mcnemar_is_from_the_bootstrap(targets: IntArray, reference: IntArray) -> None:
    contender = answers(targets, 0.9, seed=2)
    accuracy = compare_groups(targets, [reference], [contender], CLASSES, "accuracy")
    assert accuracy.interval == mcnemar_accuracy(targets, reference, contender).interval


def test_groups_differ_by_the_means_of_their_members() -> None:
    targets = ids([0, 0, 1, 1])
    perfect, half, none = targets, ids([0, 1, 0, 1]), 1 - targets
    # Accuracies 1, 0.5 and 0: (1 + 0.5) / 2 - (0.5 + 0 + 0) / 3.
    test = compare_groups(targets, [half, none, none], [perfect, half], 2, "accuracy")
    assert test.difference == pytest.approx(0.75 - 0.5 / 3)


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_groups_of_the_same_members_show_no_difference(targets: IntArray, metric: Metric) -> None:
    some = targets[:200]
    members = [answers(some, accuracy, seed=7) for accuracy in (0.9, 0.83, 0.71)]
    test = compare_groups(some, members, [members[2], *members[:2]], CLASSES, metric)
    assert (test.difference, test.interval, test.p_value) == (0, (0, 0), 1)


def test_comparison_is_reproducible(targets: IntArray, reference: IntArray) -> None:
    contender = answers(targets, 0.9, seed=2)
    first = macro_f1_test(targets, reference, contender, CLASSES, seed=4)
    assert macro_f1_test(targets, reference, contender, CLASSES, seed=4) == first
    other = macro_f1_test(targets, reference, contender, CLASSES, seed=5)
    assert other.interval != first.interval
    assert other.difference == first.difference


def test_holm_worked_by_hand() -> None:
    tests = [paired(0.03), paired(0.005), paired(0.02), paired(0.6)]
    # Sorted: 0.005, 0.02, 0.03, 0.6 times 4, 3, 2, 1, made monotonic.
    assert [test.adjusted_p for test in holm(tests)] == pytest.approx([0.06, 0.02, 0.06, 0.6])
    assert [test.p_value for test in holm(tests)] == [0.03, 0.005, 0.02, 0.6]
    assert [test.verdict for test in holm(tests)] == [
        "no difference shown (n = 2000)",
        "better",
        "no difference shown (n = 2000)",
        "no difference shown (n = 2000)",
    ]


def test_holm_of_no_tests() -> None:
    assert holm([]) == []


@pytest.mark.parametrize(
    ("test", "verdict"),
    [
        pytest.param(paired(0.01, 0.1, 0.049), "better", id="better"),
        pytest.param(paired(0.01, -0.1, 0.049), "worse", id="worse"),
        pytest.param(paired(0.01, 0.1, 0.05), "no difference shown (n = 2000)", id="at-the-edge"),
        pytest.param(paired(0.01, -0.1, 0.2), "no difference shown (n = 2000)", id="corrected"),
        pytest.param(paired(0.01, -0.1), "worse", id="the-only-test"),
    ],
)
def test_the_verdict_follows_the_adjusted_p_and_the_sign(test: PairedTest, verdict: str) -> None:
    assert test.verdict == verdict


def test_json_has_every_field_and_the_verdict() -> None:
    assert json.loads(json.dumps(paired(0.01, 0.1, 0.02).to_json())) == {
        "metric": "accuracy",
        "n": 2000,
        "difference": 0.1,
        "interval": [0.05, 0.15],
        "p_value": 0.01,
        "adjusted_p": 0.02,
        "verdict": "better",
    }


def test_memory_of_a_test_does_not_grow_with_texts_times_classes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(significance, "RESAMPLES", 100)
    rng = np.random.default_rng(3)
    targets, reference, contender = rng.integers(0, 300, (3, 20_000))
    tracemalloc.start()
    try:
        macro_f1_test(targets, reference, contender, 300)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 100e6  # one value per text, model and class would take 144 MB
