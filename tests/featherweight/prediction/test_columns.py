"""Names of the added columns: of emotions or not, with a prefix, beside columns of the input."""

import csv
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featherweight.classifier import Batch, FloatArray
from featherweight.errors import UsageError
from featherweight.prediction.columns import first_free, free_columns, prediction_columns
from featherweight.prediction.config import PredictConfig
from featherweight.prediction.predict import predict
from featherweight.prediction.streaming import predict_file
from tests.helpers.stub_classifier import StubClassifier

ADDED = ["predicted_label", "predicted_emotion", "confidence"]


class AlwaysJoy(StubClassifier):
    labels = ("joy", "anger")

    def encode(self, texts: Sequence[str]) -> Batch:
        return texts

    def forward(self, batch: Batch) -> FloatArray:
        return np.tile(np.log([0.75, 0.25]), (len(batch), 1))

    def num_tokens(self, batch: Batch) -> int:
        return sum(len(text.split()) for text in batch)


def predicted(path: Path, output: Path, **flags: Any) -> Path:
    for _ in predict_file(AlwaysJoy(), path, output, PredictConfig(**flags)):
        pass
    return output


def table(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


@pytest.mark.parametrize(
    ("labels", "name"),
    [
        (("sadness", "joy", "love", "anger", "fear", "surprise"), "predicted_emotion"),
        (("Anger", "Disgust", "Fear", "Happiness", "Sadness", "Surprise"), "predicted_emotion"),
        (("admiration", "remorse", "neutral"), "predicted_emotion"),
        (("ham", "spam"), "predicted_name"),
        (("positive", "neutral", "negative"), "predicted_name"),
        (("joy", "spam"), "predicted_name"),
        (("0", "1"), "predicted_name"),
    ],
)
def test_only_emotions_are_called_emotions(labels: tuple[str, ...], name: str) -> None:
    assert prediction_columns(labels) == ("predicted_label", name, "confidence")
    assert prediction_columns(labels, known_words=True)[3:] == ("known_words",)


def test_taken_names_get_the_first_free_number() -> None:
    assert first_free("a", ("b",)) == "a"
    assert first_free("a", ("a", "a_2", "a_4")) == "a_3"


def test_a_taken_name_gets_a_number_and_one_line_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path = tmp_path / "in.csv"
    path.write_text("text,confidence\nso happy,0.9\n")
    assert table(predicted(path, tmp_path / "out.csv")) == [
        ["text", "predicted_label", "predicted_emotion", "confidence_2", "confidence"],
        ["so happy", "0", "joy", "0.750000", "0.9"],
    ]
    assert caplog.messages == [
        f"{path} already has confidence: what is predicted is in confidence_2"
    ]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_an_output_can_be_the_input_again_and_again(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "in.csv"
    path.write_text("text\nso happy\n")
    once = predicted(path, tmp_path / f"once.{kind}")
    twice = predicted(once, tmp_path / f"twice.{kind}")
    thrice = predicted(twice, tmp_path / f"thrice.{kind}", min_confidence=0.9)
    if kind == "csv":
        header, cells = table(thrice)
        row: dict[str, Any] = dict(zip(header, cells, strict=True))
    elif kind == "jsonl":
        row = json.loads(thrice.read_text())
    else:
        (row,) = parquet.read_table(thrice).to_pylist()
    assert sorted(row) == sorted(
        ["text", *(f"{column}{number}" for column in ADDED for number in ("", "_2", "_3"))]
    )
    assert float(row["confidence"]) == float(row["confidence_3"]) == 0.75
    assert (row["predicted_emotion_2"], row["predicted_emotion_3"]) == ("joy", "")


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_prefix_is_put_before_each_name(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "in.csv"
    path.write_text("text,confidence\nso happy,1\n")
    flags: dict[str, Any] = {"answer_prefix": "my ", "known_words": True}
    output = predicted(path, tmp_path / f"out.{kind}", **flags)
    if kind == "csv":
        columns = table(output)[0]
    elif kind == "jsonl":
        columns = list(json.loads(output.read_text()))
    else:
        columns = parquet.read_table(output).column_names
    added = [f"my {column}" for column in (*ADDED, "known_words")]
    assert sorted(columns) == sorted(["text", "confidence", *added])


def test_a_prefix_that_does_not_free_the_names_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("text,my_confidence\nso happy,1\n")
    with pytest.raises(UsageError, match=r"--answer_prefix my_: .*in\.csv already has my_conf"):
        predicted(path, tmp_path / "out.csv", answer_prefix="my_")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv"]
    assert free_columns(["confidence"], ["my_confidence"], "", "x") == ("confidence",)


def test_known_words_is_a_column_of_files(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("text,id\nso happy today,1\n,2\n")
    header, first, second = table(predicted(path, tmp_path / "out.csv", known_words=True))
    assert header == ["text", *ADDED, "known_words", "id"]
    assert first == ["so happy today", "0", "joy", "0.750000", "3", "1"]
    assert second == ["", "", "", "", "", "2"]


def test_texts_are_tokenized_once_without_the_column(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "in.csv"
    path.write_text("text\nso happy\n")
    monkeypatch.setattr(AlwaysJoy, "known_words", lambda *_: pytest.fail("counted"))
    assert len(table(predicted(path, tmp_path / "out.csv"))) == 2


@pytest.mark.parametrize("json_output", [False, True])
def test_known_words_and_a_prefix_are_printed(
    tiny_run: Path, capsys: pytest.CaptureFixture[str], json_output: bool
) -> None:
    texts = ["so happy", "", "zzzz qqqq"]
    flags: dict[str, Any] = {"known_words": True, "answer_prefix": "a_", "json": json_output}
    predict(PredictConfig(texts=texts, weights=tiny_run, device="cpu", **flags))
    out = capsys.readouterr().out
    if json_output:
        assert [row["a_known_words"] for row in json.loads(out)] == [2, 0, 0]
        return
    header, _, *rows, unknown = out.splitlines()
    assert header.split() == ["text", *(f"a_{column}" for column in (*ADDED, "known_words"))]
    assert [row.split()[-1] for row in rows] == ["2", "0", "0"]
    assert unknown.startswith("no known word in text 2, 3:")


def test_resuming_with_other_columns_or_another_dialect_is_refused(tmp_path: Path) -> None:
    path, output = tmp_path / "in.csv", tmp_path / "out.csv"
    path.write_text("id,text\n" + "1,so happy\n" * 2_000 + "2,\n")
    with pytest.raises(UsageError, match="was not interrupted"):
        predicted(path, output, resume=True)
    from featherweight.prediction.bad_rows import BadRowError

    with pytest.raises(BadRowError):
        predicted(path, output, bad_rows="fail", answer_prefix="a_")
    with pytest.raises(UsageError, match="--answer_prefix changed"):
        predicted(path, output, resume=True)
    with pytest.raises(UsageError, match="--known_words and --encoding changed"):
        predicted(
            path, output, resume=True, answer_prefix="a_", known_words=True, encoding="cp1252"
        )
    assert len(table(predicted(path, output, resume=True, answer_prefix="a_"))) == 2_002


@pytest.mark.parametrize("prefix", ["=", "@x", " +", "-5", "\u200b=", "＝", "a\x1b", "a\n"])
def test_a_prefix_that_makes_a_formula_of_a_name_is_refused(prefix: str) -> None:
    with pytest.raises(UsageError, match="--answer_prefix"):
        free_columns(("confidence",), (), prefix, "in.csv")
