"""`check` and `drop_leaks` on small handmade data sets."""

import json

import numpy as np
import pytest

from featherweight.data.checks import Findings, Occurrence, check, drop_leaks, normal_form
from featherweight.data.dataset import Dataset, Split
from featherweight.errors import DataError

LABELS = ("sad", "glad", "mad")
CLEAN = [("one", "sad"), ("two", "glad"), ("three", "mad")]
OTHER = [("four", "sad"), ("five", "glad"), ("six", "mad")]
THIRD = [("seven", "sad"), ("eight", "glad"), ("nine", "mad")]

Pairs = list[tuple[str, str]]


def split_of(name: str, pairs: Pairs) -> Split:
    ids = np.array([LABELS.index(label) for _, label in pairs], dtype=np.int64)
    return Split(name, tuple(text for text, _ in pairs), ids, LABELS)


def dataset_of(train: Pairs, validation: Pairs = OTHER, test: Pairs | None = THIRD) -> Dataset:
    return Dataset(
        "moods",
        LABELS,
        split_of("train", train),
        split_of("validation", validation),
        None if test is None else split_of("test", test),
    )


@pytest.mark.parametrize("test", [THIRD, None])
def test_nothing_is_found_in_clean_data(test: Pairs | None) -> None:
    findings = check(dataset_of(CLEAN, OTHER, test))
    assert findings == Findings((), (), (), (), {})
    assert findings.lines() == []


def test_unbalanced_classes_are_not_a_finding() -> None:
    many = [(f"text {i}", "sad") for i in range(500)]
    assert check(dataset_of(CLEAN + many)).lines() == []


def test_repeated_texts_are_named_with_their_rows_and_labels() -> None:
    again = [("two", "glad"), (" two\n", "mad"), ("one", "sad"), ("fresh", "sad")]
    findings = check(dataset_of(CLEAN + again))

    assert [f.occurrences for f in findings.repeated] == [
        (Occurrence("train", 1, "sad", "one"), Occurrence("train", 6, "sad", "one")),
        (
            Occurrence("train", 2, "glad", "two"),
            Occurrence("train", 4, "glad", "two"),
            Occurrence("train", 5, "mad", "two"),
        ),
    ]
    assert [f.text for f in findings.conflicting] == ["two"]
    assert findings.shared == ()
    assert findings.lines() == [
        "repeated texts: 2 in train (1 with different labels)",
        "texts with different labels, over all splits: 1",
    ]


def test_shared_texts_are_named_with_all_their_rows() -> None:
    findings = check(
        dataset_of(CLEAN, [*OTHER, ("one", "sad")], [*THIRD, ("two", "mad"), ("six", "mad")])
    )

    assert [f.occurrences for f in findings.shared] == [
        (Occurrence("train", 1, "sad", "one"), Occurrence("validation", 4, "sad", "one")),
        (Occurrence("train", 2, "glad", "two"), Occurrence("test", 4, "mad", "two")),
        (Occurrence("validation", 3, "mad", "six"), Occurrence("test", 5, "mad", "six")),
    ]
    assert [f.text for f in findings.conflicting] == ["two"]
    assert findings.repeated == ()
    assert findings.lines() == [
        "texts with different labels, over all splits: 1",
        "training texts that also occur in other splits: 1 in validation, 1 in test; "
        "--drop_leaks removes them from train",
        "texts in both validation and test: 1",
    ]


def test_a_text_in_all_splits_is_counted_in_each() -> None:
    findings = check(dataset_of(CLEAN, [*OTHER, ("one", "sad")], [*THIRD, ("one", "sad")]))
    assert len(findings.shared) == 1
    assert "1 in validation, 1 in test" in findings.lines()[0]


def test_empty_texts_and_missing_classes() -> None:
    findings = check(dataset_of([*CLEAN, ("", "sad"), (" \n", "mad")], OTHER[:2], THIRD[2:]))
    assert findings.empty == (
        Occurrence("train", 4, "sad", ""),
        Occurrence("train", 5, "mad", ""),
    )
    assert findings.repeated == ()
    assert findings.conflicting == ()
    assert findings.missing_classes == {"validation": ("mad",), "test": ("sad", "glad")}
    assert findings.lines() == [
        "empty texts: 2 in train",
        "classes without a text: mad in validation; sad, glad in test",
    ]


def test_at_most_six_one_line_summaries() -> None:
    train = [("dup\nlicate", "sad"), ("dup\nlicate", "mad"), ("", "sad"), ("x", "glad")]
    others = [*train[:3], ("y", "sad")]
    findings = check(dataset_of(train, others, others))
    assert len(findings.lines()) == 6
    assert not any("\n" in line for line in findings.lines())


def test_findings_are_json_with_every_row() -> None:
    findings = check(dataset_of([*CLEAN, ("one", "mad"), ("", "sad")], OTHER[:1]))
    assert json.loads(json.dumps(findings.to_json())) == {
        "repeated": [ONE],
        "conflicting": [ONE],
        "shared": [],
        "empty": [{"split": "train", "row": 5, "label": "sad", "text": ""}],
        "missing_classes": {"validation": ["glad", "mad"]},
    }


ONE = {
    "occurrences": [
        {"split": "train", "row": 1, "label": "sad", "text": "one"},
        {"split": "train", "row": 4, "label": "mad", "text": "one"},
    ],
}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("So Glad", "so  glad"),
        (" so\tglad", "so glad\n"),
        ("so glad", "so glad!!!"),
        ("so glad", "so glad …"),
        ("“so glad.”", "“so glad”"),
        ("so glad", "RT @ann: so glad"),
        ("so glad", "rt @ann RT @bob: So glad."),
        ("look https://a.b/c", "Look www.x.y?z"),
        ("so glad @ann", "so glad @bob_2"),
        ("i'm <glad>", "I&#39;m &amp;lt;glad&gt;"),
        ("so glad", "so&nbsp;gl&shy;ad"),
        ("so glad ❤", "so\u00a0gl\u200bad ❤\ufe0f"),
        ("so glad", "\ufeffso\u2800gl\x00ad"),
        ("café", "ｃａｆｅ\u0301"),
        ("Straße", "STRASSE"),
        ("高兴！", "高兴。"),
    ],
)
def test_another_spelling_is_the_same_text(one: str, other: str) -> None:
    assert normal_form(one) == normal_form(other) != ""


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("so glad", "so glad :)"),
        ("so glad :)", "so glad :("),
        ("so glad", "so, glad"),
        ("glad😂", "glad"),
        ("?", "!"),
        ("@ann", "@"),
        ("RT @ann", "rt @ann: yes"),
        ("sort @ann: x", "so x"),
        ("me@home", "me@work"),
        ("ｎｏ", "yes"),
    ],
)
def test_another_text_is_not_another_spelling(one: str, other: str) -> None:
    assert normal_form(one) != normal_form(other)


def test_texts_in_other_spelling_are_found_across_splits() -> None:
    train = [*CLEAN, ("Four!", "sad"), ("TWO", "glad"), ("five", "mad"), ("seven", "sad")]
    findings = check(dataset_of(train, OTHER, [*THIRD, ("Six.", "mad"), ("SEVEN", "sad")]))
    assert [f.text for f in findings.shared] == ["Four!", "five", "seven", "six"]
    assert [f.text for f in findings.conflicting] == ["five"]
    assert findings.repeated == ()
    assert findings.lines() == [
        "texts with different labels, over all splits: 1",
        "training texts that also occur in other splits: 2 in validation, 1 in test "
        "(1 of them in other spelling); --drop_leaks removes them from train",
        "texts in both validation and test: 1 (1 of them in other spelling)",
    ]
    assert check(dataset_of([*CLEAN, ("Two!", "sad")])).lines() == [
        "texts with different labels, over all splits: 1 (1 of them in other spelling)"
    ]


def test_training_text_of_other_spelling_than_two_equal_held_out_texts_is_counted() -> None:
    train, held_out = [*CLEAN, ("Four!", "sad")], [*THIRD, ("four", "sad")]
    assert "1 in validation, 1 in test (1 of them in other spelling)" in "".join(
        check(dataset_of(train, OTHER, held_out)).lines()
    )


def test_text_of_invisible_characters_is_empty() -> None:
    findings = check(dataset_of([*CLEAN, ("\u200b \u2800\xad", "sad")]))
    assert [row.row for row in findings.empty] == [4]
    assert normal_form("&nbsp;&#8203;") == ""


def test_drop_leaks_removes_other_spellings_and_counts_them() -> None:
    train = [*CLEAN, ("Four!", "mad"), ("four", "sad"), ("RT @x: seven", "sad"), ("\u200b", "sad")]
    remaining, same, alike = drop_leaks(dataset_of(train, [*OTHER, ("", "sad")]))
    assert (same, alike) == (1, 2)
    assert remaining.train.texts == ("one", "two", "three", "\u200b")
    assert check(remaining).shared == ()


def test_drop_leaks_removes_only_from_train() -> None:
    train = [*CLEAN, ("four", "mad"), ("  seven ", "sad"), ("four", "sad"), ("vier", "glad")]
    data = dataset_of([*train, ("", "sad")], [*OTHER, ("", "sad")])

    remaining, same, alike = drop_leaks(data)

    assert (same, alike) == (3, 0)
    assert remaining.train.texts == ("one", "two", "three", "vier", "")
    assert remaining.train.labels.tolist() == [0, 1, 2, 1, 0]
    assert remaining.train.labels.dtype == np.int64
    assert (remaining.validation, remaining.test) == (data.validation, data.test)
    assert (remaining.name, remaining.labels) == (data.name, data.labels)
    assert check(remaining).shared == ()
    assert remaining.train.sha256 != data.train.sha256
    assert len(data.train) == 8


def test_drop_leaks_changes_nothing_without_leaks() -> None:
    data = dataset_of(CLEAN, OTHER, None)
    remaining, same, alike = drop_leaks(data)
    assert same == alike == 0
    assert remaining.train.sha256 == data.train.sha256


def test_drop_leaks_fails_if_no_training_text_remains() -> None:
    with pytest.raises(DataError, match="every training text of moods"):
        drop_leaks(dataset_of(CLEAN, CLEAN))
