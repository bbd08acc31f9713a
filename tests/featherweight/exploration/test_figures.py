import math
from pathlib import Path

import numpy as np
import pytest

from featherweight import load
from featherweight.baselines import MostFrequentClass
from featherweight.data.dataset import DataConfig, load_dataset
from featherweight.errors import DataError, UsageError
from featherweight.exploration.figures import (
    PRIOR_WORDS,
    LengthTest,
    bag_of_words,
    collocations,
    compare_lengths,
    coverage,
    frequencies,
    learned_vectors,
    neighbor_agreement,
    pairs,
    tsne_map,
    typed_signs,
    typical_terms,
    vocabulary,
    words,
)
from lstm.classifier import TextClassifier
from lstm.config import TokenizerConfig
from lstm.tokenizer import train_tokenizer
from tests.conftest import labeled_texts

LABELS = ("joy", "sadness")


def ids(*labels: int) -> np.ndarray:
    return np.array(labels, dtype=np.int64)


# Words and lengths


def test_words_are_split_by_the_tokenizer_and_not_truncated() -> None:
    config = TokenizerConfig(min_frequency=1, max_length=2)
    tokenizer = train_tokenizer(["i am so happy"], config)
    assert words(tokenizer, ["I'm SOOO happy @ann, qv", ""]) == [
        ["im", "soo", "happy", "<user>", "qv"],
        [],
    ]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Ann", "capital letters"), ("at 5", "digits"), ("well, yes", "punctuation"),
        ("😂", "emoji"), ("https://t.co/x", "links"), ("@ann", "@names"), ("#happy", "#tags"),
    ],
)  # fmt: skip
def test_each_kind_of_typing_is_found(text: str, kind: str) -> None:
    assert typed_signs([text, "i am here"])[kind] == 0.5
    assert set(typed_signs(["i am here"]).values()) == {0}


def test_signs_inside_words_are_not_names_or_tags() -> None:
    shares = typed_signs(["ann@example", "c#sharp"])
    assert shares["@names"] == shares["#tags"] == 0


def test_the_length_test_equals_a_value_worked_by_hand() -> None:
    # Ranks 1-3 against 4-6: H = 12 / (6 * 7) * (6² / 3 + 15² / 3) - 3 * 7 = 27 / 7.
    test = compare_lengths(ids(1, 2, 3, 4, 5, 6), ids(0, 0, 0, 1, 1, 1))
    assert test.statistic == pytest.approx(27 / 7)
    assert test.effect == pytest.approx((27 / 7 - 2 + 1) / (6 - 2))
    assert test.size == "large"


def test_lengths_without_a_difference_have_no_effect() -> None:
    rng = np.random.default_rng(0)
    test = compare_lengths(rng.integers(3, 40, 3000), rng.integers(0, 4, 3000))
    assert test.p_value > 0.05
    assert test.effect < 0.005
    assert test.size == "negligible"


@pytest.mark.parametrize(
    ("lengths", "labels"), [(ids(1, 2, 3), ids(1, 1, 1)), (ids(7, 7, 7, 7), ids(0, 0, 1, 1))]
)
def test_nothing_to_compare_is_no_difference(lengths: np.ndarray, labels: np.ndarray) -> None:
    assert compare_lengths(lengths, labels) == LengthTest(0.0, 1.0, 0.0)


def test_coverage_is_cumulative_by_rank() -> None:
    documents = [["a", "b", "a"], ["a", "c", "b"]]
    known = vocabulary(documents)
    assert known == ["a", "b", "c"]
    np.testing.assert_allclose(coverage(known, documents), [3 / 6, 5 / 6, 1])
    np.testing.assert_allclose(coverage(known, [["c", "zzz", "a", "zzz"]]), [1 / 4, 1 / 4, 2 / 4])
    np.testing.assert_allclose(coverage(known, [[]]), [0, 0, 0])


# Typical terms of a class


def test_log_odds_equal_a_value_worked_by_hand() -> None:
    documents = [["a", "a", "a", "b"], ["a", "b", "b", "b"]]
    typical = typical_terms(frequencies(documents, ids(0, 1), LABELS), 5)

    prior = PRIOR_WORDS / 2  # of each of the two words
    inside, outside = math.log((3 + prior) / (1 + prior)), math.log((1 + prior) / (3 + prior))
    z = (inside - outside) / math.sqrt(1 / (3 + prior) + 1 / (1 + prior))
    (term,) = typical["joy"]
    assert (term.text, term.count, term.total) == ("a", 3, 4)
    assert term.z == pytest.approx(z)
    assert [term.text for term in typical["sadness"]] == ["b"]
    assert typical["sadness"][0].z == pytest.approx(z)


def test_shared_and_rare_words_are_ranked_down() -> None:
    glad = [["i", "feel", "happy"]] * 40 + [["i", "feel", "zzz"]]
    low = [["i", "feel", "sad"]] * 41
    typical = typical_terms(frequencies(glad + low, ids(*[0] * 41, *[1] * 41), LABELS), 3)
    # By ratios, "zzz" would be as typical as "happy"; by counts, "i" would be.
    assert [term.text for term in typical["joy"]] == ["happy", "zzz"]
    assert typical["joy"][0].z > 3 * typical["joy"][1].z
    assert [term.text for term in typical["sadness"]] == ["sad"]


def test_single_word_is_not_typical() -> None:
    assert typical_terms(frequencies([["a"], ["a"]], ids(0, 1), LABELS), 5) == {
        "joy": [],
        "sadness": [],
    }
    assert typical_terms(frequencies([[], []], ids(0, 1), LABELS), 5) == {}


def test_pairs_do_not_cross_texts() -> None:
    assert pairs([["so", "very", "sad"], ["alone"]]) == [["so very", "very sad"], []]


def test_collocations_are_more_frequent_than_chance() -> None:
    documents = [["in", "new", "york"]] * 4 + [["!", "!"]] * 9
    # Of 200 words, "i" and "not" are 50 each: a dozen of "i not" are expected by chance.
    documents += [["i", "not"]] * 3 + [["i", "ran"]] * 47 + [["ran", "not"]] * 47
    found = [pair for pair, _ in collocations(documents, 99)]
    assert "new york" in found
    assert {"i not", "! !"}.isdisjoint(found)
    assert collocations([["i", "ran"]] * 2, 9) == []  # too rare


# Maps


def test_bags_of_words_ignore_words_not_in_training() -> None:
    train = [["happy", "sun"], ["sad", "rain"], ["happy", "sun", "rain"]]
    vectors = bag_of_words(train, [["happy", "sun"], ["happy", "sun", "zzz"], ["sad"]])
    np.testing.assert_allclose(vectors[0], vectors[1])
    assert not np.allclose(vectors[0], vectors[2])
    with pytest.raises(DataError, match="single word"):
        bag_of_words([["a"], ["a"]], [["a"]])


def test_learned_vectors_are_the_inputs_of_the_head(tiny_run: Path) -> None:
    classifier = load(tiny_run, "cpu")
    assert isinstance(classifier, TextClassifier)
    texts = [text for text, _ in labeled_texts()] * 5  # more than one batch
    vectors = learned_vectors(classifier, texts)

    head = classifier.module.head
    logits = vectors @ head.weight.detach().numpy().T + head.bias.detach().numpy()
    np.testing.assert_allclose(logits, classifier.logits(texts), atol=1e-5)


def test_classifier_without_vectors_is_rejected(tiny_data: Path) -> None:
    dataset = load_dataset(DataConfig(data=str(tiny_data)))
    with pytest.raises(UsageError, match="most frequent class has no embeddings"):
        learned_vectors(MostFrequentClass(dataset.train, dataset.labels), ["so happy"])


def test_map_preserves_neighbors_and_is_reproducible() -> None:
    rng = np.random.default_rng(0)
    labels = ids(*[0] * 30, *[1] * 30)
    vectors = np.eye(8)[labels] + rng.normal(0, 0.05, (60, 8))
    points = tsne_map(vectors)
    assert points.shape == (60, 2)
    np.testing.assert_array_equal(points, tsne_map(vectors))
    assert neighbor_agreement(points, labels)[0] == 1.0
    assert neighbor_agreement(points, rng.permutation(labels))[0] < 0.7


def test_map_needs_four_texts() -> None:
    assert tsne_map(np.eye(4)).shape == (4, 2)
    with pytest.raises(DataError, match="at least 4 texts, not 3"):
        tsne_map(np.eye(3))


def test_chance_is_the_share_of_other_texts_of_the_class() -> None:
    points = np.array([[0.0, 0], [0, 1], [9, 9], [9, 8]])
    agreement, chance = neighbor_agreement(points, ids(0, 0, 0, 1))
    # All three others are neighbors: 2 of 3 for each of the first class, none for the last.
    assert agreement == pytest.approx(6 / 12)
    assert chance == pytest.approx(6 / 12)
