"""Evaluation of a classifier on a split: metrics, confidence intervals, calibration, coverage."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix

from featherweight.classifier import Classifier, FloatArray, IntArray, softmax
from featherweight.data.dataset import Split
from featherweight.data.rows import listing
from featherweight.errors import UsageError

RESAMPLES = 2_000
CONFIDENCE = 0.95
CALIBRATION_BINS = 15
MIN_CONFIDENCES = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
_COUNTS_PER_CHUNK = 1_000_000  # 8 MB


class Coverage(NamedTuple):
    """Results when predictions below a confidence are rejected."""

    min_confidence: float  # minimum probability of a prediction
    answered: int  # number of texts with a prediction
    share: float  # of texts with a prediction, in [0, 1]
    accuracy: float | None  # of these predictions; None if there are none
    interval: tuple[float, float] | None  # 95 % Wilson interval of the accuracy


@dataclass(frozen=True)
class Evaluation:
    """Predictions of a classifier on the N texts of a split, and metrics computed from them.

    Attributes:
        model: Name of the classifier.
        data: Name of the data set.
        split: "train", "validation" or "test".
        labels: The C label names, in id order.
        targets: (N,) int64, true class ids.
        probabilities: (N, C), each row summing to 1.
        parameters: Number of parameters of the classifier.
        size_bytes: Size of its files.
    """

    model: str
    data: str
    split: str
    labels: tuple[str, ...]
    targets: IntArray
    probabilities: FloatArray
    parameters: int
    size_bytes: int

    @property
    def predictions(self) -> IntArray:
        """(N,) int64, the most probable class id of each text."""
        return self.probabilities.argmax(axis=1)

    @cached_property
    def confusion(self) -> IntArray:
        """(C, C) int64, rows true and columns predicted classes."""
        return _confusion(self.targets, self.predictions, len(self.labels))

    @cached_property
    def scores(self) -> dict[str, float]:
        """Accuracy, macro-averaged precision, recall and F1, and weighted F1, each in [0, 1]."""
        precision, recall, f1 = _class_scores(self.confusion)
        return {
            "accuracy": float((self.targets == self.predictions).mean()),
            "macro_f1": float(f1.mean()),
            "macro_precision": float(precision.mean()),
            "macro_recall": float(recall.mean()),
            "weighted_f1": float(np.average(f1, weights=self.confusion.sum(axis=1))),
        }

    @cached_property
    def missing_classes(self) -> tuple[str, ...]:
        """The labels without a text in the split: their F1 is 0, which limits macro averages."""
        texts = np.bincount(self.targets, minlength=len(self.labels))
        return tuple(label for label, n in zip(self.labels, texts, strict=True) if n == 0)

    @cached_property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """95 % bootstrap intervals of accuracy and the macro averages; see `bootstrap`."""
        return bootstrap(self.confusion)

    @cached_property
    def ece(self) -> float:
        """Expected calibration error in [0, 1]; see `expected_calibration_error`."""
        return expected_calibration_error(self.targets, self.probabilities)

    def coverages(self) -> list[Coverage]:
        """Returns coverage and accuracy at each of eight minimum confidences; see `coverages`."""
        return coverages(self.targets, self.probabilities)

    def per_class(self) -> dict[str, dict[str, float]]:
        """Returns precision, recall, F1 and support (texts) of each label."""
        columns = (*_class_scores(self.confusion), self.confusion.sum(axis=1))
        return {
            label: {
                "precision": float(precision),
                "recall": float(recall),
                "f1": float(f1),
                "support": int(support),
            }
            for label, precision, recall, f1, support in zip(self.labels, *columns, strict=True)
        }

    def to_json(self) -> dict[str, Any]:
        """Returns the object that `--json` prints and `evaluation.json` contains."""
        return {
            "model": self.model,
            "data": self.data,
            "split": self.split,
            "n": len(self.targets),
            "parameters": self.parameters,
            "size_bytes": self.size_bytes,
            **self.scores,
            "ece": self.ece,
            "intervals": {name: list(interval) for name, interval in self.intervals.items()},
            "missing_classes": list(self.missing_classes),
            "per_class": self.per_class(),
            "confusion_matrix": self.confusion.tolist(),
            "coverage": [row._asdict() for row in self.coverages()],
        }


def evaluate(classifier: Classifier, split: Split, data: str) -> Evaluation:
    """Evaluates a classifier on a split of the data set named `data`.

    Labels are matched by name, so that class ids agree across classifiers.

    Raises:
        UsageError: The labels of the classifier and of the split differ.
    """
    labels = split.label_names or classifier.labels
    if sorted(labels) != sorted(classifier.labels):
        own, others = set(classifier.labels), set(labels)
        raise UsageError(
            f"{classifier.name} and {data} have different labels, so they are not comparable: "
            f"only {classifier.name} has {listing(sorted(own - others)) or 'none'}, "
            f"only {data} has {listing(sorted(others - own)) or 'none'}"
        )
    columns = [classifier.labels.index(label) for label in labels]
    return Evaluation(
        model=classifier.name,
        data=data,
        split=split.name,
        labels=labels,
        targets=split.labels,
        probabilities=classifier.predict_proba(split.texts)[:, columns],
        parameters=classifier.num_parameters(),
        size_bytes=classifier.size_bytes(),
    )


def macro_f1(targets: IntArray, predictions: IntArray, num_labels: int) -> float:
    """Returns the unweighted mean F1 of the classes; without any true positive it is 0."""
    return float(_class_scores(_confusion(targets, predictions, num_labels))[2].mean())


def validation_scores(targets: IntArray, logits: FloatArray) -> dict[str, float]:
    """Returns the validation scores of an epoch: cross-entropy, accuracy and macro-F1.

    Args:
        targets: (N,) true class ids.
        logits: (N, C).
    """
    predictions = logits.argmax(axis=1)
    likelihood = softmax(logits)[np.arange(len(targets)), targets]
    return {
        "validation_loss": float(-np.log(likelihood.clip(1e-12)).mean()),
        "validation_accuracy": float((predictions == targets).mean()),
        "validation_macro_f1": macro_f1(targets, predictions, logits.shape[1]),
    }


def bootstrap(confusion: IntArray, seed: int = 0) -> dict[str, tuple[float, float]]:
    """Returns 95 % percentile intervals of accuracy and the macro averages.

    Counts by (true, predicted) class of N texts drawn with replacement follow a multinomial
    distribution with the observed shares, so the confusion matrix is enough.

    Source: Efron & Tibshirani (1993), An Introduction to the Bootstrap, chapter 13.

    Args:
        confusion: (C, C) counts, rows true and columns predicted classes.
        seed: Seed of the 2,000 resamples.
    """
    total, num_labels = int(confusion.sum()), len(confusion)
    counts = confusion.ravel()
    cells = np.flatnonzero(counts)
    # Cells without texts need no random numbers, apart from the last: the cells before it are
    # drawn one by one, and it gets the rest.
    cells = np.union1d(cells, [counts.size - 1])
    true, predicted = np.divmod(cells, num_labels)
    indicators = [
        one_hot(true, num_labels, where=true == predicted),
        one_hot(true, num_labels),
        one_hot(predicted, num_labels),
    ]
    samples: list[FloatArray] = []
    for draws in resampled(counts[cells], RESAMPLES, seed):  # (r, K)
        # In C order: the last digit of a mean depends on the order of its terms in memory.
        hits, *texts = (np.ascontiguousarray(draws @ indicator) for indicator in indicators)
        precision, recall, f1 = _ratios(hits, *texts)  # (r, C)
        accuracy = hits.sum(axis=1) / total
        averages = (scores.mean(axis=1) for scores in (f1, precision, recall))
        samples.append(np.stack([accuracy, *averages]))
    names = ("accuracy", "macro_f1", "macro_precision", "macro_recall")
    bounds = map(percentile_interval, np.concatenate(samples, axis=1))
    return dict(zip(names, bounds, strict=True))


def resampled(counts: IntArray, resamples: int, seed: int) -> Iterator[IntArray]:
    """Yields counts (r, K) of texts drawn with replacement, in chunks of a few megabytes.

    Args:
        counts: (K,) observed counts of texts in K cells.
        resamples: Number of all resamples, the sum of the r.
        seed: Seed of the resamples; they do not depend on the size of the chunks.
    """
    total, rng = int(counts.sum()), np.random.default_rng(seed)
    per_chunk = max(1, _COUNTS_PER_CHUNK // len(counts))
    for start in range(0, resamples, per_chunk):
        yield rng.multinomial(total, counts / total, size=min(per_chunk, resamples - start))


def one_hot(
    ids: IntArray, num_labels: int, where: npt.NDArray[np.bool_] | None = None
) -> csr_array:
    """Returns a sparse matrix (K, C) with a 1 at the class id of each row.

    Args:
        ids: (K,) class ids.
        num_labels: C.
        where: (K,) whether a row has a 1; by default all do.
    """
    ones = np.ones(len(ids), np.int64) if where is None else where.astype(np.int64)
    return csr_array((ones, (np.arange(len(ids)), ids)), shape=(len(ids), num_labels))


def percentile_interval(samples: FloatArray) -> tuple[float, float]:
    """Returns the 95 % interval of the bootstrap samples (R,) of a score."""
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(samples, [tail, 100 - tail])
    return float(low), float(high)


def _confusion(targets: IntArray, predictions: IntArray, num_labels: int) -> IntArray:
    """Returns the confusion matrix (C, C), rows true and columns predicted classes."""
    return confusion_matrix(targets, predictions, labels=range(num_labels)).astype(np.int64)


def _class_scores(confusion: IntArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Returns precision, recall and F1 (C,) of a confusion matrix (C, C)."""
    return _ratios(confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0))


def _ratios(
    hits: IntArray, true: IntArray, predicted: IntArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Returns precision, recall and F1 of the classes, each of the shape (…, C); 0 / 0 is 0.

    Args:
        hits: (…, C) texts predicted as their true class.
        true: (…, C) texts of each true class.
        predicted: (…, C) texts of each predicted class.
    """

    def ratio(numerator: IntArray, denominator: IntArray) -> FloatArray:
        return numerator / np.maximum(denominator, 1)  # no hits without texts

    return ratio(hits, predicted), ratio(hits, true), ratio(2 * hits, true + predicted)


def expected_calibration_error(targets: IntArray, probabilities: FloatArray) -> float:
    """Returns the mean gap between confidence and accuracy over 15 equal-width confidence bins.

    Source: Guo et al. (2017), On Calibration of Modern Neural Networks, equation 3.

    Args:
        targets: (N,) true class ids.
        probabilities: (N, C).
    """
    confidences = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == targets
    # Bins include their upper bound, so that a confidence of 1 is in the last bin.
    bins = np.ceil(confidences * CALIBRATION_BINS).astype(int).clip(1) - 1
    gaps = np.bincount(bins, weights=correct - confidences, minlength=CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(targets))


def coverages(targets: IntArray, probabilities: FloatArray) -> list[Coverage]:
    """Returns coverage and accuracy at each of eight minimum confidences, starting from 0.

    Source: Geifman & El-Yaniv (2017), Selective Classification for Deep Neural Networks, section
    2; the interval, Wilson (1927), Probable Inference, the Law of Succession, and Statistical
    Inference.

    Args:
        targets: (N,) true class ids, N > 0.
        probabilities: (N, C).
    """
    confidences = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == targets
    rows = []
    for min_confidence in MIN_CONFIDENCES:
        accepted = confidences >= min_confidence
        answered, hits = int(accepted.sum()), int(correct[accepted].sum())
        if not answered:
            rows.append(Coverage(min_confidence, 0, 0.0, None, None))
            continue
        bounds = binomtest(hits, answered).proportion_ci(method="wilson")
        interval = float(bounds.low), float(bounds.high)
        share = answered / len(targets)
        rows.append(Coverage(min_confidence, answered, share, hits / answered, interval))
    return rows
