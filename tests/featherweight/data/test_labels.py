"""Mapping of labels to class ids, and the error messages for invalid data."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from featherweight.data.dataset import DataConfig, load_dataset
from featherweight.errors import DataError, FeatherweightError, UsageError
from tests.helpers.data_files import REST, TRAIN, Pairs, folder_of, load, write


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


EMOTION = ("sadness", "joy", "love", "anger", "fear", "surprise")

# Class ids

NUMBERED: Pairs = [("a", 0), ("b", 1), ("c", 2), ("d", 1), ("e", 0), ("f", 2)] * 2


@pytest.mark.parametrize(
    ("extension", "flag", "file", "labels"),
    [
        ("csv", "", "", ("0", "1", "2")),
        ("jsonl", "", "", ("0", "1", "2")),
        ("csv", "", "sad\r\nglad\r\n\r\nmad\r\n", ("sad", "glad", "mad")),
        ("csv", "", "\ufeffsad\nglad\nmad", ("sad", "glad", "mad")),
        ("jsonl", "low, mid ,high", "", ("low", "mid", "high")),
        ("parquet", "low,mid,high", "sad\nglad\nmad\n", ("low", "mid", "high")),
        ("parquet", "a,b,c,d", "", ("a", "b", "c", "d")),
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
    [
        ("  joy ", "joy"),
        ("cafe\u0301", "caf\u00e9"),
        ("none", "none"),
        ("01", "01"),
        ("[deleted]", "[deleted]"),
        *((value, "true") for value in (True, "True", "TRUE", "true")),
        *((value, "2") for value in (2, 2.0, "2", "2.0", " 2. ", "2.00")),
        *((value, "0") for value in (0, -0.0, "-0.0")),
        (-1.0, "-1"),
    ],
)
def test_label_cells(tmp_path: Path, value: object, name: str) -> None:
    write(tmp_path / "train.jsonl", [("a", value), ("b", "other")] * 5)
    assert name in load(tmp_path).labels


VALUES: list[tuple[list[object], tuple[str, ...]]] = [
    ([True, False], ("false", "true")),
    ([1, 0], ("0", "1")),
    ([1.0, 0.0], ("0", "1")),
    (["1.0", "0.0"], ("0", "1")),
]


@pytest.mark.parametrize("extension", ["csv", "tsv", "jsonl", "parquet", "txt"])
@pytest.mark.parametrize(("values", "labels"), VALUES)
def test_labels_are_the_same_in_every_format(
    tmp_path: Path, extension: str, values: list[object], labels: tuple[str, ...]
) -> None:
    pairs = [(f"t{i}", value) for i, value in enumerate(values * 10)]
    data = load(write(tmp_path / f"all.{extension}", pairs))
    assert data.labels == labels


@pytest.mark.parametrize("names", [["False", "True"], ["false", "true"]])
def test_spellings_of_formats_match_the_names_of_a_model(tmp_path: Path, names: list[str]) -> None:
    pairs = [(f"t{i}", i % 2 == 0) for i in range(20)]
    write(tmp_path / "train.parquet", pairs)
    write(tmp_path / "val.csv", pairs[:2])
    data = load(tmp_path, label_names=names)
    assert data.labels == tuple(names)
    assert data.validation.labels.tolist() == [1, 0]
    data = load(tmp_path, labels="TRUE,FALSE", label_names=names)
    assert data.validation.labels.tolist() == [1, 0]


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


def test_integers_without_names_are_refused_for_a_model_with_names(tmp_path: Path) -> None:
    folder_of(tmp_path / "moods", train=NUMBERED, val=NUMBERED[:3])
    config = DataConfig(data=str(tmp_path / "moods"))
    error = message(config, ["x", "y", "z"])
    assert "moods has the ids 0, 1, 2 without names, and the trained model has" in error
    assert "the labels x, y, z: list the name of each id, from 0, with --labels or" in error
    assert "emotion" not in error
    assert "--labels emotion (short for --labels sadness,joy,love" in message(config, EMOTION)


def test_names_are_refused_for_a_model_trained_on_integers(tmp_path: Path) -> None:
    error = message(DataConfig(data=str(folder_of(tmp_path, train=TRAIN, val=REST))), ["0", "1"])
    assert error.endswith("the trained model are 0, 1; train with --labels to give ids names")


@pytest.mark.parametrize("names", [["2", "1", "0"], ["2.0", "1.0", "0.0"]])
def test_integers_are_names_for_a_model_trained_on_integers(
    tmp_path: Path, names: list[str]
) -> None:
    folder_of(tmp_path, train=NUMBERED, val=NUMBERED[:3])
    data = load(tmp_path, label_names=names)
    assert data.labels == tuple(names)
    assert data.validation.labels.tolist() == [2, 1, 0]
    # Names that the data received after the training do not change what the ids are.
    (tmp_path / "labels.txt").write_text("sad\nglad\nmad\n")
    assert load(tmp_path, label_names=names).validation.labels.tolist() == [2, 1, 0]


def test_a_short_name_lists_the_labels_of_the_emotion_data_set(tmp_path: Path) -> None:
    pairs = [(f"t{i}", i % 6) for i in range(24)]
    folder_of(tmp_path, train=pairs, val=pairs[:6])
    assert load(tmp_path, labels=" emotion ").labels == EMOTION
    data = load(tmp_path, labels="emotion", label_names=sorted(EMOTION))
    assert [data.labels[i] for i in data.validation.labels] == list(EMOTION)


def test_a_trained_model_accepts_data_of_one_class(tmp_path: Path) -> None:
    folder_of(tmp_path, train=[("a", "joy")] * 4, val=[("b", "joy")])
    assert load(tmp_path, label_names=["fear", "joy"]).validation.labels.tolist() == [1]


# Error messages

GOOD = "text,label\na,joy\nb,fear\n"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("text,label\n", "train.csv has the columns text, label but no rows"),
        (
            "tweet,label\na,b\n",
            "no column 'text', only tweet, label: choose one with --text_c",
        ),
        ("text,mood\na,b\n", "no column 'label', only text, mood: choose one with --label_column"),
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
        ('{"text": 5, "label": 1}', "'text' is of type int, not a string"),
        ('{"text": ["a"], "label": 1}', "'text' is of type list, not a string"),
        ('{"text": "\\ud83d", "label": 1}', "'text' contains half of a surrogate pair"),
        ('{"text": "a", "label": null}', "no label"),
        ('{"text": "a", "label": NaN}', "no label"),
        ('{"text": "a"}', "no label"),
        ('{"text": "a", "label": "None"}', "no label"),
        ('{"text": "a", "label": "NULL"}', "no label"),
        ('{"text": "a", "label": "<NA>"}', "no label"),
        ('{"text": "a", "label": [1]}', "the label is a list, [1]; a text has one label: keep"),
        ('{"text": "a", "label": "[1, 2]"}', "the label is a list"),
        ('{"text": "a", "label": "[]"}', "the label is a list"),
        ('{"text": "a", "label": "[\'joy\']"}', "the label is a list"),
        ('{"text": "a", "label": {"joy": 1}}', "the label is of type dict"),
        ('{"text": "a", "label": 0.5}', "the label 0.5 is a decimal number, not a class"),
        ('{"text": "a", "label": "-.5"}', "the label -.5 is a decimal number, not a class"),
        ('{"text": "a", "label": 1e-9}', "the label 1e-09 is a decimal number, not a class"),
    ],
)
def test_a_json_line_that_cannot_be_used(tmp_path: Path, line: str, expected: str) -> None:
    content = '{"text": "fine", "label": 0}\n' + line + "\n"
    error = message_of_folder(tmp_path, {"train.jsonl": content})
    assert "train.jsonl, line 2: " + expected in error


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            {"train.csv": GOOD, "val.csv": "text,label\na,joy\nb,hope\n"},
            "val.csv, line 3: unknown label 'hope'; the labels from the training texts are fear",
        ),
        (
            {"train.csv": GOOD, "val.csv": GOOD, "test.csv": "text,label\na,joy\nb,-1\n"},
            "test.csv, line 3: unknown label '-1'",
        ),
        (
            {"train.csv": GOOD, "val.csv": GOOD, "test.csv": "text,label\na,hope\n"},
            "the labels from the training texts are fear, joy; list all with --labels",
        ),
        (
            {"train.csv": GOOD, "val.csv": "text,label\na,Joy\n"},
            "unknown label 'Joy'; the labels from the training texts are fear, joy; did you mean "
            "'joy'?",
        ),
        (
            {"train.csv": GOOD, "val.csv": GOOD, "labels.txt": "joy\nlove\n"},
            "train.csv, line 3: unknown label 'fear'; the labels from ",
        ),
        ({"train.csv": GOOD, "labels.txt": "joy\n"}, "labels.txt: at least two names are needed"),
        ({"train.csv": GOOD, "labels.txt": "joy\nfear\njoy"}, "labels.txt: joy is listed twice"),
        ({"train.csv": GOOD, "labels.txt": "1\n1.0"}, "labels.txt: 1 is listed twice"),
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
    expected = (
        "train.csv, line 4: unknown label '2'; the labels from --labels are no, yes; ids count "
        "the names from 0"
    )
    assert expected in message(DataConfig(data=str(tmp_path), labels="no,yes"))


def test_a_label_that_the_model_lacks_is_named_with_its_row(tmp_path: Path) -> None:
    folder_of(tmp_path, train=TRAIN, val=REST)
    config = DataConfig(data=str(tmp_path))
    expected = (
        "train.csv, line 4: unknown label 'anger'; the labels from the trained model are joy, fear"
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
        (
            {"data": "moods", "train_path": Path("a.csv")},
            "--data cannot be combined with",
        ),
        (
            {"data": "moods", "test_path": Path("a.csv")},
            "--data cannot be combined with",
        ),
        ({"data": ""}, "--data is empty"),
        ({"val_path": Path("a.csv")}, "require --train_path"),
        ({"test_path": Path("a.csv")}, "require --train_path"),
        (
            {"data": "{good}", "labels": "joy,fear,joy"},
            "joy,fear,joy: joy is listed twice",
        ),
        ({"data": "{good}", "labels": "joy"}, "--labels joy: at least two names"),
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


def test_directory_instead_of_a_file(tmp_path: Path) -> None:
    config = DataConfig(train_path=tmp_path)
    assert "is a directory, not a file" in message(config)
