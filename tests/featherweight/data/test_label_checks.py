"""Splits without labels, and columns that do not contain one class a text."""

import logging
from pathlib import Path

import datasets
import pytest

from featherweight.data.dataset import DataConfig, load_dataset
from featherweight.errors import DataError, UsageError
from tests.helpers.data_files import TRAIN, Pairs, folder_of, load, write

SENTENCE = "text number {}"


def refusal(path: Path, **flags: str) -> str:
    with pytest.raises(DataError) as caught:
        load_dataset(DataConfig(data=str(path), **flags))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def labeled(*labels: object) -> Pairs:
    return [(SENTENCE.format(i), label) for i, label in enumerate(labels)]


def warnings(path: Path, caplog: pytest.LogCaptureFixture) -> list[str]:
    caplog.clear()
    load(path)
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# Splits without labels


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("test.csv", "text\na\nb\n"),
        ("test.csv", "id,text\n1,a\n2,b\n"),
        ("test.csv", "text,label\na,\nb, \n"),
        ("test.csv", "text,label\na,-1\nb,-1\n"),
        ("test.csv", "text,label\na,-1.0\nb,-1\n"),
        ("test.csv", "text,label\na,NULL\nb,NaN\n"),
        ("test.jsonl", '{"text": "a", "label": null}\n{"text": "b"}\n'),
        ("test.jsonl", '{"text": "a"}\n{"text": "b"}\n'),
        ("test.txt", "a\nb\n"),
    ],
)
def test_a_test_split_without_labels_is_set_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, content: str
) -> None:
    caplog.set_level(logging.INFO, "featherweight")
    folder = folder_of(tmp_path / "moods", train=TRAIN, val=TRAIN)
    (folder / name).write_text(content)
    data = load(folder)
    assert data.test is None
    assert [split.name for split in data.splits] == ["train", "validation"]
    assert caplog.messages == ["the test split of moods has no labels and is set aside"]
    with pytest.raises(UsageError, match="the test split of moods has no labels to evaluate with"):
        data.split("test")


def test_parquet_nulls_are_no_labels(tmp_path: Path) -> None:
    folder_of(tmp_path, train=TRAIN, val=TRAIN)
    write(tmp_path / "test.parquet", [("a", None), ("b", None)])
    assert load(tmp_path).test is None
    write(tmp_path / "test.parquet", [("a", float("nan")), ("b", float("nan"))])
    assert load(tmp_path).test is None


def test_minus_one_is_a_class_if_train_or_the_model_has_it(tmp_path: Path) -> None:
    pairs = labeled(*[-1, 0, 1] * 4)
    folder_of(tmp_path, train=pairs, val=pairs, test=labeled(-1, -1))
    assert len(load(tmp_path).split("test")) == 2
    folder_of(tmp_path, train=labeled(*[0, 1] * 4))
    assert len(load(tmp_path, label_names=["-1", "0", "1"]).split("test")) == 2


def test_a_test_split_with_some_labels_is_an_error_that_names_the_first_row(tmp_path: Path) -> None:
    folder_of(tmp_path, train=TRAIN, val=TRAIN, test=[("a", "joy"), ("b", ""), ("c", "")])
    assert "test.csv, line 3: no label (an empty cell, NULL, None and NaN" in refusal(tmp_path)


def test_a_text_file_with_some_labels_shows_how_to_write_them(tmp_path: Path) -> None:
    write(tmp_path / "train.txt", TRAIN)
    (tmp_path / "test.txt").write_text("a;joy\nb\n")
    assert "test.txt, line 2: no label; write it after the text and a ';'" in refusal(tmp_path)


@pytest.mark.parametrize("label", ["", "None"])
def test_train_and_validation_need_labels(tmp_path: Path, label: str) -> None:
    unlabeled = [(text, label) for text, _ in TRAIN]
    folder_of(tmp_path, train=TRAIN, val=unlabeled)
    error = refusal(tmp_path)
    assert "val.csv, line 2: no label, and no other row of validation has one: add labels" in error
    assert error.endswith("without the split, texts of train are held out")
    folder_of(tmp_path, train=unlabeled, val=TRAIN)
    assert refusal(tmp_path).endswith("no other row of train has one: add labels")


def test_a_validation_split_needs_the_label_column(tmp_path: Path) -> None:
    folder_of(tmp_path, train=TRAIN)
    (tmp_path / "val.csv").write_text("text\na\n")
    assert "val.csv has no column 'label', only text: choose one with" in refusal(tmp_path)


def test_a_listed_class_may_look_like_a_missing_label(tmp_path: Path) -> None:
    write(tmp_path / "stance.csv", labeled(*["Favor", "None", "0.5"] * 10))
    assert load(tmp_path / "stance.csv", labels="Favor,None,0.5").labels == ("Favor", "None", "0.5")


# Names that a schema defines


def test_splits_that_number_their_classes_in_another_order_are_refused(tmp_path: Path) -> None:
    for split, names in {"train": ["sad", "glad"], "test": ["glad", "sad"]}.items():
        features = datasets.Features(
            {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=names)}
        )
        rows = {"text": [f"t{i}" for i in range(20)], "label": [i % 2 for i in range(20)]}
        datasets.Dataset.from_dict(rows, features).to_parquet(tmp_path / f"{split}.parquet")
    error = refusal(tmp_path)
    assert "test.parquet defines the class names glad, sad, but " in error
    assert "train.parquet defines sad, glad: convert" in error
    assert load(tmp_path, labels="sad,glad").labels == ("sad", "glad")
    (tmp_path / "test.parquet").unlink()
    assert load(tmp_path, label_names=["glad", "sad"]).train.labels.tolist()[:2] == [1, 0]


# Columns that do not contain one class a text


def test_decimal_numbers_are_a_regression_target(tmp_path: Path) -> None:
    path = write(tmp_path / "all.parquet", labeled(*(i / 40 for i in range(40))))
    assert "row 2: the label 0.025 is a decimal number, not a class: replace it" in refusal(path)


@pytest.mark.parametrize("distinct", [90, 60])
def test_a_column_of_almost_as_many_values_as_rows_is_not_the_label(
    tmp_path: Path, distinct: int
) -> None:
    labels = [f"v{i % distinct}" for i in range(90)]
    folder_of(tmp_path, train=labeled(*labels), val=labeled("v0"))
    expected = f"{distinct} different labels in 90 training texts: choose the column of"
    assert expected in refusal(tmp_path)
    assert "--label_column" in refusal(write(tmp_path / "all.csv", labeled(*labels)))


def test_listed_classes_may_have_few_texts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    labels = [f"v{i // 2}" for i in range(60)]
    folder_of(tmp_path, train=labeled(*labels[:-1]), val=labeled("v0"))
    assert "30 different labels in 59 training texts" in refusal(tmp_path)
    (tmp_path / "labels.txt").write_text("\n".join(dict.fromkeys(labels)))
    assert len(load(tmp_path).labels) == 30
    (tmp_path / "labels.txt").unlink()
    folder_of(tmp_path, train=labeled(*labels))
    (warning,) = warnings(tmp_path, caplog)
    assert warning.startswith("30 different labels in 60 training texts: if they are not the class")


@pytest.mark.parametrize("joined", ["joy|fear", "joy, calm", "calm;fear", "joy|fear|calm"])
def test_several_labels_in_a_cell(tmp_path: Path, joined: str) -> None:
    path = write(tmp_path / "all.tsv", labeled(*["joy", "fear", joined] * 10))
    expected = f"line 4: {joined!r} is several labels; a text has one: keep the rows with one"
    assert expected in refusal(path)
    folder_of(tmp_path / "again", val=TRAIN)
    write(tmp_path / "again" / "train.tsv", labeled(*["joy", "fear", joined] * 10))
    with pytest.raises(DataError, match="is several labels"):
        load(tmp_path / "again", label_names=["fear", "joy"])


def test_a_separator_in_a_name_is_no_second_label(tmp_path: Path) -> None:
    path = write(tmp_path / "all.tsv", labeled(*["food, drinks", "a|b", "fear"] * 10))
    assert load(path).labels == ("a|b", "fear", "food, drinks")
    folder = tmp_path / "listed"
    write(folder / "train.tsv", labeled(*["joy", "joy|fear"] * 10))
    (folder / "labels.txt").write_text("joy\njoy|fear\n")
    assert load(folder).labels == ("joy", "joy|fear")


@pytest.mark.parametrize(("one", "zero"), [("1", "0"), ("True", "False"), ("1.0", "0.0")])
def test_one_hot_columns(tmp_path: Path, one: str, zero: str) -> None:
    path = tmp_path / "all.csv"
    lines = [f"text {i},{zero},{one}\ntext {i},{one},{zero}\n" for i in range(10)]
    path.write_text("text,joy,fear\n" + "".join(lines))
    expected = "no column 'label', only text, joy, fear: keep the rows with a single 1 in joy, fear"
    assert expected in refusal(path)


def test_a_single_column_of_0_and_1_is_proposed_as_the_label(tmp_path: Path) -> None:
    path = tmp_path / "all.csv"
    path.write_text("text,spam,id\n" + "".join(f"text {i},{i % 2},{i}\n" for i in range(9)))
    assert refusal(path).endswith("only text, spam, id: choose one with --label_column")


def test_a_pair_of_texts(tmp_path: Path) -> None:
    path = tmp_path / "all.csv"
    path.write_text("premise,hypothesis,label\n" + "it rains now,it is wet,yes\n" * 9)
    error = refusal(path)
    assert (
        "no column 'text', only premise, hypothesis, label: choose one with --text_column" in error
    )
    assert "if premise, hypothesis belong together, join them into one column" in error


# Remarks on labels that only the training texts define


def test_variants_of_a_name_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    labels = ["Glad", "glad", " glad ", "very sad", "Very  Sad", "ﬁne", "fine", "mad"]
    (warning,) = warnings(write(tmp_path / "all.tsv", labeled(*labels * 10)), caplog)
    assert warning == (
        "labels that differ only in their spelling are separate classes: 'Glad' and 'glad', "
        "'Very  Sad' and 'very sad', 'fine' and 'ﬁne'; write them alike in the data if they are "
        "one class"
    )


def test_ids_among_names_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "all.csv", labeled(*[0, 1, "joy", "fear"] * 10))
    (warning,) = warnings(path, caplog)
    assert warning.startswith("the labels mix integers (0, 1) and names (fear, joy)")


def test_the_ids_of_the_emotion_data_set_are_recognized(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "all.csv", labeled(*list(range(6)) * 10))
    (warning,) = warnings(path, caplog)
    assert "--labels emotion (short for --labels sadness,joy,love,anger,fear,surprise)" in warning
    assert load(path).labels == tuple("012345")
    for ids in (range(1, 7), range(5), range(7)):
        assert not warnings(write(tmp_path / "all.csv", labeled(*list(ids) * 10)), caplog)


def test_plain_labels_need_no_remark(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert not warnings(folder_of(tmp_path, train=TRAIN, val=TRAIN), caplog)
