import json
import logging
import os
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featherweight.classifier import Batch, Classifier, FloatArray
from featherweight.errors import DataError, UsageError
from featherweight.prediction import resumable_file
from featherweight.prediction.resumable_file import part_path, progress_path
from featherweight.prediction.streaming import predict_file
from tests.helpers.stub_classifier import StubClassifier

ROWS = 5_000  # five batches


class Longest(StubClassifier):
    """Answers by the length of a text, until it breaks off before a batch."""

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
    path.write_text("id,text\n" + "".join(f"{n},{'y' * (n % 11)}\n" for n in range(ROWS)))
    return path


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out.csv"


def answer(path: Path, output: Path, classifier: Classifier | None = None, **flags: Any) -> int:
    """Returns how many rows were answered."""
    return sum(1 for _ in predict_file(classifier or Longest(), path, output, **flags))


def cut_off(path: Path, output: Path, batches: int = 2, **flags: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        answer(path, output, Longest(batches), **flags)


def left(folder: Path) -> list[str]:
    return sorted(it.name for it in folder.iterdir())


@pytest.mark.parametrize("batches", [1, 3, 4])
def test_what_was_cut_off_is_resumed_as_if_it_never_was(
    tmp_path: Path, path: Path, output: Path, batches: int, caplog: pytest.LogCaptureFixture
) -> None:
    answer(path, tmp_path / "whole.csv")
    caplog.set_level(logging.INFO)
    cut_off(path, output, batches)
    assert caplog.messages == [
        f"{1_024 * batches} rows are kept: go on with the same command and --resume"
    ]
    assert left(tmp_path) == ["in.csv", "out.csv.part", "out.csv.progress", "whole.csv"]
    assert answer(path, output, resume=True) == ROWS - 1_024 * batches
    assert output.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert left(tmp_path) == ["in.csv", "out.csv", "whole.csv"]


def test_it_can_be_cut_off_again_and_again(tmp_path: Path, path: Path, output: Path) -> None:
    answer(path, tmp_path / "whole.csv")
    cut_off(path, output, 1)
    for _ in range(3):
        cut_off(path, output, 1, resume=True)
    cut_off(path, output, 0, resume=True)  # nothing new, nothing lost
    assert answer(path, output, resume=True) == ROWS - 4 * 1_024
    assert output.read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_an_old_output_stays_until_the_new_one_is_whole(path: Path, output: Path) -> None:
    output.write_text("old")
    cut_off(path, output)
    assert output.read_text() == "old"
    answer(path, output, resume=True)
    assert output.read_text().count("\n") == ROWS + 1


def test_without_resume_it_begins_anew(tmp_path: Path, path: Path, output: Path) -> None:
    cut_off(path, output)
    assert answer(path, output) == ROWS
    assert left(tmp_path) == ["in.csv", "out.csv"]


def test_a_new_beginning_that_fails_leaves_no_older_record(
    tmp_path: Path, path: Path, output: Path
) -> None:
    cut_off(path, output)
    cut_off(path, output, 0)
    assert left(tmp_path) == ["in.csv"]


def test_a_full_disk_keeps_what_was_recorded(path: Path, output: Path) -> None:
    full = OSError(28, os.strerror(28))
    with pytest.raises(OSError, match=os.strerror(28)):
        answer(path, output, Longest(2, full))
    assert answer(path, output, resume=True) == ROWS - 2 * 1_024


def test_an_input_that_must_be_mended_leaves_nothing(
    tmp_path: Path, path: Path, output: Path
) -> None:
    with path.open("a") as file:
        file.write("one,field,too many\n")
    with pytest.raises(DataError, match=f"line {ROWS + 2}"):
        answer(path, output)
    assert left(tmp_path) == ["in.csv"]


def test_nothing_to_resume_is_wrong_use(tmp_path: Path, path: Path, output: Path) -> None:
    with pytest.raises(UsageError, match="has not been cut off"):
        answer(path, output, resume=True)
    answer(path, output)
    with pytest.raises(UsageError, match="has not been cut off"):
        answer(path, output, resume=True)
    assert left(tmp_path) == ["in.csv", "out.csv"]


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"raw": True}, "--raw"),
        ({"min_confidence": 0.5}, "--min_confidence"),
        ({"text_column": "id"}, "--text_column"),
        ({"text_column": "id", "raw": True}, "--text_column and --raw"),
    ],
)
def test_other_flags_are_refused_and_nothing_is_lost(
    path: Path, output: Path, changed: dict[str, Any], named: str
) -> None:
    cut_off(path, output)
    with pytest.raises(UsageError, match=f"{named} changed"):
        answer(path, output, resume=True, **changed)
    assert answer(path, output, resume=True) == ROWS - 2 * 1_024


@pytest.mark.parametrize("written", ["longer", "touched"])
def test_another_input_is_refused(path: Path, output: Path, written: str) -> None:
    cut_off(path, output)
    if written == "longer":
        with path.open("a") as file:
            file.write("1,more\n")
    else:
        os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    with pytest.raises(UsageError, match="the input changed"):
        answer(path, output, resume=True)


@pytest.mark.parametrize("kind", ["file", "run"])
def test_other_weights_are_refused(tmp_path: Path, path: Path, output: Path, kind: str) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"1")
    given = {"weights": weights if kind == "file" else tmp_path}
    cut_off(path, output, **given)
    (tmp_path / "evaluation.json").touch()  # what else a run holds may change
    cut_off(path, output, 1, resume=True, **given)
    weights.write_bytes(b"22")
    with pytest.raises(UsageError, match="the weights changed"):
        answer(path, output, resume=True, **given)


def test_a_part_that_is_shorter_than_its_record_is_refused(path: Path, output: Path) -> None:
    cut_off(path, output)
    os.truncate(part_path(output), 100)
    with pytest.raises(UsageError, match="shorter than its record"):
        answer(path, output, resume=True)


@pytest.mark.parametrize("record", ["", "{", "[]", "null", '{"rows": 1}', '{"rows": "x"}'])
def test_a_damaged_record_is_refused(path: Path, output: Path, record: str) -> None:
    cut_off(path, output)
    progress_path(output).write_text(record)
    with pytest.raises(UsageError, match="no record of ours"):
        answer(path, output, resume=True)


def test_the_record_says_how_far_it_came(path: Path, output: Path) -> None:
    cut_off(path, output, 3)
    record = json.loads(progress_path(output).read_text())
    assert record["rows"] == 3 * 1_024
    assert part_path(output).read_bytes()[: record["bytes"]].count(b"\n") == 3 * 1_024 + 1


def test_parquet_is_not_resumed(tmp_path: Path, path: Path) -> None:
    pytest.importorskip("pyarrow")
    output = tmp_path / "out.parquet"
    cut_off(path, output)
    assert left(tmp_path) == ["in.csv"]
    with pytest.raises(UsageError, match="Parquet cannot be gone on with"):
        answer(path, output, resume=True)


def test_leaving_off_in_the_middle_can_be_resumed(path: Path, output: Path) -> None:
    answers = predict_file(Longest(), path, output)
    deque((next(answers) for _ in range(1_500)), maxlen=0)
    answers.close()  # type: ignore[attr-defined]
    assert answer(path, output, resume=True) == ROWS - 2 * 1_024
