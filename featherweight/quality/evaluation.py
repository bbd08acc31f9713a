"""Evaluation of a classifier on a split: metrics, confidence intervals, calibration, coverage."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix

from featherweight.classifier import Classifier, FloatArray, IntArray, softmax
from featherweight.data.dataset import Split
from featherweight.errors import UsageError

RESAMPLES = 2_000
CONFIDENCE = 0.95
CALIBRATION_BINS = 15
MIN_CONFIDENCES = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)


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
        raise UsageError(
            f"{classifier.name} has the labels {', '.join(classifier.labels)}, {data} has "
            f"{', '.join(labels)}: not comparable"
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
    total = int(confusion.sum())
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(total, confusion.ravel() / total, size=RESAMPLES)
    counts = draws.reshape(RESAMPLES, *confusion.shape)  # (R, C, C)
    precision, recall, f1 = _class_scores(counts)  # (R, C) each
    samples = {
        "accuracy": counts.trace(axis1=1, axis2=2) / total,
        "macro_f1": f1.mean(axis=1),
        "macro_precision": precision.mean(axis=1),
        "macro_recall": recall.mean(axis=1),
    }
    return {name: percentile_interval(values) for name, values in samples.items()}


def percentile_interval(samples: FloatArray) -> tuple[float, float]:
    """Returns the 95 % interval of the bootstrap samples (R,) of a score."""
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(samples, [tail, 100 - tail])
    return float(low), float(high)


def _confusion(targets: IntArray, predictions: IntArray, num_labels: int) -> IntArray:
    """Returns the confusion matrix (C, C), rows true and columns predicted classes."""
    return confusion_matrix(targets, predictions, labels=range(num_labels)).astype(np.int64)


def _class_scores(confusion: IntArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Returns precision, recall and F1 (…, C) by confusion matrix (…, C, C); 0 / 0 is 0."""

    def ratio(numerator: IntArray, denominator: IntArray) -> FloatArray:
        return numerator / np.maximum(denominator, 1)  # no hits without texts

    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    true, predicted = confusion.sum(axis=-1), confusion.sum(axis=-2)
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
