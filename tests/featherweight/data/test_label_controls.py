"""Control characters in labels, from wherever the labels come."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featherweight.data.dataset import DataConfig, load_dataset
from featherweight.errors import DataError, UsageError
from featherweight.reports.terminal import controls_terminal
from tests.helpers.data_files import Pairs, load, write

CONTROLS = ["a\0b", "\x1b[31mred", "a\tb", "a\nb", "a\x85b", "a\u2028b", "a\u202eb", "a\x7fb"]


@pytest.mark.parametrize("name", CONTROLS)
@pytest.mark.parametrize("place", ["column", "--labels", "labels.txt", "schema"])
def test_a_control_character_in_a_label_is_refused(tmp_path: Path, place: str, name: str) -> None:
    labels = ("joy", name)
    pairs: Pairs = [(f"t{index}", labels[index % 2]) for index in range(20)]
    numbers: Pairs = [(f"t{index}", index % 2) for index in range(20)]
    path = write(tmp_path / "train.jsonl", pairs if place == "column" else numbers)
    flags = {"labels": ",".join(labels)} if place == "--labels" else {}
    if place == "labels.txt":
        (tmp_path / "labels.txt").write_text("\n".join(labels), encoding="utf-8")
    if place == "schema":
        path = tmp_path / "train.parquet"
        feature = {"_type": "ClassLabel", "names": labels}
        info = json.dumps({"info": {"features": {"label": feature}}})
        texts, ids = zip(*numbers, strict=True)
        table = pa.table({"text": texts, "label": ids})
        pq.write_table(table.replace_schema_metadata({"huggingface": info}), path)
    kind = UsageError if place == "--labels" else DataError
    if (place, name) == ("labels.txt", "a\nb"):  # three names, and no control character
        assert load(path).labels == ("joy", "a", "b")
        return
    with pytest.raises(kind) as caught:
        load_dataset(DataConfig(data=str(path), **flags))
    error = str(caught.value)
    assert f"the label {name!r} contains a control character: rename it" in error
    assert not controls_terminal(error)


def test_white_space_around_a_label_is_stripped(tmp_path: Path) -> None:
    path = write(tmp_path / "train.jsonl", [("a", " joy\t"), ("b", "\nfear "), ("c", "joy")] * 5)
    assert load(path).labels == ("fear", "joy")
    (tmp_path / "labels.txt").write_bytes(b"\xef\xbb\xbf fear\t\r\njoy \r\n\r\n")
    assert load(path).labels == ("fear", "joy")


def test_a_model_with_a_control_character_in_a_label_still_reads_its_data(tmp_path: Path) -> None:
    path = write(tmp_path / "train.jsonl", [("a", "joy"), ("b", "a\tb"), ("c", "joy")] * 5)
    assert load(path, label_names=("joy", "a\tb")).labels == ("joy", "a\tb")
