"""Data locations, and rows without labels."""

import logging
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from featherweight.data.dataset import DataConfig, Split, load_dataset, text_rows
from featherweight.data.rows import open_rows
from featherweight.errors import DataError, UsageError
from tests.helpers.data_files import REST, TRAIN, Pairs, folder_of, load, write


def names(split: Split) -> list[str]:
    return [split.label_names[i] for i in split.labels]


# Data locations


def test_bundled_corpus_is_the_default_and_logs_its_purpose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    corpus = folder_of(tmp_path / "corpus", train=TRAIN, validation=REST, test=REST)
    monkeypatch.setattr("featherweight.data.sources.CORPUS", corpus)
    caplog.set_level(logging.INFO, "featherweight")

    data = load_dataset(DataConfig())

    assert data.name == "bundled"
    assert len(data.train) == len(TRAIN)
    assert "for demonstration only" in caplog.text
    assert "dair-ai/emotion" in caplog.text


@pytest.mark.parametrize(
    ("extension", "validation"),
    [
        ("csv", "validation"),
        ("tsv.gz", "valid"),
        ("jsonl", "val"),
        ("parquet", "dev"),
        ("txt", "validation"),
    ],
)
def test_a_folder_of_splits(tmp_path: Path, extension: str, validation: str) -> None:
    folder = tmp_path / "moods"
    write(folder / f"train.{extension}", TRAIN)
    write(folder / f"{validation}.{extension}", REST)
    write(folder / f"test.{extension}", REST[:1])
    write(folder / "notes.csv", [("unrelated", "nothing")])
    (folder / "README.md").write_text("not data")

    data = load(folder)

    assert data.name == "moods"
    assert data.labels == ("anger", "fear", "joy")
    assert data.train.texts == tuple(text for text, _ in TRAIN)
    assert names(data.train) == [label for _, label in TRAIN]
    assert data.train.labels.dtype == np.int64
    assert names(data.validation) == ["fear", "joy"]
    assert data.test is not None
    assert data.test.texts == ("b1",)
    assert [split.name for split in data.splits] == ["train", "validation", "test"]


def test_digest_depends_on_content_only(tmp_path: Path) -> None:
    integers = [(text, ["anger", "fear", "joy"].index(str(label))) for text, label in TRAIN]
    digests = {
        load(write(tmp_path / name / "train.csv", TRAIN).parent).train.sha256
        for name in ("one", "two")
    }
    digests.add(load(write(tmp_path / "three" / "train.parquet", TRAIN).parent).train.sha256)
    numbered = write(tmp_path / "four" / "train.jsonl", integers).parent
    digests.add(load(numbered, labels="anger,fear,joy").train.sha256)
    model = ["joy", "anger", "fear"]
    digests.add(load(tmp_path / "one", label_names=model).train.sha256)
    assert len(digests) == 1

    other = [("a1 ", "joy"), *TRAIN[1:]]
    digests.add(load(folder_of(tmp_path / "five", train=other)).train.sha256)
    digests.add(load(numbered, labels="joy,fear,anger").train.sha256)
    assert len(digests) == 3


def test_a_split_is_found_by_name(tmp_path: Path) -> None:
    data = load(folder_of(tmp_path / "moods", train=TRAIN, val=REST))
    assert data.split("validation") is data.validation
    with pytest.raises(UsageError, match="moods has no split 'test', only train, validation"):
        data.split("test")


def many(per_class: dict[str, int]) -> Pairs:
    return [(f"{name} {i}", name) for name, count in per_class.items() for i in range(count)]


def test_a_folder_without_validation_holds_a_tenth_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "featherweight")
    pairs = many({"joy": 100, "fear": 30, "love": 4, "rare": 1})

    data = load(folder_of(tmp_path / "moods", train=pairs))

    assert Counter(names(data.validation)) == {"joy": 10, "fear": 3, "love": 1}
    assert Counter(names(data.train)) == {"joy": 90, "fear": 27, "love": 3, "rare": 1}
    assert not set(data.train.texts) & set(data.validation.texts)
    assert data.test is None
    assert "14 of its 135 training texts are held out, stratified, seed 0" in caplog.text


def test_one_file_is_split_80_10_10(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "featherweight")
    pairs = many({"joy": 100, "fear": 50})
    path = write(tmp_path / "my reviews.csv.gz", pairs)

    data = load(path)

    assert data.name == "my-reviews"
    counts = [Counter(names(split)) for split in data.splits]
    assert counts == [{"joy": 80, "fear": 40}, {"joy": 10, "fear": 5}, {"joy": 10, "fear": 5}]
    texts = [text for split in data.splits for text in split.texts]
    assert sorted(texts) == sorted(str(text) for text, _ in pairs)
    assert "120 training, 15 validation and 15 test texts, stratified, seed 0" in caplog.text
    assert "no validation split" not in caplog.text


def split_file(path: Path, *splits: str) -> Path:
    rows = [f"text {i},{('joy', 'fear')[i % 2]},{split}\n" for i, split in enumerate(splits)]
    path.write_text("text,label,split\n" + "".join(rows))
    return path


def test_a_split_column_divides_a_single_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "featherweight")
    path = split_file(tmp_path / "moods.csv", *["train", "Train", "dev", "test", " valid ", "val"])
    data = load(path)
    assert data.train.texts == ("text 0", "text 1")
    assert data.validation.texts == ("text 2", "text 4", "text 5")
    assert data.split("test").texts == ("text 3",)
    assert data.split("test").labels.tolist() == [0]
    (line,) = caplog.messages
    assert line.endswith("split by its column 'split': 2 train, 3 validation, 1 test texts")


def test_a_split_column_without_validation_or_labels_of_test(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "featherweight")
    path = split_file(tmp_path / "moods.csv", *["train"] * 20, "test")
    path.write_text(path.read_text().replace("text 20,joy", "text 20,"))
    data = load(path)
    assert (len(data.train), len(data.validation), data.test) == (18, 2, None)
    assert "2 of its 20 training texts are held out" in caplog.text
    assert "the test split of moods has no labels and is set aside" in caplog.text


@pytest.mark.parametrize(
    ("splits", "reason"),
    [
        (["train", "test", "fold3"], "line 4: the column 'split' is ignored, because 'fold3' is"),
        (["train", "test", ""], "line 4: the column 'split' is ignored, because '' is no split"),
        (["test", "test", "val"], "line 2: the column 'split' is ignored, because no row is of"),
    ],
)
def test_another_split_column_is_ignored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, splits: list[str], reason: str
) -> None:
    caplog.set_level(logging.INFO, "featherweight")
    data = load(split_file(tmp_path / "moods.csv", *splits * 10))
    assert [len(split) for split in data.splits] == [24, 2, 4]
    assert reason in caplog.text
    assert "80/10/10" in caplog.text


@pytest.mark.parametrize("flag", ["data", "train_path"])
def test_a_split_column_divides_the_only_file_of_a_folder(tmp_path: Path, flag: str) -> None:
    path = split_file(tmp_path / "train.csv", *["train", "train", "dev", "test"] * 5)
    config = DataConfig(train_path=path) if flag == "train_path" else DataConfig(data=str(tmp_path))
    assert [len(split) for split in load_dataset(config).splits] == [10, 5, 5]


def test_a_split_column_that_says_train_only_divides_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "featherweight")
    data = load(split_file(tmp_path / "moods.csv", *["train"] * 20))
    assert [len(split) for split in data.splits] == [16, 2, 2]
    assert "'split'" not in caplog.text


def test_files_take_precedence_over_a_split_column(tmp_path: Path) -> None:
    split_file(tmp_path / "train.csv", *["train", "test"] * 5)
    split_file(tmp_path / "test.csv", "test", "train")
    assert [len(split) for split in load(tmp_path).splits] == [8, 2, 2]


def test_a_split_column_may_be_the_label(tmp_path: Path) -> None:
    path = split_file(tmp_path / "moods.csv", *["train", "test"] * 10)
    data = load_dataset(DataConfig(data=str(path), label_column="split"))
    assert data.labels == ("test", "train")


def test_split_is_deterministic_and_keeps_the_order(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", many({"joy": 40, "fear": 40}))
    first, second = load(path), load(path)
    assert first.validation.texts == second.validation.texts
    # Literal texts: a split that changed with a library version would change every result.
    assert first.split("test").texts == (
        "joy 12",
        "joy 13",
        "joy 26",
        "joy 36",
        "fear 4",
        "fear 20",
        "fear 22",
        "fear 25",
    )
    order = [str(text) for text, _ in many({"joy": 40, "fear": 40})]
    assert list(first.train.texts) == [text for text in order if text in set(first.train.texts)]


@pytest.mark.parametrize(("stem", "name"), [("reviews", "reviews"), ("train", "moods")])
def test_separate_train_val_and_test_paths(tmp_path: Path, stem: str, name: str) -> None:
    train = write(tmp_path / "moods" / f"{stem}.csv", TRAIN)
    other = write(tmp_path / "elsewhere" / "x.jsonl", REST)

    data = load_dataset(DataConfig(train_path=train, val_path=other))
    assert data.name == name
    assert data.validation.texts == ("b1", "b2")
    assert data.test is None

    data = load_dataset(DataConfig(train_path=train, test_path=other))
    assert data.test is not None
    assert data.test.texts == ("b1", "b2")
    assert len(data.validation) == 3  # one of each class


def test_column_flags(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text("id,tweet,mood\n" + "".join(f"{i},t{i},m{i % 2}\n" for i in range(20)))
    config = DataConfig(data=str(tmp_path), text_column="tweet", label_column="mood")
    data = load_dataset(config)
    assert data.labels == ("m0", "m1")
    assert "t0" in data.train.texts + data.validation.texts


def test_a_home_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    folder_of(tmp_path / "moods", train=TRAIN)
    assert load(Path("~/moods")).name == "moods"


# Rows to predict


def test_text_rows_give_the_text_its_number_and_its_row(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('id,body\n7,"one\nline"\n8,\n')
    with open_rows(path) as rows:
        assert list(text_rows(rows, "body")) == [
            (2, "one\nline", {"id": "7", "body": "one\nline"}),
            (4, "", {"id": "8", "body": ""}),
        ]


def test_missing_text_column_fails_before_the_first_row(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id,body\n7,hello\n")
    with open_rows(path) as rows, pytest.raises(DataError, match="no column 'text', only id, body"):
        text_rows(rows, "text")
