"""Which differences are real: paired tests of two contenders' answers to the same N texts.

Both contenders meet the same easy and hard texts, so each test looks at the pairs of answers and
not at two separate scores: that is what lets it see differences smaller than either interval.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from featherweight.classifier import FloatArray, IntArray
from featherweight.quality.evaluation import CONFIDENCE

Metric = Literal["accuracy", "macro_f1"]
Scores = Callable[[FloatArray, IntArray], FloatArray]  # counts (R, K), cells (K, 1 + M) -> (R, M)

RESAMPLES = 10_000
SIGNIFICANCE = 0.05
_RESAMPLES_AT_ONCE = 500  # keeps the counts of K = 2,000 cells within 8 MB


@dataclass(frozen=True)
class PairedTest:
    """A contender against a reference on the same texts.

    Attributes:
        metric: "accuracy" or "macro_f1".
        n: Number of texts.
        difference: Contender minus reference, in [-1, 1].
        interval: 95 % paired bootstrap interval of the difference.
        p_value: Two-sided probability of a difference this large between equals.
        adjusted_p: The same, corrected for all tests of one comparison; None before `holm`.
    """

    metric: Metric
    n: int
    difference: float
    interval: tuple[float, float]
    p_value: float
    adjusted_p: float | None = None

    @property
    def verdict(self) -> str:
        """In words: "better", "worse" or "no difference shown (n = 2000)".

        A test that `holm` has not seen counts as the only one of its comparison.
        """
        p_value = self.p_value if self.adjusted_p is None else self.adjusted_p
        if p_value >= SIGNIFICANCE or self.difference == 0:
            return f"no difference shown (n = {self.n})"
        return "better" if self.difference > 0 else "worse"

    def to_json(self) -> dict[str, Any]:
        """Returns its fields and its verdict."""
        return {**asdict(self), "interval": list(self.interval), "verdict": self.verdict}


def mcnemar_accuracy(
    targets: IntArray, reference: IntArray, contender: IntArray, seed: int = 0
) -> PairedTest:
    """Tests a difference in accuracy by the texts that only one of the two gets right.

    Among equals each such text is a toss of a coin, so the p-value is exact; the interval is that
    of the paired bootstrap.

    Source: McNemar (1947), Note on the Sampling Error of the Difference between Correlated
    Proportions or Percentages; for classifiers Dietterich (1998), Approximate Statistical Tests
    for Comparing Supervised Classification Learning Algorithms.

    Args:
        targets: (N,) true class ids.
        reference: (N,) class ids that the reference answered.
        contender: (N,) class ids that the contender answered.
        seed: Seed of the resampling behind the interval.
    """
    test = _paired_bootstrap("accuracy", _accuracies, targets, [reference], [contender], seed)
    right, also_right = reference == targets, contender == targets
    table = [
        [int((right & also_right).sum()), int((right & ~also_right).sum())],
        [int((~right & also_right).sum()), int((~right & ~also_right).sum())],
    ]
    return replace(test, p_value=float(mcnemar(table, exact=True).pvalue))


def bootstrap_macro_f1(
    targets: IntArray, reference: IntArray, contender: IntArray, num_labels: int, seed: int = 0
) -> PairedTest:
    """Tests a difference in macro-F1 by a paired bootstrap over the texts.

    Args:
        targets: (N,) true class ids.
        reference: (N,) class ids that the reference answered.
        contender: (N,) class ids that the contender answered.
        num_labels: C; a class without any hit counts as an F1 of 0.
        seed: Seed of the resampling.
    """
    return compare_groups(targets, [reference], [contender], num_labels, "macro_f1", seed)


def compare_groups(
    targets: IntArray,
    reference_members: Sequence[IntArray],
    contender_members: Sequence[IntArray],
    num_labels: int,
    metric: Metric,
    seed: int = 0,
) -> PairedTest:
    """Tests the difference between the mean scores of two groups, say several seeds a side.

    The texts are resampled once for all members. The members are not resampled: the test speaks
    of these trained models on texts like these, not of seeds that nobody tried.

    Args:
        targets: (N,) true class ids.
        reference_members: Answers (N,) of each member of the reference, at least one.
        contender_members: Answers (N,) of each member of the contender, at least one.
        num_labels: C; a class without any hit counts as an F1 of 0.
        metric: "accuracy" or "macro_f1".
        seed: Seed of the resampling.
    """

    def macro_f1s(counts: FloatArray, cells: IntArray) -> FloatArray:
        return _macro_f1s(counts, cells, num_labels)

    scores = _accuracies if metric == "accuracy" else macro_f1s
    return _paired_bootstrap(metric, scores, targets, reference_members, contender_members, seed)


def holm(tests: Sequence[PairedTest]) -> list[PairedTest]:
    """Returns all tests of one comparison with their p-values corrected for their number.

    Ten independent tests of equals at 0.05 each find a "difference" in 1 - 0.95^10 = 40 % of the
    tables; corrected, at most 5 % of the tables show one.

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
    """Resamples texts together with all answers to them.

    Texts with the same target and the same answers are exchangeable, so a resample of N texts is
    one draw of a multinomial over the K distinct rows of target and answers, the cells.

    Source: Efron & Tibshirani (1993), An Introduction to the Bootstrap, chapter 13; for language
    tasks Dror et al. (2018), The Hitchhiker's Guide to Testing Statistical Significance in Natural
    Language Processing.
    """
    n = len(targets)
    rows = np.stack([targets, *references, *contenders], axis=1)  # (N, 1 + M)
    cells, observed = np.unique(rows, axis=0, return_counts=True)  # (K, 1 + M), (K,)
    sides = [-1 / len(references)] * len(references) + [1 / len(contenders)] * len(contenders)

    def differences(counts: FloatArray) -> FloatArray:
        # Rounded, because equal means summed in another order differ in their last digit.
        return (scores(counts, cells) @ np.array(sides)).round(12)

    rng = np.random.default_rng(seed)
    resampled = np.concatenate(
        [
            differences(rng.multinomial(n, observed / n, size=_RESAMPLES_AT_ONCE).astype(float))
            for _ in range(RESAMPLES // _RESAMPLES_AT_ONCE)
        ]
    )
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(resampled, [tail, 100 - tail])
    return PairedTest(
        metric=metric,
        n=n,
        difference=float(differences(observed[np.newaxis].astype(float))[0]),
        interval=(float(low), float(high)),
        p_value=_two_sided(resampled),
    )


def _two_sided(differences: FloatArray) -> float:
    """Returns twice the smaller share of resampled differences on either side of 0, at most 1.

    The resample at hand counts as one more on each side, so that no p-value is 0.

    Source: Efron & Tibshirani (1993), section 15.4; the one more, Davison & Hinkley (1997),
    Bootstrap Methods and their Application, section 4.2.
    """
    fewer = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    return min(1.0, 2 * (fewer + 1) / (len(differences) + 1))


def _accuracies(counts: FloatArray, cells: IntArray) -> FloatArray:
    """Returns the accuracy (R, M) of each member in each resample."""
    right = (cells[:, 1:] == cells[:, :1]).astype(float)  # (K, M)
    return counts @ right / counts.sum(axis=1, keepdims=True)


def _macro_f1s(counts: FloatArray, cells: IntArray, num_labels: int) -> FloatArray:
    """Returns the macro-F1 (R, M) of each member in each resample."""
    one_hot = (cells[:, :, np.newaxis] == np.arange(num_labels)).astype(float)  # (K, 1 + M, C)
    true, answered = one_hot[:, :1], one_hot[:, 1:]
    hits = np.tensordot(counts, true * answered, axes=1)  # (R, M, C)
    texts = np.tensordot(counts, true + answered, axes=1)  # (R, M, C), true plus answered
    # A class that is neither there nor answered has no hit either: 0 / 1.
    f1: FloatArray = 2 * hits / np.maximum(texts, 1)
    return f1.mean(axis=2)
