"""Folders of data: names of splits, shards, clones of the Hub, saved data sets."""

from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featherweight.data.dataset import DataConfig, load_dataset
from featherweight.data.folders import split_files
from featherweight.errors import DataError


def csv(path: Path, texts: int = 20, start: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"text {start + i},{'joy' if i % 2 else 'fear'}\n" for i in range(texts)]
    path.write_text("text,label\n" + "".join(lines))
    return path


def found(folder: Path) -> dict[str, list[str]]:
    return {
        split: [str(path.relative_to(folder)) for path in paths]
        for split, paths in split_files(folder).items()
    }


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["train.csv", "dev.csv", "test.csv"],
         {"train": ["train.csv"], "validation": ["dev.csv"], "test": ["test.csv"]}),
        (["train_data.csv", "test_data.csv"],
         {"train": ["train_data.csv"], "test": ["test_data.csv"]}),
        (["emotions-training.csv", "emotions-eval.csv"],
         {"train": ["emotions-training.csv"], "validation": ["emotions-eval.csv"]}),
        (["train.csv", "train_old.csv", "train_new.csv"], {"train": ["train.csv"]}),
        (["train-00001-of-00002.csv", "train-00000-of-00002.csv"],
         {"train": ["train-00000-of-00002.csv", "train-00001-of-00002.csv"]}),
        (["data/train-00000-of-00001.csv", "README.md"],
         {"train": ["data/train-00000-of-00001.csv"]}),
        (["train/0000.csv", "train/0001.csv", "test/0000.csv"],
         {"train": ["train/0000.csv", "train/0001.csv"], "test": ["test/0000.csv"]}),
        (["train.csv", ".train.csv", "notes.csv", "train_and_test.csv"], {"train": ["train.csv"]}),
    ],
)  # fmt: skip
def test_files_of_each_split(
    tmp_path: Path, names: list[str], expected: dict[str, list[str]]
) -> None:
    for name in names:
        csv(tmp_path / name)
    assert found(tmp_path) == expected


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["train.csv", "train.tsv"], "two candidates for train, train.csv and train.tsv"),
        (["train_a.csv", "train_b.csv"], "two candidates for train, train_a.csv and train_b.csv"),
        (["test.csv"], "has no train file"),
        (["raw/train.csv", "simple/train.csv"], "several data sets: give one of raw, simple"),
        (["train-00000-of-00003.csv", "train-00002-of-00003.csv"],
         "train: of 3 shards, 1 are missing (00001)"),
    ],
)  # fmt: skip
def test_a_folder_that_is_not_clear_is_refused(
    tmp_path: Path, names: list[str], expected: str
) -> None:
    for name in names:
        csv(tmp_path / name)
    with pytest.raises(DataError) as caught:
        split_files(tmp_path)
    assert expected in str(caught.value)


def test_shards_are_joined_in_order_and_errors_name_the_shard(tmp_path: Path) -> None:
    csv(tmp_path / "train-00000-of-00002.csv", 20)
    second = csv(tmp_path / "train-00001-of-00002.csv", 20, 20)
    csv(tmp_path / "dev.csv", 4, 90)
    data = load_dataset(DataConfig(str(tmp_path)))
    assert data.train.texts == tuple(f"text {i}" for i in range(40))

    second.write_text("text,label\na,joy\nb,joy,fear\n")
    with pytest.raises(DataError, match=r"train-00001-of-00002\.csv, line 3: "):
        load_dataset(DataConfig(str(tmp_path)))
    second.write_text("text,mood\na,joy\n")
    with pytest.raises(DataError, match=r"00001-of-00002\.csv has the columns text, mood, but"):
        load_dataset(DataConfig(str(tmp_path)))


def test_one_shard_alone_is_read_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = csv(tmp_path / "train-00000-of-00002.csv")
    load_dataset(DataConfig(str(path)))
    assert "is one of 2 shards: give its folder to read all of them" in caplog.text


@pytest.mark.parametrize("as_dict", [True, False])
def test_a_data_set_saved_to_disk(tmp_path: Path, as_dict: bool) -> None:
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["sad", "glad"])}
    )
    texts = [f"text {i}" for i in range(60)]
    data = datasets.Dataset.from_dict({"text": texts, "label": [0, 1, 1] * 20}, features)
    if as_dict:
        splits = datasets.DatasetDict({"train": data.select(range(40)), "test": data.select([50])})
        splits.save_to_disk(tmp_path / "saved", num_shards={"train": 2, "test": 1})
    else:
        data.save_to_disk(tmp_path / "saved", num_shards=2)

    loaded = load_dataset(DataConfig(str(tmp_path / "saved")))

    assert loaded.labels == ("sad", "glad")
    held = [*loaded.train.texts, *loaded.validation.texts]
    assert sorted(held) == sorted(texts[:40] if as_dict else texts)
    names = [loaded.labels[label] for label in loaded.train.labels]
    expected = {text: ("sad", "glad", "glad")[i % 3] for i, text in enumerate(texts)}
    assert names == [expected[text] for text in loaded.train.texts]
    assert (loaded.test is not None) == as_dict


def test_a_damaged_state_of_a_saved_data_set_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("[]")
    with pytest.raises(DataError, match=r"state\.json cannot be read"):
        split_files(tmp_path)


def test_names_of_the_schema_are_those_of_the_ids(tmp_path: Path) -> None:
    info = '{"info": {"features": {"label": {"names": ["sad", "glad"], "_type": "ClassLabel"}}}}'
    table = pa.table({"text": [f"text {i}" for i in range(40)], "label": [0, 1] * 20})
    pq.write_table(table.replace_schema_metadata({"huggingface": info}), tmp_path / "a.parquet")
    assert load_dataset(DataConfig(str(tmp_path / "a.parquet"))).labels == ("sad", "glad")
    (tmp_path / "labels.txt").write_text("low\nhigh\n")
    assert load_dataset(DataConfig(str(tmp_path / "a.parquet"))).labels == ("low", "high")
    flags = DataConfig(str(tmp_path / "a.parquet"), labels="no,yes")
    assert load_dataset(flags).labels == ("no", "yes")


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        ("joy,what a bright day\nfear,no\n", "if that line is a row, use --no_header"),
        ("text;label\na;joy\nb\n", "or separate columns with --delimiter"),
        ("v1,v2\na,joy\n", "choose one with --text_column"),
    ],
)
def test_a_missing_text_column_comes_with_a_hint(tmp_path: Path, content: str, hint: str) -> None:
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(DataError, match="has no column 'text'") as caught:
        load_dataset(DataConfig(str(tmp_path / "a.csv")))
    assert str(caught.value).endswith(hint)
