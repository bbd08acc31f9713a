import csv
import json
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featherweight.classifier import Batch, FloatArray
from featherweight.errors import UsageError
from featherweight.prediction.config import PredictConfig
from featherweight.prediction.predict import predict
from featherweight.prediction.streaming import predict_file
from tests.helpers.stub_classifier import StubClassifier


class Length(StubClassifier):
    """Predicts "long" with a probability that grows with the length of a text."""

    labels = ("short", "long")

    def encode(self, texts: Sequence[str]) -> Batch:
        return texts

    def forward(self, batch: Batch) -> FloatArray:
        share = np.array([min(len(text), 9) / 10 for text in batch])
        return np.log(np.stack([1 - share, share + 1e-12], axis=1))


def predicted(path: Path, output: Path, **flags: Any) -> list[int | None]:
    return list(predict_file(Length(), path, output, PredictConfig(**flags)))


def objects(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_json_lines_keep_each_value_and_its_type(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"id": 7, "text": "=long 😂\n\u2028", "tags": ["a", None], "score": -1.5},
        {"text": "hi", "late": {"x": True}},
    ]
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert predicted(path, tmp_path / "out.jsonl") == [1, 0]
    lines = (tmp_path / "out.jsonl").read_bytes().decode().split("\n")
    written = [json.loads(line) for line in lines[:-1]]
    assert [list(each) for each in written] == [
        ["id", "text", "tags", "score", "predicted_label", "predicted_name", "confidence"],
        ["text", "late", "predicted_label", "predicted_name", "confidence"],
    ]
    for each, row in zip(written, rows, strict=True):
        assert row.items() <= each.items()
    assert [each["predicted_label"] for each in written] == [1, 0]
    assert [each["predicted_name"] for each in written] == ["long", "short"]
    assert [each["confidence"] for each in written] == pytest.approx([0.9, 0.8])


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_half_of_a_surrogate_pair_in_another_column(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"text": "hi", "id": "\\ud83d"}\n')
    predicted(path, tmp_path / f"out.{kind}")
    content = (tmp_path / f"out.{kind}").read_text(encoding="utf-8")
    assert "\\ud83d" in content
    if kind == "jsonl":
        assert json.loads(content)["id"] == "\ud83d"


def test_parquet_keeps_the_types_of_its_columns(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {
        "id": pyarrow.array(range(70_000), pyarrow.int32()),
        "text": pyarrow.array(["long text"] * 70_000),
        "day": pyarrow.array([date(2024, 1, 2)] * 69_999 + [None]),
        "nothing": pyarrow.nulls(70_000, pyarrow.list_(pyarrow.float32())),
    }
    path, output = tmp_path / "in.parquet", tmp_path / "out.parquet"
    parquet.write_table(pyarrow.table(columns), path)
    assert predicted(path, output, min_confidence=0.85) == [1] * 70_000
    table = parquet.read_table(output)
    assert table.select(list(columns)).equals(pyarrow.table(columns))
    assert table.column_names[4:] == ["predicted_label", "predicted_name", "confidence"]
    assert table["predicted_label"].to_pylist() == [1] * 70_000
    assert parquet.ParquetFile(output).num_row_groups == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.parquet", "out.parquet"]


def test_every_output_format_has_the_same_predictions(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "in.csv"
    texts = ["y" * (number % 12) for number in range(1_100)]
    path.write_text("text,id\n" + "".join(f"{text},0{len(text)}\n" for text in texts))
    for kind in ("csv", "jsonl", "parquet"):
        predicted(path, tmp_path / f"out.{kind}", min_confidence=0.75)
    from_parquet = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert objects(tmp_path / "out.jsonl") == from_parquet
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row, values in zip(rows, from_parquet, strict=True):
        label, confidence = values["predicted_label"], values["confidence"]
        assert row["predicted_label"] == ("" if label is None else str(label))
        assert row["predicted_name"] == (values["predicted_name"] or "")
        assert row["confidence"] == ("" if confidence is None else f"{confidence:.6f}")
        assert row["id"] == values["id"] == f"0{len(row['text'])}"


def test_a_prediction_below_the_minimum_confidence_is_empty(tmp_path: Path) -> None:
    path, output = tmp_path / "in.csv", tmp_path / "out.csv"
    path.write_text("text\n" + "".join(f"{'y' * length}\n" for length in (1, 2, 3, 4, 6, 7, 8)))
    ids = predicted(path, output, min_confidence=0.7)
    assert ids == [0, 0, 0, 0, 1, 1, 1]
    assert [line.split(",")[1:] for line in output.read_text().splitlines()[1:]] == [
        ["0", "short", "0.900000"],
        ["0", "short", "0.800000"],
        ["0", "short", "0.700000"],
        ["", "", "0.600000"],
        ["", "", "0.600000"],
        ["1", "long", "0.700000"],
        ["1", "long", "0.800000"],
    ]


def test_printed_texts_below_the_minimum_confidence_have_no_label(
    tiny_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags: dict[str, Any] = {"texts": ["so happy"], "weights": tiny_run, "min_confidence": 1.0}
    predict(PredictConfig(**flags))
    assert len(capsys.readouterr().out.splitlines()[2].split()) == 3  # two words, one number
    predict(PredictConfig(**flags, json=True))
    (each,) = json.loads(capsys.readouterr().out)
    assert (each["predicted_label"], each["predicted_emotion"]) == (None, "")
    assert 1 / 3 <= each["confidence"] < 1


def test_a_long_text_takes_one_line_of_the_table(
    tiny_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predict(PredictConfig(texts=["so\nhappy " * 50, "sad"], weights=tiny_run))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert "…" in lines[2]
    assert len({line.rindex(line.split()[-1]) for line in lines}) == 1  # one column below the other


@pytest.mark.parametrize("name", ["out", "out.txt", "out.tsv", "out.csv.gz", "out.xlsx"])
def test_an_unknown_output_format_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "in.csv"
    path.write_text("text\nyes\n")
    with pytest.raises(UsageError, match="--output_path"):
        predicted(path, tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv"]


def test_json_lines_to_parquet_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / "in.jsonl"
    path.write_text('{"text": "yes"}\n')
    with pytest.raises(UsageError, match="declares the types of its columns"):
        predicted(path, tmp_path / "out.parquet")


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"jsonl": Path("-")}, "--csv -"),
        ({"csv": Path("-"), "resume": True}, "--resume: the standard input"),
        ({"csv": Path("in.csv"), "parquet": Path("in.parquet")}, "--csv and --parquet"),
        ({"texts": ["hi"], "jsonl": Path("in.jsonl")}, "either"),
        ({"texts": ["hi"], "resume": True}, "--resume requires"),
        ({"min_confidence": 1.5}, "--min_confidence"),
        ({"min_confidence": -0.1}, "--min_confidence"),
        ({"min_confidence": float("nan")}, "--min_confidence"),
    ],
)
def test_conflicting_flags_are_refused(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        predict(PredictConfig(**fields))


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("flag", ["csv", "jsonl", "parquet"])
def test_each_flag_reads_each_input_format(
    tiny_run: Path, tmp_path: Path, kind: str, flag: str
) -> None:
    path = tmp_path / f"in.{kind}"
    if kind == "parquet":
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pyarrow.table({"text": ["so happy"]}), path)
    else:
        path.write_text("text\nso happy\n" if kind == "csv" else '{"text": "so happy"}\n')
    output = tmp_path / "out.jsonl"
    fields: dict[str, Any] = {flag: path}
    predict(PredictConfig(weights=tiny_run, output_path=output, device="cpu", **fields))
    (each,) = objects(output)
    assert each["text"] == "so happy"
