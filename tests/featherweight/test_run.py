import contextlib
import errno
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from featherweight.errors import UsageError, WeightsError
from featherweight.run import (
    CHECKPOINT,
    CONFIG,
    MODEL,
    Run,
    cut_off_runs,
    kind,
    newest_lstm,
    newest_run,
    of_split,
    runs,
)

RECORDS = {CONFIG: {"seed": 0}, "labels.json": ["a", "b"]}


def make(folder: Path, name: str, finished: bool = True, age_s: float = 0) -> Run:
    run = Run.create(folder, name, overwrite=False, records=RECORDS)
    if finished:
        run.write_bytes(MODEL, b"weights")
    moment = 1_000_000 - age_s
    os.utime(run.file(CONFIG), (moment, moment))
    return run


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_new_run_has_its_records(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "deep" / "outputs", "mine", False, RECORDS)
    assert run.path == tmp_path / "deep" / "outputs" / "mine"
    assert run.read_json(CONFIG) == {"seed": 0}
    assert names(run.path.parent) == ["mine"]
    assert not run.finished


def test_an_existing_run_is_not_touched(tmp_path: Path) -> None:
    run = make(tmp_path, "mine")
    with pytest.raises(UsageError, match="--overwrite") as error:
        Run.create(tmp_path, "mine", False, {CONFIG: {"seed": 1}})
    assert "mine" in str(error.value)
    assert run.read_json(CONFIG) == {"seed": 0}
    assert run.finished
    assert names(tmp_path) == ["mine"]


def test_overwriting_replaces_the_whole_run_at_its_end(tmp_path: Path) -> None:
    old = make(tmp_path, "mine")
    old.write_text("notes.txt", "old")
    run = Run.create(tmp_path, "mine", True, {CONFIG: {"seed": 1}})
    assert run.final == old.path
    assert run.path == old.replacement.path
    assert (old.read_json(CONFIG), old.finished) == ({"seed": 0}, True)
    assert [found.path for found in runs(tmp_path)] == [old.path]
    assert [found.path for found in cut_off_runs(tmp_path)] == [run.path]

    run.take_place()
    assert run.path == run.final == old.path
    assert run.read_json(CONFIG) == {"seed": 1}
    assert names(run.path) == [CONFIG]
    assert names(tmp_path) == ["mine"]


def test_a_new_attempt_to_overwrite_replaces_the_last_one(tmp_path: Path) -> None:
    make(tmp_path, "mine")
    for seed in (1, 2):
        run = Run.create(tmp_path, "mine", True, {CONFIG: {"seed": seed}})
    run.take_place()
    assert run.read_json(CONFIG) == {"seed": 2}
    assert names(tmp_path) == ["mine"]


@pytest.mark.parametrize("content", ["folder", "file"])
def test_other_folder_or_file_is_not_overwritten(tmp_path: Path, content: str) -> None:
    path = tmp_path / "mine"
    if content == "folder":
        path.mkdir()
        (path / "thesis.txt").write_text("precious")
    else:
        path.write_text("precious")
    with pytest.raises(UsageError, match="not a run"):
        Run.create(tmp_path, "mine", True, RECORDS)
    file = path / "thesis.txt" if content == "folder" else path
    assert file.read_text() == "precious"


@pytest.mark.parametrize("name", ["..", "."])
def test_name_of_dots_deletes_nothing(tmp_path: Path, name: str) -> None:
    # The output folder does not exist yet, so "outputs/.." does not exist either.
    (tmp_path / "thesis.txt").write_text("precious")
    with contextlib.suppress(Exception):
        Run.create(tmp_path / "outputs", name, False, RECORDS)
    assert (tmp_path / "thesis.txt").exists()


def test_a_failure_while_creating_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    make(tmp_path, "old")
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            Run.create(tmp_path, "old", True, {CONFIG: {"seed": 1}})
    assert names(tmp_path) == ["old"]
    assert Run(tmp_path / "old").read_json(CONFIG) == {"seed": 0}


def test_runs_are_listed_from_the_oldest_to_the_newest(tmp_path: Path) -> None:
    for name, age_s in [("b", 5), ("c", 1), ("a", 9)]:
        make(tmp_path, name, age_s=age_s)
    (tmp_path / "no-run").mkdir()
    assert [run.path.name for run in runs(tmp_path)] == ["a", "b", "c"]


def test_leftover_of_a_killed_creation_is_not_a_run(tmp_path: Path) -> None:
    make(tmp_path, "mine")
    leftover = tmp_path / ".mine.4711.new"
    leftover.mkdir()
    (leftover / CONFIG).write_text("{}")
    assert [run.path.name for run in runs(tmp_path)] == ["mine"]


def test_the_newest_run_is_the_newest_finished_one(tmp_path: Path) -> None:
    make(tmp_path, "old", age_s=9)
    make(tmp_path, "new", age_s=5)
    make(tmp_path, "without-weights", finished=False, age_s=3)
    make(tmp_path, "cut-off", age_s=1).write_bytes(CHECKPOINT, b"state")
    assert newest_run(tmp_path).path.name == "new"


@pytest.mark.parametrize("folder", ["empty", "missing"])
def test_no_finished_run_is_wrong_use(tmp_path: Path, folder: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="--weights"):
        newest_run(tmp_path / folder)


@pytest.mark.parametrize("content", [b'{"a": ', b"", b"\xff\xfe"])
def test_a_damaged_record_is_named(tmp_path: Path, content: bytes) -> None:
    run = make(tmp_path, "mine")
    run.file("data.json").write_bytes(content)
    with pytest.raises(WeightsError, match=r"data\.json"):
        run.read_json("data.json")


def test_a_missing_record_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"evaluation\.json"):
        make(tmp_path, "mine").read_json("evaluation.json")


def test_json_round_trip(tmp_path: Path) -> None:
    run = make(tmp_path, "mine")
    value = {"labels": ["freude 😂", "ü"], "n": 3, "nested": {"x": [1.5, None, True]}}
    run.write_json("data.json", value)
    assert run.read_json("data.json") == value


def test_the_weights_of_an_exported_run_are_its_graph(tmp_path: Path) -> None:
    run = Run(tmp_path)
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "model.onnx").write_bytes(b"a graph")
    # Models on the Hub have such files too; these were not exported by featherweight.
    assert (run.exported, run.weights, run.finished) == (False, None, False)
    (tmp_path / "onnx" / "onnx.json").write_text("{}")
    assert (run.exported, run.finished) == (True, True)
    assert run.weights == tmp_path / "onnx" / "model.onnx"
    run.weights.unlink()
    assert not run.finished


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"kind": "features", "preset": "feather"}, "features"),
        # Version 0.1 did not record the kind.
        ({"preset": "feather", "pooling": "max"}, "lstm"),
        ({"pooling": "mean"}, "features"),
        ({"model": ["bert"]}, "transformer"),
    ],
)
def test_kind_of_a_run(config: dict[str, Any], expected: str) -> None:
    assert kind(config) == expected


RECORDED = {"data.json": {"name": "moods"}, "evaluation.json": {"split": "test", "macro_f1": 0.876}}


@pytest.mark.parametrize(
    ("records", "about"),
    [
        (RECORDED, " (trained on moods, test macro-F1 0.88)"),
        ({"data.json": {"name": "moods"}}, " (trained on moods)"),
        ({"data.json": [], "evaluation.json": {"split": 1, "macro_f1": "x"}}, ""),
        ({}, ""),
    ],
)
@pytest.mark.parametrize("choose", [newest_run, newest_lstm])
def test_the_choice_of_the_newest_run_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, records: Any, about: str, choose: Any
) -> None:
    run = make(tmp_path, "mine")
    run.write_json(CONFIG, {"kind": "lstm"})
    for name, values in records.items():
        run.write_json(name, values)
    caplog.set_level(logging.INFO)
    choose(tmp_path)
    assert caplog.messages == [f"weights: {run.path}{about}"]


def test_a_file_of_a_split_has_its_name() -> None:
    assert of_split("evaluation.json", "test") == "evaluation-test.json"
    assert of_split("evaluation.json", "") == "evaluation.json"
