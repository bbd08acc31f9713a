import gzip
import json
import logging
import os
import shlex
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featherweight.classifier import Batch, Classifier, FloatArray
from featherweight.errors import DataError, UsageError
from featherweight.loading import load
from featherweight.prediction import resumable_file
from featherweight.prediction.config import PredictConfig
from featherweight.prediction.predict import run_inference
from featherweight.prediction.streaming import predict_file
from tests.helpers.command_line import call
from tests.helpers.stub_classifier import StubClassifier

ROWS = 4_500  # five batches


class Longest(StubClassifier):
    """Predicts by the length of a text, and fails before one of the batches."""

    labels = ("short", "long")

    def __init__(self, batches: int = 1_000, error: BaseException | None = None) -> None:
        self.batches = batches
        self.error = error

    def encode(self, texts: Sequence[str]) -> Batch:
        if not self.batches:
            raise self.error or KeyboardInterrupt
        self.batches -= 1
        return np.array([len(text) for text in texts])

    def forward(self, batch: Batch) -> FloatArray:
        return np.stack([np.full(len(batch), 7.0), batch], axis=1)

    def logits(self, texts: Sequence[str], batch_size: int = 256) -> FloatArray:
        return self.forward(self.encode(texts))


@pytest.fixture(autouse=True)
def every_batch_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resumable_file, "_RECORD_SECONDS", 0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "in.csv"
    path.write_text("id,text\n" + "".join(f"{n},{'y' * (1 + n % 11)}\n" for n in range(ROWS)))
    return path


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out.csv"


def predicted(path: Path, output: Path, classifier: Classifier | None = None, **flags: Any) -> int:
    """Returns the number of predicted rows."""
    config = PredictConfig(**flags)
    return sum(1 for _ in predict_file(classifier or Longest(), path, output, config))


def interrupt(path: Path, output: Path, batches: int = 2, **flags: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        predicted(path, output, Longest(batches), **flags)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("batches", [1, 4])
def test_resumed_output_equals_uninterrupted_output(
    tmp_path: Path, path: Path, output: Path, batches: int, caplog: pytest.LogCaptureFixture
) -> None:
    predicted(path, tmp_path / "whole.csv")
    caplog.set_level(logging.INFO)
    interrupt(path, output, batches)
    assert caplog.messages == [
        f"{1_024 * batches} rows are saved; continue with: featherweight predict --csv {path} "
        f"--output_path {output} --resume"
    ]
    assert names(tmp_path) == ["in.csv", "out.csv.part", "out.csv.progress", "whole.csv"]
    assert predicted(path, output, resume=True) == ROWS - 1_024 * batches
    assert output.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert names(tmp_path) == ["in.csv", "out.csv", "whole.csv"]


def test_repeated_interruptions(tmp_path: Path, path: Path, output: Path) -> None:
    predicted(path, tmp_path / "whole.csv")
    interrupt(path, output, 1)
    for _ in range(3):
        interrupt(path, output, 1, resume=True)
    interrupt(path, output, 0, resume=True)  # nothing new, nothing lost
    assert predicted(path, output, resume=True) == ROWS - 4 * 1_024
    assert output.read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_an_existing_output_stays_until_the_new_one_is_complete(path: Path, output: Path) -> None:
    output.write_text("old")
    interrupt(path, output)
    assert output.read_text() == "old"
    predicted(path, output, resume=True)
    assert output.read_text().count("\n") == ROWS + 1


def test_without_resume_it_starts_over(tmp_path: Path, path: Path, output: Path) -> None:
    interrupt(path, output)
    assert predicted(path, output) == ROWS
    assert names(tmp_path) == ["in.csv", "out.csv"]


def test_a_failed_restart_leaves_no_older_record(tmp_path: Path, path: Path, output: Path) -> None:
    interrupt(path, output)
    interrupt(path, output, 0)
    assert names(tmp_path) == ["in.csv"]


def test_a_full_disk_keeps_the_recorded_rows(path: Path, output: Path) -> None:
    full = OSError(28, os.strerror(28))
    with pytest.raises(OSError, match=os.strerror(28)):
        predicted(path, output, Longest(2, full))
    assert predicted(path, output, resume=True) == ROWS - 2 * 1_024


def test_an_invalid_input_leaves_nothing(tmp_path: Path, path: Path, output: Path) -> None:
    damaged = tmp_path / "in.csv.gz"
    damaged.write_bytes(gzip.compress(path.read_bytes())[:-20])
    path.unlink()
    with pytest.raises(DataError, match="corrupt"):
        predicted(damaged, output)
    assert names(tmp_path) == ["in.csv.gz"]


def test_nothing_to_resume_is_refused(tmp_path: Path, path: Path, output: Path) -> None:
    with pytest.raises(UsageError, match="was not interrupted"):
        predicted(path, output, resume=True)
    predicted(path, output)
    with pytest.raises(UsageError, match="was not interrupted"):
        predicted(path, output, resume=True)
    assert names(tmp_path) == ["in.csv", "out.csv"]


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"raw": True}, "--raw"),
        ({"min_confidence": 0.5}, "--min_confidence"),
        ({"text_column": "id"}, "--text_column"),
        ({"text_column": "id", "raw": True}, "--text_column and --raw"),
    ],
)
def test_changed_flags_are_refused_and_nothing_is_lost(
    path: Path, output: Path, changed: dict[str, Any], named: str
) -> None:
    interrupt(path, output)
    with pytest.raises(UsageError, match=f"{named} changed"):
        predicted(path, output, resume=True, **changed)
    assert predicted(path, output, resume=True) == ROWS - 2 * 1_024


@pytest.mark.parametrize("change", ["longer", "touched"])
def test_a_changed_input_is_refused(path: Path, output: Path, change: str) -> None:
    interrupt(path, output)
    if change == "longer":
        with path.open("a") as file:
            file.write("1,more\n")
    else:
        os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    with pytest.raises(UsageError, match="the input changed"):
        predicted(path, output, resume=True)


@pytest.mark.parametrize("kind", ["file", "run"])
def test_changed_weights_are_refused(tmp_path: Path, path: Path, output: Path, kind: str) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"1")
    flags = {"weights": weights if kind == "file" else tmp_path}
    interrupt(path, output, **flags)
    (tmp_path / "evaluation.json").touch()  # other files of a run may change
    interrupt(path, output, 1, resume=True, **flags)
    weights.write_bytes(b"22")
    with pytest.raises(UsageError, match="the weights changed"):
        predicted(path, output, resume=True, **flags)


def test_a_truncated_part_is_refused(path: Path, output: Path) -> None:
    interrupt(path, output)
    os.truncate(output.with_name("out.csv.part"), 100)
    with pytest.raises(UsageError, match="shorter than recorded"):
        predicted(path, output, resume=True)


@pytest.mark.parametrize("record", ["", "{", "[]", "null", '{"rows": 1}', '{"rows": "x"}'])
def test_a_damaged_record_is_refused(path: Path, output: Path, record: str) -> None:
    interrupt(path, output)
    output.with_name("out.csv.progress").write_text(record)
    with pytest.raises(UsageError, match="was not written by featherweight"):
        predicted(path, output, resume=True)


def test_the_record_has_rows_and_bytes(path: Path, output: Path) -> None:
    interrupt(path, output, 3)
    record = json.loads(output.with_name("out.csv.progress").read_text())
    assert record["rows"] == 3 * 1_024
    assert (
        output.with_name("out.csv.part").read_bytes()[: record["bytes"]].count(b"\n")
        == 3 * 1_024 + 1
    )


def test_parquet_is_not_resumed(tmp_path: Path, path: Path) -> None:
    pytest.importorskip("pyarrow")
    output = tmp_path / "out.parquet"
    interrupt(path, output)
    assert names(tmp_path) == ["in.csv"]
    with pytest.raises(UsageError, match="Parquet cannot be resumed"):
        predicted(path, output, resume=True)


def test_an_abandoned_iterator_can_be_resumed(path: Path, output: Path) -> None:
    ids = predict_file(Longest(), path, output)
    deque((next(ids) for _ in range(1_500)), maxlen=0)
    ids.close()  # type: ignore[attr-defined]
    assert predicted(path, output, resume=True) == ROWS - 2 * 1_024


def test_an_error_names_the_output_and_not_its_part(tmp_path: Path, path: Path) -> None:
    output = tmp_path / "out.csv"
    (tmp_path / "out.csv.part").mkdir()
    with pytest.raises(IsADirectoryError) as caught:
        predicted(path, output)
    assert caught.value.filename == str(output)


@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"min_confidence": 0.5, "known_words": True, "answer_prefix": "my own "},
        {"bad_rows": "skip", "raw": True, "header": False, "text_column": "column_2"},
    ],
    ids=str,
)
def test_the_printed_command_continues(
    tmp_path: Path, path: Path, tiny_run: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture, flags: dict[str, Any],
) -> None:  # fmt: skip
    caplog.set_level(logging.INFO)
    output, whole = tmp_path / "the output.csv", tmp_path / "whole.csv"
    config = PredictConfig(weights=tiny_run, device="cpu", **flags)
    classifier = load(tiny_run, "cpu")
    deque(predict_file(classifier, path, whole, config), maxlen=0)
    ids = predict_file(classifier, path, output, config)
    deque((next(ids) for _ in range(1_500)), maxlen=0)
    ids.close()  # type: ignore[attr-defined]

    (hint,) = caplog.messages
    assert hint.startswith("2048 rows are saved; continue with: featherweight predict --")
    assert call(*shlex.split(hint.partition("featherweight ")[2])) == 0
    assert output.read_bytes() == whole.read_bytes()
    assert names(tmp_path) == ["in.csv", "the output.csv", "whole.csv"]


def test_a_call_from_python_is_continued_by_the_printed_command(
    path: Path, tiny_run: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def interrupted(self: Any, rows: int) -> None:
        record(self, rows)
        raise KeyboardInterrupt

    record = resumable_file.ResumableFile.record_progress
    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        context.setattr(resumable_file.ResumableFile, "record_progress", interrupted)
        caplog.set_level(logging.INFO)
        run_inference(tiny_run, path)
    assert call(*shlex.split(caplog.messages[-1].partition("featherweight ")[2])) == 0
    assert path.with_name("in_predictions.csv").read_text().count("\n") == ROWS + 1


def test_the_second_writer_of_a_file_is_refused(path: Path, output: Path) -> None:
    first = predict_file(Longest(), path, output)
    next(first)
    for resume in (False, True):
        with pytest.raises(UsageError, match=r"out\.csv is being written by process \d+: wait"):
            predicted(path, output, resume=resume)
    assert predicted(path, output.with_name("other.csv")) == ROWS
    deque(first, maxlen=0)
    assert output.read_text().count("\n") == ROWS + 1
    assert names(path.parent) == ["in.csv", "other.csv", "out.csv"]
