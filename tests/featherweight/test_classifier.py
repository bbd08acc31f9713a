import math
from collections.abc import Sequence

import numpy as np
import pytest

from featherweight.classifier import Batch, Classifier, FloatArray, softmax


class LengthClassifier(Classifier):
    """Its logits contain the length of the text, which reveals a wrong order."""

    name = "length"
    labels = ("short", "long")
    device = "cpu"

    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    def encode(self, texts: Sequence[str]) -> Batch:
        self.batches.append(list(texts))
        return list(texts)

    def forward(self, batch: Batch) -> FloatArray:
        return np.array([[3.0, len(text)] for text in batch], dtype=np.float32)

    def num_tokens(self, batch: Batch) -> int:
        return sum(map(len, batch))

    def num_parameters(self) -> int:
        return 0

    def size_bytes(self) -> int:
        return 0


def test_incomplete_subclass_cannot_be_instantiated() -> None:
    class Incomplete(Classifier):
        def forward(self, batch: Batch) -> FloatArray:
            return np.zeros((len(batch), 2))

    with pytest.raises(TypeError, match="abstract method"):
        Incomplete()  # type: ignore[abstract]


def test_softmax_is_the_share_of_the_exponentials() -> None:
    logits = np.log(np.array([[1.0, 2.0, 5.0], [3.0, 3.0, 3.0]]))
    np.testing.assert_allclose(softmax(logits), [[1 / 8, 2 / 8, 5 / 8], [1 / 3] * 3])


def test_softmax_of_huge_logits_is_finite_and_sums_to_one() -> None:
    logits = np.array([[1e4, -1e4, 0], [-3e38, -3e38, -3e38]], dtype=np.float32)
    probabilities = softmax(logits)
    assert probabilities.dtype == np.float64
    np.testing.assert_allclose(probabilities, [[1, 0, 0], [1 / 3] * 3])


def test_softmax_of_no_rows_has_no_rows() -> None:
    assert softmax(np.zeros((0, 3), dtype=np.float32)).shape == (0, 3)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 100])
def test_logits_come_in_the_order_of_the_texts(batch_size: int) -> None:
    texts = ["a" * length for length in (5, 1, 9, 0, 2, 9, 4)]
    logits = LengthClassifier().logits(texts, batch_size)
    assert logits[:, 1].tolist() == [5, 1, 9, 0, 2, 9, 4]


def test_texts_are_batched_by_length() -> None:
    classifier = LengthClassifier()
    classifier.logits(["aaaa", "b", "ccc", "dd", "eeeee"], batch_size=2)
    assert classifier.batches == [["b", "dd"], ["ccc", "aaaa"], ["eeeee"]]


def test_probabilities_are_the_softmax_of_the_logits() -> None:
    (probabilities,) = LengthClassifier().predict_proba(["aaaa"])
    assert probabilities[1] == pytest.approx(1 / (1 + math.exp(-1)))


def test_predictions_are_label_names() -> None:
    assert LengthClassifier().predict(["abcd", "ab", ""]) == ["long", "short", "short"]


def test_no_texts() -> None:
    classifier = LengthClassifier()
    assert classifier.predict([]) == []
    assert classifier.predict_proba([]).shape == (0, 2)
    assert classifier.batches == []
