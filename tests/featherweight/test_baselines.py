from itertools import pairwise

import numpy as np
import pytest

from featherweight.baselines import MostFrequentClass, TfidfSVM, baselines
from featherweight.data.dataset import Split

TEXTS = (
    "i am happy", "so happy today", "happy happy days", "i am sad", "so sad today", "i cry, sad",
    "he is angry", "angry people", "so angry!",
)  # fmt: skip
LABELS = ("joy", "sadness", "anger")
TRAIN = Split("train", TEXTS, np.repeat([0, 1, 2], 3))


def test_most_frequent_class_predicts_the_shares_of_training() -> None:
    train = Split("train", ("a", "b", "c", "d"), np.array([2, 1, 2, 2]))
    probabilities = MostFrequentClass(train, LABELS).predict_proba(["x", "", "y"])
    np.testing.assert_allclose(probabilities, [[0, 0.25, 0.75]] * 3, atol=1e-6)
    assert np.isfinite(MostFrequentClass(train, LABELS).logits(["x"])).all()


def test_svm_learns_the_words_of_a_class() -> None:
    svm = TfidfSVM(TRAIN, LABELS)
    assert svm.predict(["happy", "very sad", "angry man"]) == ["joy", "sadness", "anger"]


@pytest.mark.parametrize("text", ["", "zzzz", "x" * 100_000])
def test_svm_classifies_texts_without_a_known_word(text: str) -> None:
    logits = TfidfSVM(TRAIN, LABELS).logits([text])
    assert logits.shape == (1, 3)
    assert np.isfinite(logits).all()


def test_svm_classifies_two_classes() -> None:
    two = Split("train", TEXTS[:6], np.repeat([0, 1], 3))
    svm = TfidfSVM(two, ("joy", "sadness"))
    assert svm.predict(["happy", "sad"]) == ["joy", "sadness"]
    assert svm.logits(["happy", "sad"]).shape == (2, 2)


@pytest.mark.parametrize("present", [[0, 2], [1, 2], [0, 1]])
def test_svm_never_predicts_a_class_without_training_texts(present: list[int]) -> None:
    some = Split("train", TEXTS[:6], np.repeat(present, 3))
    svm = TfidfSVM(some, LABELS)
    assert svm.predict(["happy", "sad"]) == [LABELS[label] for label in present]
    logits = svm.logits(["happy", "sad", "zzz"])
    absent = ({0, 1, 2} - set(present)).pop()
    assert (logits.argmin(axis=1) == absent).all()


def test_svm_is_the_same_every_time() -> None:
    first, second = (TfidfSVM(TRAIN, LABELS).logits(TEXTS) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_baselines_count_their_parameters() -> None:
    frequent, svm = baselines(TRAIN, LABELS)
    assert (frequent.num_parameters(), frequent.size_bytes()) == (3, 12)
    tokens = [text.replace(",", " ,").replace("!", " !").split() for text in TEXTS]
    words = {word for text in tokens for word in text}
    pairs = {pair for text in tokens for pair in pairwise(text)}
    # One inverse document frequency and three weights per entry, and one bias per class.
    assert svm.num_parameters() == (len(words) + len(pairs)) * 4 + 3
    assert svm.size_bytes() > 4 * svm.num_parameters()


def test_baselines_implement_the_classifier_interface() -> None:
    assert [classifier.name for classifier in baselines(TRAIN, LABELS)] == [
        "most frequent class",
        "TF-IDF + linear SVM",
    ]
    for classifier in baselines(TRAIN, LABELS):
        assert classifier.labels == LABELS
        assert classifier.device == "cpu"
        assert classifier.truncated_texts == 0
        logits = classifier.forward(classifier.encode(["happy", "sad"]))
        assert logits.shape == (2, 3)
