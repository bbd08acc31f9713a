"""Coverage against accuracy: what abstaining below a confidence costs and gains.

Source: Geifman & El-Yaniv (2017), Selective Classification for Deep Neural Networks, section 2.
"""

from typing import NamedTuple

from scipy.stats import binomtest

from featherweight.classifier import FloatArray, IntArray

MIN_CONFIDENCES = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)


class Coverage(NamedTuple):
    """What is left when answers of little confidence are withheld.

    Attributes:
        min_confidence: Probability below which there is no answer.
        answered: Number of texts that get one.
        share: Of all texts, in [0, 1].
        accuracy: Share of the answers that are right; None where there is no answer.
        interval: Wilson's 95 % interval of the accuracy; None where there is no answer.
    """

    min_confidence: float
    answered: int
    share: float
    accuracy: float | None
    interval: tuple[float, float] | None


def coverages(targets: IntArray, probabilities: FloatArray) -> list[Coverage]:
    """Returns a row for each of eight confidences, the least of which answers every text.

    Args:
        targets: (N,) true class ids, N > 0.
        probabilities: (N, C).

    Source: Wilson (1927), Probable Inference, the Law of Succession, and Statistical Inference.
    """
    confidences = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == targets
    rows = []
    for least in MIN_CONFIDENCES:
        given = confidences >= least
        answered, hits = int(given.sum()), int(right[given].sum())
        share = answered / len(targets)
        if not answered:
            rows.append(Coverage(least, 0, 0.0, None, None))
            continue
        bounds = binomtest(hits, answered).proportion_ci(method="wilson")
        interval = float(bounds.low), float(bounds.high)
        rows.append(Coverage(least, answered, share, hits / answered, interval))
    return rows
