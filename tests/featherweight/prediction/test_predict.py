import csv
import errno
import gzip
import json
import logging
import shutil
import tracemalloc
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featherweight import load, run_inference
from featherweight.classifier import Batch, FloatArray
from featherweight.errors import DataError, UsageError, WeightsError
from featherweight.prediction.predict import PredictConfig, predict, predict_file, predictions_path
from featherweight.run import MODEL
from tests.helpers.stub_classifier import StubClassifier

TEXTS = ["i am so happy", "i cried all night", "furious with the bank", "zzzz"]
COLUMNS = ["text", "predicted_label", "predicted_emotion", "confidence"]


class FirstLetter(StubClassifier):
    """Predicts 1 for a text that begins with "y", else 0, with a confidence of 3/4."""

    labels = ("no", "yes")

    def __init__(self) -> None:
        self.largest_batch = 0

    def encode(self, texts: Sequence[str]) -> Batch:
        self.largest_batch = max(self.largest_batch, len(texts))
        return [text.startswith("y") for text in texts]

    def forward(self, batch: Batch) -> FloatArray:
        return np.log(np.array([[0.25, 0.75] if yes else [0.75, 0.25] for yes in batch]))


def write_csv(path: Path, rows: Sequence[Sequence[object]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, strict=True))


def predicted(path: Path, output_path: Path, **flags: Any) -> list[int | None]:
    return list(predict_file(FirstLetter(), path, output_path, PredictConfig(**flags)))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def output(tmp_path: Path) -> Path:
    folder = tmp_path / "output"
    folder.mkdir()
    return folder / "predictions.csv"


def test_run_inference_returns_ids_and_writes_next_to_the_input(
    tiny_run: Path, tmp_path: Path
) -> None:
    path = write_csv(tmp_path / "tweets.csv", [["text"], *[[text] for text in TEXTS]])
    ids = run_inference(tiny_run, path)

    classifier = load(tiny_run)
    rows = read_csv(tmp_path / "tweets_predictions.csv")
    assert names(tmp_path) == ["tweets.csv", "tweets_predictions.csv"]
    assert list(rows[0]) == COLUMNS
    assert [row["text"] for row in rows] == TEXTS
    assert [int(row["predicted_label"]) for row in rows] == ids
    assert [row["predicted_emotion"] for row in rows] == classifier.predict(TEXTS)
    assert all(type(label) is int for label in ids)
    expected = classifier.predict_proba(TEXTS).max(axis=1)
    assert [float(row["confidence"]) for row in rows] == pytest.approx(expected, abs=1e-5)


def test_run_inference_takes_strings_and_a_portable_file(tiny_run: Path, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "tweets.csv", [["text"], ["hi"], ["so sad"]])
    from_file = run_inference(str(tiny_run / MODEL), str(path))
    assert from_file == run_inference(tiny_run, path)


def test_run_inference_refuses_missing_weights_and_writes_nothing(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "tweets.csv", [["text"], ["hi"]])
    with pytest.raises(WeightsError):
        run_inference(tmp_path / "nowhere", path)
    assert names(tmp_path) == ["tweets.csv"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tweets.csv", "tweets_predictions.csv"),
        ("tweets.csv.gz", "tweets_predictions.csv"),
        ("tweets.jsonl", "tweets_predictions.csv"),
        ("tweets.2024.parquet", "tweets.2024_predictions.csv"),
    ],
)
def test_default_output_path(name: str, expected: str) -> None:
    assert predictions_path(Path("folder") / name) == Path("folder") / expected


def test_every_column_of_the_input_is_kept(tmp_path: Path, output: Path) -> None:
    rows = [["id", "text", "user", "score"], ["007", "yes, sir", "@ann", "-1.5"], [8, "no", "", ""]]
    ids = predicted(write_csv(tmp_path / "in.csv", rows), output, raw=True)
    assert ids == [1, 0]
    assert output.read_text(encoding="utf-8").splitlines() == [
        "text,predicted_label,predicted_name,confidence,id,user,score",
        '"yes, sir",1,yes,0.750000,007,@ann,-1.5',
        "no,0,no,0.750000,8,,",
    ]


def test_formulas_are_made_safe_unless_raw_and_names_of_columns_never_change(
    tmp_path: Path, output: Path
) -> None:
    path = write_csv(tmp_path / "in.csv", [["text", "=id"], ["=1+1", "@ann"], ["-2", "ok"]])
    predicted(path, output)
    safe = read_csv(output)
    assert [row["text"] for row in safe] == ["'=1+1", "-2"]
    assert [row["=id"] for row in safe] == ["'@ann", "ok"]
    predicted(path, output, raw=True)
    raw = read_csv(output)
    assert [(row["text"], row["=id"]) for row in raw] == [("=1+1", "@ann"), ("-2", "ok")]


def test_the_text_column_may_have_another_name(tmp_path: Path, output: Path) -> None:
    path = write_csv(tmp_path / "in.csv", [["text", "tweet"], ["no", "yes"]])
    assert predicted(path, output, text_column="tweet") == [1]
    (row,) = read_csv(output)
    assert row["tweet"] == "yes"
    assert row["text"] == "no"


@pytest.mark.parametrize(
    "text",
    [
        "n",
        "y" * 100_000,
        "yes\nno",
        "yes\r\nno",
        "yes\rno",
        'yes "no"',
        "y, 😂",
        "y\u2028n",
        "  y ",
    ],
    ids=["short", "long", "newline", "crlf", "cr", "quotes", "emoji", "separator", "spaces"],
)
def test_any_text_is_predicted_and_written_unchanged(
    tmp_path: Path, output: Path, text: str
) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text(json.dumps({"text": text, "id": 1}) + "\n", encoding="utf-8")
    assert predicted(path, output) == [int(text.startswith("y"))]
    (row,) = read_csv(output)
    assert row["text"] == text
    assert row["id"] == "1"


def write_as(path: Path, rows: Sequence[dict[str, object]]) -> Path:
    kind = path.name.partition(".")[2]
    if kind.startswith("parquet"):
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
        return path
    if kind.startswith("jsonl"):
        content = "".join(json.dumps(row) + "\n" for row in rows)
    else:
        delimiter = "\t" if kind.startswith("tsv") else ","
        lines = [rows[0].keys(), *(map(str, row.values()) for row in rows)]
        content = "".join(delimiter.join(line) + "\n" for line in lines)
    opened = gzip.open if kind.endswith("gz") else open
    with opened(path, "wt", encoding="utf-8") as file:
        file.write(content)
    return path


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "tsv", "tsv.gz", "jsonl", "jsonl.gz", "parquet"])
def test_every_input_format(tmp_path: Path, output: Path, kind: str) -> None:
    rows = [{"id": number, "text": f"{'yn'[number % 2]} {number}"} for number in range(1_100)]
    ids = predicted(write_as(tmp_path / f"in.{kind}", rows), output)
    assert ids == [1, 0] * 550
    written = read_csv(output)
    assert [row["id"] for row in written] == [str(number) for number in range(1_100)]
    assert [int(row["predicted_label"]) for row in written] == ids


def test_objects_without_every_key_get_empty_cells(tmp_path: Path, output: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"text": "yes", "id": 1}\n{"text": "no"}\n{"id": 3, "text": "y"}\n')
    assert predicted(path, output) == [1, 0, 1]
    assert [row["id"] for row in read_csv(output)] == ["1", "", "3"]


def test_a_file_without_rows_gives_only_a_header(tmp_path: Path, output: Path) -> None:
    assert predicted(write_csv(tmp_path / "in.csv", [["text", "id"]]), output) == []
    assert output.read_text() == "text,predicted_label,predicted_name,confidence,id\n"


def test_an_existing_output_is_replaced_only_at_the_end(tmp_path: Path, output: Path) -> None:
    output.write_text("old")
    path = write_csv(tmp_path / "in.csv", [["text"], *[["yes"]] * 1_500])
    ids = predict_file(FirstLetter(), path, output)
    next(ids)
    assert output.read_text() == "old"
    deque(ids, maxlen=0)
    assert len(read_csv(output)) == 1_500
    assert names(output.parent) == [output.name]


@pytest.mark.parametrize(("broken", "existing"), [(b"\xff,8", False), (b"\xff,8", True)], ids=str)
def test_a_file_that_cannot_be_read_on_leaves_no_output(
    tmp_path: Path, output: Path, broken: bytes, existing: bool
) -> None:
    if existing:
        output.write_text("old")
    path = tmp_path / "in.csv"
    path.write_bytes(b"text,id\n" + b"yes,1\n" * 1_500 + broken + b"\n" + b"yes,1\n" * 1_500)
    with pytest.raises(DataError, match="line 1502"):
        predicted(path, output)
    assert names(output.parent) == ([output.name] if existing else [])
    assert not existing or output.read_text() == "old"


def test_an_abandoned_iterator_leaves_no_output(tmp_path: Path, output: Path) -> None:
    path = write_csv(tmp_path / "in.csv", [["text"], *[["yes"]] * 1_500])
    ids: Iterator[int | None] = predict_file(FirstLetter(), path, output)
    next(ids)
    assert names(output.parent) == [".predictions.csv.lock", "predictions.csv.part"]
    ids.close()  # type: ignore[attr-defined]
    assert names(output.parent) == []


def test_a_classifier_that_fails_leaves_no_output(tmp_path: Path, output: Path) -> None:
    class Failing(FirstLetter):
        def forward(self, batch: Batch) -> FloatArray:
            raise OSError(errno.ENOSPC, "No space left on device")

    path = write_csv(tmp_path / "in.csv", [["text"], ["yes"]])
    with pytest.raises(OSError, match="No space"):
        list(predict_file(Failing(), path, output))
    assert names(output.parent) == []


@pytest.mark.parametrize("through", ["same", "dots", "link"])
def test_the_input_is_never_the_output(tmp_path: Path, output: Path, through: str) -> None:
    path = write_csv(tmp_path / "in.csv", [["text"], ["yes"]])
    target = {"same": path, "dots": output.parent / ".." / "in.csv", "link": tmp_path / "link.csv"}
    (tmp_path / "link.csv").symlink_to(path)
    before = path.read_bytes()
    with pytest.raises(UsageError, match="is the input file"):
        predicted(path, target[through])
    assert path.read_bytes() == before


def test_a_missing_text_column_is_named_with_its_flag(tmp_path: Path, output: Path) -> None:
    path = write_csv(tmp_path / "in.csv", [["tweet"], ["yes"]])
    with pytest.raises(DataError, match="--text_column"):
        predicted(path, output)
    assert names(output.parent) == []


def test_a_missing_output_folder_is_refused(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "in.csv", [["text"], ["yes"]])
    with pytest.raises(UsageError, match="--output_path"):
        predicted(path, tmp_path / "nowhere" / "out.csv")


def test_a_folder_as_output_is_refused(tmp_path: Path, output: Path) -> None:
    path = write_csv(tmp_path / "in.csv", [["text"], ["yes"]])
    with pytest.raises(UsageError, match="--output_path"):
        predicted(path, output.parent)
    assert names(tmp_path) == ["in.csv", "output"]


def peak_bytes(path: Path, output: Path) -> int:
    """Returns the peak memory of predicting a file."""
    classifier = FirstLetter()
    tracemalloc.start()
    try:
        deque(predict_file(classifier, path, output), maxlen=0)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        assert classifier.largest_batch <= 1_024


def test_ten_times_the_rows_take_no_more_memory(tmp_path: Path, output: Path) -> None:
    path = tmp_path / "in.csv"
    row = f"yes it is,{'n' * 189}\n"
    path.write_text("text,note\n" + row * 1_500)
    peak_bytes(path, output)  # the first call also imports
    small = peak_bytes(path, output)
    path.write_text("text,note\n" + row * 15_000)
    # A third of the bytes of the additional rows; a slow machine may also write a progress record
    # in only one of the calls.
    assert peak_bytes(path, output) - small < 1_000_000


def test_predicting_texts_prints_a_table(
    tiny_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predict(PredictConfig(texts=["so happy", ""], weights=tiny_run, device="cpu"))
    header, _, first, second, unknown = capsys.readouterr().out.splitlines()
    assert header.split() == COLUMNS
    assert first.startswith("so happy")
    assert len(second.split()) == 3
    assert unknown.startswith("no known word in text 2:")


def test_texts_that_look_like_numbers_are_printed_unchanged(
    tiny_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = ["007", "1.50", "1e3", "True", "None", "nan"]
    predict(PredictConfig(texts=texts, weights=tiny_run, device="cpu"))
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:8]] == texts


def test_predicting_texts_prints_json(tiny_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = ["so happy 😂", "", "x" * 100_000, '=1+1 "quoted"\n']
    predict(PredictConfig(texts=texts, weights=tiny_run, device="cpu", json=True))
    rows = json.loads(capsys.readouterr().out)
    assert [list(row) for row in rows] == [COLUMNS] * 4
    assert [row["text"] for row in rows] == texts
    classifier = load(tiny_run)
    assert [row["predicted_emotion"] for row in rows] == classifier.predict(texts)
    for row in rows:
        assert classifier.labels[row["predicted_label"]] == row["predicted_emotion"]
        assert 1 / 3 <= row["confidence"] <= 1


def test_predicting_a_file_prints_nothing_on_stdout(
    tiny_run: Path, tmp_path: Path, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_csv(tmp_path / "in.csv", [["text"], ["yes"]])
    predict(PredictConfig(csv=path, output_path=output, weights=tiny_run, device="cpu"))
    assert capsys.readouterr().out == ""
    assert len(read_csv(output)) == 1


def test_the_newest_run_is_used_by_default(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    run = shutil.copytree(tiny_run, tmp_path / "outputs" / "mine")
    caplog.set_level(logging.INFO)
    predict(PredictConfig(texts=["hi"], output_dir=tmp_path / "outputs", device="cpu"))
    assert "hi" in capsys.readouterr().out
    score = json.loads((run / "evaluation.json").read_text())["macro_f1"]
    line = f"weights: {run} (trained on moods, validation macro-F1 {score:.2f})"
    assert caplog.messages == [line]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"texts": ["hi"], "csv": Path("in.csv")},
        {"texts": ["hi"], "output_path": Path("out.csv")},
    ],
)
def test_conflicting_flags_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        predict(PredictConfig(**fields))
