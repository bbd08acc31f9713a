"""Each sentence follows the figures that it is made of."""

import numpy as np
import pytest

from featherweight.data.checks import check
from featherweight.data.dataset import Dataset, Split
from featherweight.exploration import sentences as text
from featherweight.exploration.figures import LengthTest
from featherweight.quality.evaluation import Evaluation

LABELS = ("joy", "fear")
Rows = list[tuple[str, int]]


def split_of(name: str, rows: Rows) -> Split:
    return Split(name, tuple(row[0] for row in rows), np.array([row[1] for row in rows]), LABELS)


def dataset_of(train: Rows, test: Rows | None = None) -> Dataset:
    held_out = [("v1", 0), ("v2", 1)]
    return Dataset(
        "moods",
        LABELS,
        split_of("train", train),
        split_of("validation", held_out),
        split_of("test", test or [("t1", 0), ("t2", 1)]),
    )


def counted(joy: int, fear: int) -> Dataset:
    return dataset_of([(f"{number}", int(number >= joy)) for number in range(joy + fear)])


def evaluation(answers: list[int]) -> Evaluation:
    targets = np.array([0, 0, 0, 1, 1, 1])
    return Evaluation(
        "a model", "moods", "validation", LABELS, targets, np.eye(2)[answers], 1, 1
    )  # fmt: skip


def test_unbalanced_classes_ask_for_macro_averages() -> None:
    sentence = text.on_balance(counted(joy=30, fear=10))
    assert "`joy` has 3.0 times the texts of `fear` (30 against 10)" in sentence
    # Always "joy": recall 1 and precision 0.75 make an F1 of 6 / 7, the other class 0.
    assert "right for 75.0% of the training texts, at a macro-F1 of 0.429" in sentence
    assert "macro averages" in sentence


def test_balanced_classes_do_not() -> None:
    sentence = text.on_balance(counted(joy=10, fear=11))
    assert "1.1 times" in sentence
    assert "macro averages" not in sentence


def test_a_class_without_texts_is_said_to_be_lost() -> None:
    assert "No training text is `fear`" in text.on_balance(counted(joy=5, fear=0))


def test_short_texts_suit_a_recurrent_model() -> None:
    sentence = text.on_length(np.array([10] * 990 + [30] * 10), 128)
    assert "at most 10 words, 99% at most 10, the longest 30: short enough" in sentence
    assert "`--max_length 128` cuts 0.0% of them" in sentence
    assert "`--max_length 16` would cut 1.0%" in sentence


def test_long_texts_ask_for_another_limit_and_a_transformer() -> None:
    sentence = text.on_length(np.array([20] * 50 + [400] * 50), 128)
    assert "would cut 50.0%" in sentence
    assert "`--max_length 400`" in sentence
    assert "transformer" in sentence
    assert "short enough" not in sentence


@pytest.mark.parametrize(
    ("test", "expected"),
    [
        (LengthTest(2.0, 0.4, 0.0), "No difference in length"),
        (LengthTest(90.0, 1e-18, 0.005), "a negligible effect"),
        (LengthTest(900.0, 0.0, 0.3), "a large effect: the medians run from 9 words (`fear`)"),
    ],
)
def test_a_difference_in_length_is_weighed_by_its_effect(test: LengthTest, expected: str) -> None:
    sentence = text.on_length_by_class(test, {"joy": 20.0, "fear": 9.0})
    assert expected in sentence
    assert f"H = {test.statistic:.1f}" in sentence
    assert "p = 0;" not in sentence  # a p-value is never nought


def test_typing_is_described_by_what_is_there() -> None:
    assert "as people type them: emoji in 10.0%, links in 1.0%" in text.on_typing(
        {"emoji": 0.1, "links": 0.01}
    )
    some = text.on_typing({"emoji": 0.1, "links": 0.0, "digits": 0.0})
    assert "emoji in 10.0%; none holds links or digits." in some
    assert "none holds links." in text.on_typing({"emoji": 0.1, "links": 0.0})
    cleaned = text.on_typing({"digits": 0.0, "emoji": 0.0, "links": 0.0})
    assert "any digits, emoji or links: they were cleaned" in cleaned


def test_the_vocabulary_that_is_needed_is_counted() -> None:
    # Of four words the first two are 95 % of what is read.
    sentence = text.on_vocabulary(np.array([0.6, 0.95, 0.98, 1.0]))
    assert "The 2 most frequent of 4 different words are 95%" in sentence
    assert "other 2 would be 50% of the embeddings and are 5% of the reading" in sentence


def test_unknown_words_choose_the_tokenizer() -> None:
    few = text.on_unknown_words({"train": 0.01, "validation": 0.03, "test": 0.04}, 1.2, 700)
    assert "3.0% of those of validation and 4.0% of those of test" in few
    assert "whole words will do" in few
    many = text.on_unknown_words({"train": 0.01, "validation": 0.03, "test": 0.11}, 1.2, 700)
    assert "11.0% of those of test" in many
    assert "`--tokenizer bpe`, which reads unknown words in pieces at 1.20 times" in many


def test_findings_become_what_they_do_to_a_measurement() -> None:
    train = [("a", 0), ("a", 0), ("a", 1), ("b", 0), ("c", 1), ("", 1)]
    data = dataset_of(train, [("b", 1), ("c", 1), ("d", 1), ("e", 1)])
    conflict, leak, empty, missing = text.on_findings(check(data), data)
    # One row of "a" is wrong whatever is answered.
    assert "at least 1 of 6 rows (16.67%) cannot be learned" in conflict
    assert "2 training texts stand in another split too, 1 of them with different labels" in leak
    assert "50.00% of test" in leak
    assert "1 rows have no text" in empty
    assert "test lacks `joy`" in missing


def test_clean_data_is_called_clean() -> None:
    data = dataset_of([("a", 0), ("b", 1)])
    (sentence,) = text.on_findings(check(data), data)
    assert sentence.startswith("No repeated texts")


def test_what_words_alone_reach_is_the_bar() -> None:
    sentence = text.on_words_alone(evaluation([0, 0, 0, 1, 1, 0]), evaluation([0] * 6))
    # Five of six right: F1 of 6 / 7 and 4 / 5; always "joy": 2 / 3 and 0.
    assert "macro-F1 of 0.829" in sentence
    assert "the most frequent class 0.333" in sentence
    assert "Hardest is `fear` with an F1 of 0.800" in sentence


@pytest.mark.parametrize(
    ("alike", "chance", "verdict"),
    [(0.26, 0.24, "not told apart"), (0.5, 0.2, "told apart in part"), (0.9, 0.5, "told apart.")],
)
def test_a_map_is_judged_against_chance(alike: float, chance: float, verdict: str) -> None:
    sentence = text.on_map("bags of words", alike, chance)
    assert f"{alike:.0%} of the 10 nearest" in sentence
    assert f"the classes are {verdict}" in sentence
