"""Paired significance tests of two classifiers on the same N texts.

Both classifiers see the same easy and difficult texts, so the tests use pairs of predictions
instead of two separate scores. They detect differences smaller than the confidence intervals.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
from sklearn.metrics import confusion_matrix
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from featherweight.classifier import FloatArray, IntArray
from featherweight.quality.evaluation import one_hot, percentile_interval, resampled

Metric = Literal["accuracy", "macro_f1"]
Scores = Callable[[IntArray, IntArray], FloatArray]  # counts (R, K), cells (K, 1 + M) -> (R, M)

RESAMPLES = 10_000
SIGNIFICANCE = 0.05


@dataclass(frozen=True)
class PairedTest:
    """Result of comparing a contender with a reference on the same texts.

    Attributes:
        metric: "accuracy" or "macro_f1".
        n: Number of texts.
        difference: Contender minus reference, in [-1, 1].
        interval: 95 % paired bootstrap interval of the difference.
        p_value: Two-sided p-value.
        adjusted_p: The p-value corrected for multiple testing by `holm`; None before.
    """

    metric: Metric
    n: int
    difference: float
    interval: tuple[float, float]
    p_value: float
    adjusted_p: float | None = None

    @property
    def verdict(self) -> str:
        """Verdict: "better", "worse" or "no difference shown (n = 2000)".

        Uses the adjusted p-value if there is one.
        """
        p_value = self.p_value if self.adjusted_p is None else self.adjusted_p
        if p_value >= SIGNIFICANCE or self.difference == 0:
            return f"no difference shown (n = {self.n})"
        return "better" if self.difference > 0 else "worse"

    def to_json(self) -> dict[str, Any]:
        """Returns the fields and the verdict."""
        return {**asdict(self), "interval": list(self.interval), "verdict": self.verdict}


def mcnemar_accuracy(
    targets: IntArray, reference: IntArray, contender: IntArray, seed: int = 0
) -> PairedTest:
    """Tests a difference in accuracy with the exact McNemar test.

    The test counts the texts that only one of the two gets right; between equal classifiers, their
    numbers follow a binomial distribution. The interval is from the paired bootstrap.

    Source: McNemar (1947), Note on the Sampling Error of the Difference between Correlated
    Proportions or Percentages; for classifiers Dietterich (1998), Approximate Statistical Tests
    for Comparing Supervised Classification Learning Algorithms.

    Args:
        targets: (N,) true class ids.
        reference: (N,) class ids predicted by the reference.
        contender: (N,) class ids predicted by the contender.
        seed: Seed of the bootstrap.
    """
    test = _paired_bootstrap("accuracy", _accuracies, targets, [reference], [contender], seed)
    correct, other_correct = reference == targets, contender == targets
    table = confusion_matrix(correct, other_correct, labels=[True, False])
    return replace(test, p_value=float(mcnemar(table, exact=True).pvalue))


def compare_groups(
    targets: IntArray,
    reference_members: Sequence[IntArray],
    contender_members: Sequence[IntArray],
    num_labels: int,
    metric: Metric,
    seed: int = 0,
) -> PairedTest:
    """Tests the difference between the mean scores of two groups with a paired bootstrap.

    A group is a single classifier or, for example, one per seed.

    Texts are resampled jointly for all members; members are not resampled. So the test is about
    these trained models on similar texts, not about other seeds.

    Args:
        targets: (N,) true class ids.
        reference_members: Predictions (N,) of each reference model, at least one.
        contender_members: Predictions (N,) of each contender model, at least one.
        num_labels: C; the F1 of a class without true positives is 0.
        metric: "accuracy" or "macro_f1".
        seed: Seed of the bootstrap.
    """
    macro_f1s = partial(_macro_f1s, num_labels=num_labels)
    scores = _accuracies if metric == "accuracy" else macro_f1s
    return _paired_bootstrap(metric, scores, targets, reference_members, contender_members, seed)


def holm(tests: Sequence[PairedTest]) -> list[PairedTest]:
    """Returns all tests of one comparison with p-values corrected for multiple testing.

    Without correction, ten independent tests of equal classifiers at a level of 0.05 would find a
    difference in 1 - 0.95^10 = 40 % of the comparisons; with it, in at most 5 %.

    Source: Holm (1979), A Simple Sequentially Rejective Multiple Test Procedure.
    """
    adjusted = multipletests([test.p_value for test in tests], method="holm")[1]
    return [
        replace(test, adjusted_p=float(p_value))
        for test, p_value in zip(tests, adjusted, strict=True)
    ]


def _paired_bootstrap(
    metric: Metric,
    scores: Scores,
    targets: IntArray,
    references: Sequence[IntArray],
    contenders: Sequence[IntArray],
    seed: int,
) -> PairedTest:
    """Resamples texts together with their targets and all predictions.

    Texts with the same target and predictions are exchangeable, so a resample of N texts is one
    draw from a multinomial distribution over the K distinct rows of target and predictions (cells).

    Source: Efron & Tibshirani (1993), An Introduction to the Bootstrap, chapter 13; for language
    tasks Dror et al. (2018), The Hitchhiker's Guide to Testing Statistical Significance in Natural
    Language Processing.
    """
    n = len(targets)
    rows = np.stack([targets, *references, *contenders], axis=1)  # (N, 1 + M)
    cells, observed = np.unique(rows, axis=0, return_counts=True)  # (K, 1 + M), (K,)
    weights = [-1 / len(references)] * len(references) + [1 / len(contenders)] * len(contenders)

    def differences(counts: IntArray) -> FloatArray:
        # Rounded, because equal means may differ in the last digit.
        return (scores(counts, cells) @ np.array(weights)).round(12)

    samples = np.concatenate([*map(differences, resampled(observed, RESAMPLES, seed))])
    return PairedTest(
        metric=metric,
        n=n,
        difference=float(differences(observed[np.newaxis])[0]),
        interval=percentile_interval(samples),
        p_value=_two_sided(samples),
    )


def _two_sided(differences: FloatArray) -> float:
    """Returns twice the smaller share of resampled differences on either side of 0, at most 1.

    Adds 1 to the counts, so that no p-value is 0.

    Source: Efron & Tibshirani (1993), section 15.4; adding 1, Davison & Hinkley (1997), Bootstrap
    Methods and their Application, section 4.2.
    """
    fewer = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    return min(1.0, 2 * (fewer + 1) / (len(differences) + 1))


def _accuracies(counts: IntArray, cells: IntArray) -> FloatArray:
    """Returns the accuracy (R, M) of each member in each resample."""
    correct = (cells[:, 1:] == cells[:, :1]).astype(float)  # (K, M)
    return counts @ correct / counts.sum(axis=1, keepdims=True)


def _macro_f1s(counts: IntArray, cells: IntArray, num_labels: int) -> FloatArray:
    """Returns the macro-F1 (R, M) of each member in each resample."""
    targets = cells[:, 0]
    true = counts @ one_hot(targets, num_labels)  # (R, C)
    f1s = []
    for predictions in cells.T[1:]:
        hits = counts @ one_hot(targets, num_labels, where=predictions == targets)  # (R, C)
        predicted = counts @ one_hot(predictions, num_labels)  # (R, C)
        # A class that neither occurs nor is predicted has an F1 of 0 / 1.
        f1s.append((2 * hits / np.maximum(true + predicted, 1)).mean(axis=1))
    return np.stack(f1s, axis=1)
