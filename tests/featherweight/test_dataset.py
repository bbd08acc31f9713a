"""Where data is found, how its labels get their ids, and what a user reads when it cannot be."""

import gzip
import json
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featherweight.dataset import DataConfig, Dataset, Split, load_dataset, text_rows
from featherweight.errors import DataError, FeatherweightError, UsageError
from featherweight.rows import open_rows

Pairs = Sequence[tuple[object, object]]
TRAIN: Pairs = [("a1", "joy"), ("a2", "fear"), ("a3", "anger"), ("a4", "joy")] * 5
REST: Pairs = [("b1", "fear"), ("b2", "joy")]


def write(path: Path, pairs: Pairs) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    if kind == "parquet":
        texts, labels = zip(*pairs, strict=True)
        pq.write_table(pa.table({"text": texts, "label": labels}), path)
        return path
    if kind == "jsonl":
        lines = [json.dumps({"text": text, "label": label}) for text, label in pairs]
    elif kind == "txt":
        lines = [f"{text};{label}" for text, label in pairs]
    else:
        delimiter = "\t" if kind == "tsv" else ","
        lines = [f"{a}{delimiter}{b}" for a, b in (("text", "label"), *pairs)]
    content = "".join(line + "\n" for line in lines).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def folder_of(path: Path, **files: Pairs) -> Path:
    for split, pairs in files.items():
        write(path / f"{split}.csv", pairs)
    return path


def load(path: Path, labels: str = "", label_names: Sequence[str] | None = None) -> Dataset:
    return load_dataset(DataConfig(data=str(path), labels=labels), label_names)


def names(split: Split) -> list[str]:
    return [split.label_names[i] for i in split.labels]


def message(
    config: DataConfig,
    label_names: Sequence[str] | None = None,
    kind: type[FeatherweightError] = DataError,
) -> str:
    with pytest.raises(FeatherweightError) as caught:
        load_dataset(config, label_names)
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Where data is found


def test_the_bundled_corpus_is_the_default_and_says_what_it_is_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    corpus = folder_of(tmp_path / "corpus", train=TRAIN, validation=REST, test=REST)
    monkeypatch.setattr("featherweight.sources.CORPUS", corpus)
    caplog.set_level(logging.INFO, "featherweight")

    data = load_dataset(DataConfig())

    assert data.name == "bundled"
    assert len(data.train) == len(TRAIN)
    assert "demonstrates, it does not measure" in caplog.text
    assert "dair-ai/emotion" in caplog.text


@pytest.mark.parametrize("validation", ["validation", "valid", "val", "dev"])
@pytest.mark.parametrize("extension", ["csv", "tsv.gz", "jsonl", "parquet", "txt"])
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


def test_the_digest_is_of_the_content_and_not_of_the_format(tmp_path: Path) -> None:
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
    with pytest.raises(UsageError, match="moods has no split 'test'; it has train, validation"):
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


def test_the_cut_is_the_same_each_time_and_keeps_the_order(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", many({"joy": 40, "fear": 40}))
    first, second = load(path), load(path)
    assert first.validation.texts == second.validation.texts
    # Written out: a cut that moved with the version of a library would move every result.
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
def test_files_named_one_by_one(tmp_path: Path, stem: str, name: str) -> None:
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


def test_columns_have_the_names_that_the_flags_say(tmp_path: Path) -> None:
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


# How labels get their ids

NUMBERED: Pairs = [("a", 0), ("b", 1), ("c", 2), ("d", 1), ("e", 0), ("f", 2)] * 2


@pytest.mark.parametrize("extension", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize(
    ("flag", "file", "labels"),
    [
        ("", "", ("0", "1", "2")),
        ("", "sad\r\nglad\r\n\r\nmad\r\n", ("sad", "glad", "mad")),
        ("", "\ufeffsad\nglad\nmad", ("sad", "glad", "mad")),
        ("low, mid ,high", "", ("low", "mid", "high")),
        ("low,mid,high", "sad\nglad\nmad\n", ("low", "mid", "high")),
        ("a,b,c,d", "", ("a", "b", "c", "d")),
    ],
)
def test_integers_are_ids_of_the_names_given(
    tmp_path: Path, extension: str, flag: str, file: str, labels: tuple[str, ...]
) -> None:
    write(tmp_path / f"train.{extension}", NUMBERED)
    write(tmp_path / f"test.{extension}", NUMBERED)
    if file:
        (tmp_path / "labels.txt").write_text(file, encoding="utf-8")
    data = load(tmp_path, labels=flag)
    assert data.labels == labels
    assert data.test is not None
    assert data.test.labels.tolist() == [label for _, label in NUMBERED]
    assert data.test.label_names == labels


def test_integers_without_names_are_sorted_as_numbers(tmp_path: Path) -> None:
    pairs = [(f"t{i}", label) for i, label in enumerate([10, 9, -1, 100] * 3)]
    data = load(folder_of(tmp_path, train=pairs, val=pairs[:4]))
    assert data.labels == ("-1", "9", "10", "100")
    assert data.validation.labels.tolist() == [2, 1, 0, 3]


def test_names_that_are_integers_are_names(tmp_path: Path) -> None:
    stars = [(f"t{i}", i % 5 + 1) for i in range(20)]
    data = load(folder_of(tmp_path, train=stars, val=stars[:5]), labels="5,4,3,2,1")
    assert data.validation.labels.tolist() == [4, 3, 2, 1, 0]


def test_names_take_the_order_of_the_list_and_else_the_alphabets(tmp_path: Path) -> None:
    folder_of(tmp_path, train=TRAIN, val=REST)
    assert load(tmp_path).labels == ("anger", "fear", "joy")
    data = load(tmp_path, labels="joy,fear,anger,none")
    assert data.labels == ("joy", "fear", "anger", "none")
    assert data.validation.labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("value", "name"),
    [("  joy ", "joy"), (True, "true"), (2.0, "2"), (7, "7")],
)
def test_label_cells(tmp_path: Path, value: object, name: str) -> None:
    write(tmp_path / "train.jsonl", [("a", value), ("b", "other")] * 5)
    assert name in load(tmp_path).labels


def test_a_model_keeps_its_ids_whatever_order_the_data_has(tmp_path: Path) -> None:
    folder_of(tmp_path, train=TRAIN, val=REST)
    model = ["joy", "love", "anger", "fear"]
    data = load(tmp_path, label_names=model)
    assert data.labels == ("joy", "love", "anger", "fear")
    assert data.validation.labels.tolist() == [3, 0]


def test_integers_with_names_are_mapped_onto_a_model_by_those_names(tmp_path: Path) -> None:
    folder_of(tmp_path, train=NUMBERED, val=NUMBERED[:3])
    (tmp_path / "labels.txt").write_text("sad\nglad\nmad\n")
    data = load(tmp_path, label_names=["mad", "sad", "glad"])
    assert data.validation.labels.tolist() == [1, 2, 0]
    data = load(tmp_path, labels="x,y,z", label_names=["z", "y", "x"])
    assert data.validation.labels.tolist() == [2, 1, 0]


def test_integers_without_names_are_ids_of_the_model(tmp_path: Path) -> None:
    folder_of(tmp_path, train=NUMBERED, val=NUMBERED[:3])
    data = load(tmp_path, label_names=["x", "y", "z"])
    assert data.labels == ("x", "y", "z")
    assert data.validation.labels.tolist() == [0, 1, 2]
    assert load(tmp_path, label_names=["2", "1", "0"]).validation.labels.tolist() == [2, 1, 0]


def test_a_model_may_be_shown_one_class_only(tmp_path: Path) -> None:
    folder_of(tmp_path, train=[("a", "joy")] * 4, val=[("b", "joy")])
    assert load(tmp_path, label_names=["fear", "joy"]).validation.labels.tolist() == [1]


# What a user reads

GOOD = "text,label\na,joy\nb,fear\n"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("text,label\n", "train.csv has the columns text, label and no rows"),
        ("tweet,label\na,b\n", "no column 'text' but tweet, label: name one with --text_column"),
        ("text,mood\na,b\n", "no column 'label' but text, mood: name one with --label_column"),
        ("text,label\na,b\nc,\n", "train.csv, line 3: no label"),
        ("text,label\na,b\nc,nan\n", "train.csv, line 3: no label"),
        ("text,label\nnan,b\n", "train.csv, line 2: 'text' is NaN or null"),
        ("text,label\nNaN,b\n", "train.csv, line 2: 'text' is NaN or null"),
        ("text,label\na,joy\nb,joy\nc,joy\n", "every training text has the label joy"),
        (GOOD, "moods has too few texts to hold some out"),
    ],
)
def test_a_csv_that_cannot_be_trained_on(tmp_path: Path, content: str, expected: str) -> None:
    assert expected in message_of_folder(tmp_path, {"train.csv": content})


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"text": null, "label": 1}', "'text' is NaN or null"),
        ('{"text": NaN, "label": 1}', "'text' is NaN or null"),
        ('{"label": 1}', "'text' is NaN or null"),
        ('{"text": 5, "label": 1}', "'text' is of type int, not a text"),
        ('{"text": ["a"], "label": 1}', "'text' is of type list, not a text"),
        ('{"text": "\\ud83d", "label": 1}', "'text' holds half of a surrogate pair"),
        ('{"text": "a", "label": null}', "no label"),
        ('{"text": "a", "label": NaN}', "no label"),
        ('{"text": "a"}', "no label"),
        ('{"text": "a", "label": [1]}', "the label is of type list"),
        ('{"text": "a", "label": 0.5}', "the label is of type float"),
    ],
)
def test_a_json_line_that_cannot_be_used(tmp_path: Path, line: str, expected: str) -> None:
    content = '{"text": "fine", "label": 0}\n' + line + "\n"
    said = message_of_folder(tmp_path, {"train.jsonl": content})
    assert "train.jsonl, line 2: " + expected in said


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            {"train.csv": GOOD, "val.csv": "text,label\na,joy\nb,hope\n"},
            "val.csv, line 3: unknown label 'hope'; known from the training texts are fear, joy",
        ),
        (
            {"train.csv": GOOD, "val.csv": GOOD, "test.csv": "text,label\na,-1\n"},
            "test.csv, line 2: unknown label '-1'",
        ),
        (
            {"train.csv": GOOD, "val.csv": GOOD, "labels.txt": "joy\nlove\n"},
            "train.csv, line 3: unknown label 'fear'; known from ",
        ),
        ({"train.csv": GOOD, "labels.txt": "joy\n"}, "labels.txt: it needs two names or more"),
        ({"train.csv": GOOD, "labels.txt": "joy\nfear\njoy"}, "labels.txt: joy stands twice"),
        (
            {"train.csv": GOOD, "train.tsv": GOOD},
            "has two candidates for train, train.csv and train.tsv",
        ),
        (
            {"train.csv": GOOD, "dev.csv": GOOD, "valid.csv": GOOD},
            "has two candidates for validation, dev.csv and valid.csv",
        ),
        ({"test.csv": GOOD}, "has no train file"),
        ({"README.md": "hello"}, "has no train file"),
    ],
)
def test_a_folder_that_cannot_be_used(tmp_path: Path, files: dict[str, str], expected: str) -> None:
    assert expected in message_of_folder(tmp_path, files)


def message_of_folder(tmp_path: Path, files: dict[str, str]) -> str:
    folder = tmp_path / "moods"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8")
    return message(DataConfig(data=str(folder)))


def test_a_label_file_in_another_encoding(tmp_path: Path) -> None:
    folder_of(tmp_path, train=TRAIN, val=REST)
    (tmp_path / "labels.txt").write_bytes(b"joie\npeur\ncol\xe8re\n")
    assert "labels.txt: not UTF-8" in message(DataConfig(data=str(tmp_path)))


def test_integers_beyond_the_names_are_unknown(tmp_path: Path) -> None:
    folder_of(tmp_path, train=[("a", 0), ("b", 1), ("c", 2)], val=REST)
    expected = "train.csv, line 4: unknown label '2'; known from --labels are no, yes"
    assert expected in message(DataConfig(data=str(tmp_path), labels="no,yes"))


def test_a_label_that_the_model_lacks_is_named_with_its_row(tmp_path: Path) -> None:
    folder_of(tmp_path, train=TRAIN, val=REST)
    config = DataConfig(data=str(tmp_path))
    expected = (
        "train.csv, line 4: unknown label 'anger'; known from the trained model are joy, fear"
    )
    assert expected in message(config, ["joy", "fear"])

    folder_of(tmp_path, train=NUMBERED, val=NUMBERED)
    config = DataConfig(data=str(tmp_path), labels="sad,glad,mad")
    assert "line 4: unknown label 'mad'" in message(config, ["sad", "glad"])


def test_a_parquet_row_is_named_as_a_row(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", [("a", "joy"), ("b", "fear"), (None, "joy")])
    assert "train.parquet, row 3: 'text' is NaN or null" in message(DataConfig(str(tmp_path)))


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"data": "moods", "train_path": Path("a.csv")}, "--data excludes --train_path"),
        ({"data": "moods", "test_path": Path("a.csv")}, "--data excludes --train_path"),
        ({"data": ""}, "--data is empty"),
        ({"val_path": Path("a.csv")}, "need a --train_path"),
        ({"test_path": Path("a.csv")}, "need a --train_path"),
        ({"data": "{good}", "labels": "joy,fear,joy"}, "--labels joy,fear,joy: joy stands twice"),
        ({"data": "{good}", "labels": "joy"}, "--labels joy: it needs two names"),
        ({"data": "{good}", "labels": "joy,,fear"}, "--labels joy,,fear: a name is empty"),
    ],
)
def test_flags_that_contradict_each_other(
    tmp_path: Path, flags: dict[str, object], expected: str
) -> None:
    folder_of(tmp_path, train=TRAIN, val=REST)
    if flags.get("data") == "{good}":
        flags = flags | {"data": str(tmp_path)}
    assert expected in message(DataConfig(**flags), kind=UsageError)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("gone.csv", "no such file: gone.csv"),
        ("deep/er/gone.jsonl.gz", "no such file: deep/er/gone.jsonl.gz"),
        ("./gone", "no such file or folder: ./gone"),
        ("a/b/c", "no such file or folder: a/b/c"),
        ("not an id", "no such file or folder: not an id"),
        ("x" * 5_000, "cannot be read: File name too long"),
    ],
)
def test_a_path_that_is_not_there(data: str, expected: str) -> None:
    assert expected in message(DataConfig(data=data))


def test_a_directory_where_a_file_is_due(tmp_path: Path) -> None:
    config = DataConfig(train_path=tmp_path)
    assert "is a directory where a file is due" in message(config)


# Rows to predict


def test_text_rows_give_the_text_its_number_and_its_row(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('id,body\n7,"one\nline"\n8,\n')
    with open_rows(path) as rows:
        assert list(text_rows(rows, "body")) == [
            (2, "one\nline", {"id": "7", "body": "one\nline"}),
            (4, "", {"id": "8", "body": ""}),
        ]


def test_a_missing_text_column_is_said_before_the_first_row(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id,body\n7,hello\n")
    with open_rows(path) as rows, pytest.raises(DataError, match="no column 'text' but id, body"):
        text_rows(rows, "text")
