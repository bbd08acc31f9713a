"""Each sentence follows its figures."""

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


def balance_of(joy: int, fear: int) -> Dataset:
    return dataset_of([(f"{number}", int(number >= joy)) for number in range(joy + fear)])


def evaluation(predictions: list[int]) -> Evaluation:
    targets = np.array([0, 0, 0, 1, 1, 1])
    return Evaluation(
        "a model", "moods", "validation", LABELS, targets, np.eye(2)[predictions], 1, 1
    )  # fmt: skip


def test_unbalanced_classes_need_macro_averages() -> None:
    sentence = text.describe_balance(balance_of(joy=30, fear=10))
    assert "`joy` has 3.0 times the texts of `fear` (30 and 10)" in sentence
    # Always "joy": recall 1 and precision 0.75 make an F1 of 6 / 7, the other class 0.
    assert "correct for 75.0% of the training texts, at a macro-F1 of 0.429" in sentence
    assert "macro averages" in sentence


def test_balanced_classes_do_not_need_macro_averages() -> None:
    sentence = text.describe_balance(balance_of(joy=10, fear=11))
    assert "1.1 times" in sentence
    assert "macro averages" not in sentence


def test_class_without_texts_is_reported() -> None:
    assert "no training texts of `fear`" in text.describe_balance(balance_of(joy=5, fear=0))


def test_short_texts_suit_a_recurrent_model() -> None:
    sentence = text.describe_lengths(np.array([10] * 990 + [30] * 10), 128)
    assert (
        "median length is 10 words, the 99th percentile 10, the maximum 30: short enough"
        in sentence
    )
    assert "`--max_length 128` truncates 0.0% of the texts" in sentence
    assert "`--max_length 16` would truncate 1.0%" in sentence


def test_long_texts_need_another_limit_and_a_transformer() -> None:
    sentence = text.describe_lengths(np.array([20] * 50 + [400] * 50), 128)
    assert "would truncate 50.0%" in sentence
    assert "`--max_length 400`" in sentence
    assert "transformer" in sentence
    assert "short enough" not in sentence


@pytest.mark.parametrize(
    ("test", "expected"),
    [
        (LengthTest(2.0, 0.4, 0.0), "No difference in length"),
        (LengthTest(90.0, 1e-18, 0.005), "a negligible effect"),
        (LengthTest(900.0, 0.0, 0.3), "a large effect: the medians range from 9 words (`fear`)"),
    ],
)
def test_difference_in_length_is_judged_by_its_effect(test: LengthTest, expected: str) -> None:
    sentence = text.describe_lengths_by_class(test, {"joy": 20.0, "fear": 9.0})
    assert expected in sentence
    assert f"H = {test.statistic:.1f}" in sentence
    assert "p = 0;" not in sentence  # a p-value is never 0


def test_typing_names_present_and_absent_kinds() -> None:
    assert "as people type them: emoji in 10.0%, links in 1.0%" in text.describe_typing(
        {"emoji": 0.1, "links": 0.01}
    )
    some = text.describe_typing({"emoji": 0.1, "links": 0.0, "digits": 0.0})
    assert "emoji in 10.0%; none contains links or digits." in some
    assert "none contains links." in text.describe_typing({"emoji": 0.1, "links": 0.0})
    cleaned = text.describe_typing({"digits": 0.0, "emoji": 0.0, "links": 0.0})
    assert "No text contains digits, emoji or links: the texts were cleaned" in cleaned


def test_needed_vocabulary_is_counted() -> None:
    # Of four words the first two cover 95 %.
    sentence = text.describe_vocabulary(np.array([0.6, 0.95, 0.98, 1.0]))
    assert "The 2 most frequent of 4 distinct words make up 95%" in sentence
    assert "other 2 would take 50% of the embeddings for 5% of the text" in sentence


def test_unknown_words_choose_the_tokenizer() -> None:
    few = text.describe_unknown_words({"train": 0.01, "validation": 0.03, "test": 0.04}, 1.2, 700)
    assert "1.0% in train, 3.0% in validation, 4.0% in test" in few
    assert "Whole words are sufficient" in few
    many = text.describe_unknown_words({"train": 0.01, "validation": 0.03, "test": 0.11}, 1.2, 700)
    assert "11.0% in test" in many
    assert "`--tokenizer bpe`, which splits unknown words into pieces at 1.20 times" in many


def test_findings_state_their_effect_on_a_measurement() -> None:
    train = [("a", 0), ("a", 0), ("a", 1), ("b", 0), ("c", 1), ("", 1)]
    data = dataset_of(train, [("b", 1), ("c", 1), ("d", 1), ("e", 1)])
    conflict, leak, empty, missing = text.describe_findings(check(data), data)
    # Any prediction for "a" is wrong for at least one row.
    assert "at least 1 of 6 rows (16.67%) cannot be learned" in conflict
    assert "2 training texts also occur in another split, 1 of them with different labels" in leak
    assert "50.00% of test" in leak
    assert "1 rows have no text" in empty
    assert "test lacks `joy`" in missing


def test_clean_data_has_no_findings() -> None:
    data = dataset_of([("a", 0), ("b", 1)])
    (sentence,) = text.describe_findings(check(data), data)
    assert sentence.startswith("No repeated texts")


def test_linear_model_is_the_score_to_exceed() -> None:
    sentence = text.describe_baselines(evaluation([0, 0, 0, 1, 1, 0]), evaluation([0] * 6))
    # Five of six correct: F1 of 6 / 7 and 4 / 5; always "joy": 2 / 3 and 0.
    assert "macro-F1 of 0.829" in sentence
    assert "the most frequent class 0.333" in sentence
    assert "hardest class is `fear` with an F1 of 0.800" in sentence


@pytest.mark.parametrize(
    ("agreement", "chance", "verdict"),
    [(0.26, 0.24, "not separated"), (0.5, 0.2, "partly separated"), (0.9, 0.5, "well separated")],
)
def test_map_is_compared_with_chance(agreement: float, chance: float, verdict: str) -> None:
    sentence = text.describe_map("bags of words", agreement, chance)
    assert f"{agreement:.0%} of the 10 nearest" in sentence
    assert f"The classes are {verdict}." in sentence
