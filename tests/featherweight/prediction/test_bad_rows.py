"""Rows without a text to classify: blank, left out, or the end; none ends a large file otherwise.

Every policy is tested through `predict_file`, on files of several batches.
"""

import csv
import gzip
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featherweight import run_inference
from featherweight.classifier import Batch, FloatArray
from featherweight.errors import DataError
from featherweight.prediction import resumable_file
from featherweight.prediction.bad_rows import BadRowError, BadRows, Row
from featherweight.prediction.config import PredictConfig
from featherweight.prediction.streaming import predict_file
from tests.helpers.command_line import Capture, call, error_line, names
from tests.helpers.stub_classifier import StubClassifier

MISSING = ["", "  ", "None", "NULL", "null", "nan", "NaN", "<NA>", "#N/A"]
WORDS = ["none", "NA", "N/A", "n/a", "Nan", "nil", "0"]  # that people write


class AlwaysJoy(StubClassifier):
    labels = ("joy", "anger")

    def encode(self, texts: Sequence[str]) -> Batch:
        assert all(text.strip() for text in texts)
        return texts

    def forward(self, batch: Batch) -> FloatArray:
        return np.tile(np.log([0.75, 0.25]), (len(batch), 1))


def predicted(path: Path, output: Path, **flags: Any) -> list[int | None]:
    return list(predict_file(AlwaysJoy(), path, output, PredictConfig(**flags)))


def rows_of(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out.csv"


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """JSON lines with every kind of row that cannot be classified between rows that can."""
    path = tmp_path / "in.jsonl"
    bad = [
        '{"id": 1, "text": null}', '{"id": 2}', '{"id": 3, "text": NaN}', '{"id": 4, "text": 5}',
        '{"id": 5, "text": ["so"]}', '{"id": 6, "text": ""}', '{"id": 7', "[8]",
        '{"id": 9, "text": "\\ud83d"}',
    ]  # fmt: skip
    good = '{"id": 0, "text": "so happy"}'
    path.write_text("\n".join([good, *bad, good]) + "\n")
    return path


def test_every_kind_of_missing_text_is_blank_and_words_are_not(
    tmp_path: Path, output: Path
) -> None:
    path = tmp_path / "in.csv"
    texts = [*MISSING, *WORDS]
    path.write_text("id,text\n" + "".join(f"{i},{text}\n" for i, text in enumerate(texts)))
    ids = predicted(path, output)
    assert ids == [None] * len(MISSING) + [0] * len(WORDS)
    rows = rows_of(output)
    assert [row["text"] for row in rows] == texts
    assert [row["id"] for row in rows] == [str(i) for i in range(len(texts))]
    for row in rows[: len(MISSING)]:
        assert {row[column] for column in list(row)[1:4]} == {""}
    assert rows[-1]["confidence"] == "0.750000"


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_unreadable_and_odd_rows_stay_blank_in_their_place(
    tmp_path: Path, mixed: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    output = tmp_path / f"out.{kind}"
    assert predicted(mixed, output) == [0, *[None] * 9, 0]
    rows = rows_of(output)
    blank = None if kind == "jsonl" else ""
    for row in rows[1:-1]:
        answer = [row[name] for name in ("predicted_label", "predicted_emotion", "confidence")]
        assert answer == [blank] * 3
    if kind == "jsonl":
        assert [row.get("id") for row in rows] == [0, 1, 2, 3, 4, 5, 6, None, None, 9, 0]
        assert rows[3]["text"] is None  # NaN is no JSON
        assert rows[5]["text"] == ["so"]
        assert "NaN" not in output.read_text()
    first, *lines = caplog.messages
    assert first == "9 bad rows, without a prediction:"
    assert [line.partition(", ")[2].partition(":")[0] for line in lines] == [
        f"line {number}" for number in range(2, 11)
    ]
    assert lines[5].endswith("'text' is empty")


def test_ragged_rows_of_a_csv_file_are_blank(tmp_path: Path, output: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("id,text\n1,so happy\n2,it rained, and we cried\n3\n4,so sad\n")
    assert predicted(path, output) == [0, None, None, 0]
    assert [(row["id"], row["text"]) for row in rows_of(output)] == [
        ("1", "so happy"),
        ("2", "it rained"),
        ("3", ""),
        ("4", "so sad"),
    ]


def test_parquet_has_nulls_in_the_columns_of_a_blank_row(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path, output = tmp_path / "in.parquet", tmp_path / "out.parquet"
    parquet.write_table(pyarrow.table({"text": ["so happy", None, ""]}), path)
    assert predicted(path, output, known_words=True) == [0, None, None]
    table = parquet.read_table(output)
    assert table["text"].to_pylist() == ["so happy", None, ""]
    for column in ("predicted_label", "predicted_emotion", "confidence", "known_words"):
        assert table[column].is_null().to_pylist() == [False, True, True]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_skipped_rows_are_left_out_and_counted(
    tmp_path: Path, mixed: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    output = tmp_path / f"out.{kind}"
    assert predicted(mixed, output, bad_rows="skip") == [0, 0]
    assert [int(row["id"]) for row in rows_of(output)] == [0, 0]
    assert caplog.messages[0] == "9 bad rows, left out:"


def test_at_most_ten_rows_are_listed(
    tmp_path: Path, output: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "in.csv"
    path.write_text("id,text\n" + "1,\n" * 1_500)
    assert predicted(path, output) == [None] * 1_500
    first, *_, last = caplog.messages
    assert first == "1,500 bad rows, without a prediction:"
    assert last == "- and 1,490 more"
    assert len(caplog.messages) == 12


def test_a_good_file_reports_nothing(
    tmp_path: Path, output: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "in.csv"
    path.write_text("text\nso happy\n")
    assert predicted(path, output) == [0]
    assert caplog.messages == []


@pytest.mark.parametrize("record_seconds", [0, 1_000])
@pytest.mark.parametrize("then", ["blank", "skip"])
def test_a_bad_row_at_the_end_of_many_batches_loses_nothing(
    tmp_path: Path,
    output: Path,
    then: str,
    record_seconds: float,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resumable_file, "_RECORD_SECONDS", record_seconds)
    caplog.set_level(logging.INFO)
    path = tmp_path / "in.csv"
    path.write_text("id,text\n" + "".join(f"{i},so happy\n" for i in range(5_000)) + "x,\n7,sad\n")
    with pytest.raises(BadRowError, match=r"line 5002: 'text' is empty .*--bad_rows blank"):
        predicted(path, output, bad_rows="fail")
    assert caplog.messages == [
        f"5000 rows are saved; continue with: featherweight predict --csv {path} "
        f"--output_path {output} --resume"
    ]
    assert names(tmp_path) == ["in.csv", "out.csv.part", "out.csv.progress"]

    resumed = predicted(path, output, bad_rows=then, resume=True)
    assert resumed == ([None, 0] if then == "blank" else [0])
    assert names(tmp_path) == ["in.csv", "out.csv"]
    predicted(path, tmp_path / "whole.csv", bad_rows=then)
    assert output.read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_a_resumed_output_with_skipped_rows_equals_an_uninterrupted_one(
    tmp_path: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resumable_file, "_RECORD_SECONDS", 0)
    path = tmp_path / "in.csv"
    texts = ["so happy", "", "sad"]
    path.write_text("id,text\n" + "".join(f"{i},{texts[i % 3]}\n" for i in range(5_000)))
    ids = predict_file(AlwaysJoy(), path, output, PredictConfig(bad_rows="skip"))
    for _ in range(1_500):
        next(ids)
    ids.close()  # type: ignore[attr-defined]
    assert predicted(path, output, bad_rows="skip", resume=True) != []
    predicted(path, tmp_path / "whole.csv", bad_rows="skip")
    assert output.read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_a_bad_first_row_leaves_nothing_to_resume(tmp_path: Path, output: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("id,text\n1,\n2,so happy\n")
    with pytest.raises(BadRowError, match=r"in\.csv, line 2: 'text' is empty"):
        predicted(path, output, bad_rows="fail")
    assert names(tmp_path) == ["in.csv"]


def test_parquet_output_is_not_kept_by_a_failure(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / "in.csv"
    path.write_text("id,text\n1,so happy\n2,\n")
    with pytest.raises(BadRowError, match="line 3"):
        predicted(path, tmp_path / "out.parquet", bad_rows="fail")
    assert names(tmp_path) == ["in.csv"]


def test_a_file_of_bad_rows_only(tmp_path: Path, output: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("text,id\n,1\nnan,2\n")
    assert predicted(path, output) == [None, None]
    assert output.read_text().splitlines()[1:] == [",,,,1", "nan,,,,2"]
    assert predicted(path, output, bad_rows="skip") == []
    assert len(output.read_text().splitlines()) == 1


def test_run_inference_has_none_for_a_row_without_a_text(tiny_run: Path, tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("text,id\nso happy,1\n,2\nso sad,3\n")
    first, second, third = run_inference(tiny_run, path)
    assert second is None
    assert {type(first), type(third)} == {int}
    assert [row["predicted_label"] for row in rows_of(tmp_path / "in_predictions.csv")] == [
        str(first),
        "",
        str(third),
    ]


def test_the_command_counts_predictions_and_lists_bad_rows_on_stderr(
    tiny_run: Path, tmp_path: Path, capsys: Capture, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "in.csv"
    path.write_text("text,id\nso happy,1\nNULL,2\nso sad,3\n")
    assert call("predict", "--csv", path, "--weights", tiny_run) == 0
    assert capsys.readouterr().out == ""
    assert caplog.messages == [
        "1 bad row, without a prediction:",
        f"- {path}, line 3: 'text' is 'NULL', which stands for no text",
        f"2 rows predicted: {tmp_path / 'in_predictions.csv'}",
    ]
    flags = ["--csv", path, "--weights", tiny_run, "--bad_rows", "fail"]
    assert call("predict", *flags) == 2
    assert caplog.messages[-1].startswith("1 rows are saved")
    assert error_line(capsys).startswith(f"featherweight: {path}, line 3: ")
    assert call("predict", *flags[:-1], "skip", "--resume") == 0
    assert [row["id"] for row in rows_of(tmp_path / "in_predictions.csv")] == ["1", "3"]


def test_a_damaged_file_is_no_bad_row(tmp_path: Path, output: Path) -> None:
    path = tmp_path / "in.csv.gz"
    path.write_bytes(gzip.compress(b"text,id\n" + b"so happy,1\n" * 9)[:-9])
    with pytest.raises(DataError, match="corrupt") as caught:
        predicted(path, output)
    assert not isinstance(caught.value, BadRowError)
    assert names(tmp_path) == ["in.csv.gz"]


def test_counts_of_parts_add_up() -> None:
    whole, part = BadRows("blank"), BadRows("blank")
    rows = iter([Row("hi", {}), *[Row(None, {}, f"line {i}") for i in range(8)]])
    assert [(len(kept), num_read) for kept, num_read in part.batches(rows, 5)] == [(5, 5), (4, 4)]
    whole.add_all(part)
    whole.add_all(part)
    assert whole.count == 16
    assert whole.listed == [f"line {i % 8}" for i in range(10)]
