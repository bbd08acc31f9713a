"""Folders of shards on a local Ray cluster, which is started once for this file."""

import csv
import gzip
import logging
import os
import re
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow
import pytest
import ray
from pyarrow import parquet

from edge.cluster import session, shards
from featherweight import load
from featherweight.errors import DataError, FeatherweightError, UsageError, WeightsError
from featherweight.prediction.config import PredictConfig
from featherweight.prediction.streaming import predict_file
from tests.helpers.command_line import Capture, call, error_line, names

TEXTS = [
    "so happy",
    "i cried all night",
    "",
    "=1+1",
    "line\nbreak",
    'furious, "again"',
    "we won 😂",
]
MAIN = "import sys; from featherweight.cli import main; sys.exit(main(sys.argv[1:]))"
CONFIDENCE = re.compile(rb"[01]\.\d{6}")


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster with two CPUs, started as the command does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        for name in ("RAY_USAGE_STATS_ENABLED", "RAY_BACKEND_LOG_LEVEL"):
            patch.setenv(name, "")  # restores what is set for Ray
        patch.setattr(logging.getLogger("ray.data"), "level", logging.NOTSET)
        patch.setattr(session, "cores", lambda: 2)
        with session.cluster("edge.cluster.shards"):
            yield ray.get_runtime_context().gcs_address
        assert not ray.is_initialized()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shards").mkdir()
    return tmp_path / "shards"


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "predictions"


def write(path: Path, rows: Sequence[Sequence[object]]) -> None:
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter="\t" if ".tsv" in path.name else ",").writerows(rows)


def rows_from(start: int, count: int) -> list[tuple[str, str, str]]:
    """Returns rows of a number with a leading zero, a text, and what looks like a formula."""
    numbers = range(start, start + count)
    return [(f"0{number}", TEXTS[number % len(TEXTS)], f"@{number}") for number in numbers]


def predict(folder: Path, output: Path, bundle: Path, flag: str = "csv", **flags: Any) -> None:
    values: dict[str, Any] = {flag: folder, "output_path": output, "weights": bundle, **flags}
    shards.predict_shards(PredictConfig(engine="ray", **values))


def threshold_of(bundle: Path) -> float:
    """Returns a minimum confidence that only some of the texts reach."""
    return float(load(bundle).predict_proba(TEXTS).max()) - 1e-5


def test_csv_shards_give_the_output_of_one_file_without_access_to_the_bundle(
    cluster: str, folder: Path, output: Path, copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = ("id", "text", "=note")
    counts = {"a.csv": 3_000, "b.csv.gz": 10, "c.csv": 0, "d.csv": 2_000, "e.csv": 1}
    whole, start = [header], 0
    for name, count in counts.items():
        write(folder / name, [header, *rows_from(start, count)])
        whole += rows_from(start, count)
        start += count
    write(folder / "f.csv", [("text", "=note", "id"), ("so sad", "last", "x")])
    for name in ("_SUCCESS.csv", ".a.csv", "README.md", "g.parquet"):
        (folder / name).write_text("not a shard")
    one, one_output = folder.parent / "one.csv", folder.parent / "one_predictions.csv"
    write(one, [*whole, ("x", "so sad", "last")])
    threshold = threshold_of(copied)
    options = PredictConfig(min_confidence=threshold)
    deque(predict_file(load(copied), one, one_output, options), maxlen=0)

    def read_and_remove(path: Path) -> Any:
        files = read(path)
        shutil.rmtree(path)
        return files

    read = shards.read
    monkeypatch.setattr(shards, "read", read_and_remove)
    monkeypatch.setattr(shards, "_FILE_BYTES", 1)
    output.mkdir()
    predict(folder, output, copied, min_confidence=threshold)

    assert not copied.exists()
    files = sorted(output.iterdir())
    assert len(files) > 2
    assert all(file.suffix == ".csv" and file.stem.startswith("part-") for file in files)
    (head, *_), *_ = parts = [file.read_bytes().splitlines(keepends=True) for file in files]
    assert all(part[0] == head for part in parts)
    actual = head + b"".join(b"".join(part[1:]) for part in parts)
    expected = one_output.read_bytes()
    assert CONFIDENCE.sub(b"", actual) == CONFIDENCE.sub(b"", expected)
    # The last digit may differ: a text's probabilities are rounded differently in other batches.
    confidences = [list(map(float, CONFIDENCE.findall(content))) for content in (actual, expected)]
    assert confidences[0] == pytest.approx(confidences[1], abs=5e-6)
    with one_output.open(encoding="utf-8", newline="") as file:
        assert {not row["predicted_label"] for row in csv.DictReader(file)} == {True, False}
    assert names(folder.parent) == ["one.csv", "one_predictions.csv", "predictions", "shards"]


def test_parquet_shards_keep_the_types_of_their_columns(
    cluster: str, folder: Path, output: Path, exported: Path
) -> None:
    def table(start: int, count: int) -> Any:
        columns = {
            "id": pyarrow.array(range(start, start + count), pyarrow.int32()),
            "text": pyarrow.array([TEXTS[number % 7] for number in range(count)]),
            "path": pyarrow.array(["x"] * count).dictionary_encode(),
            "day": pyarrow.array([date(2024, 1, 2), None] * (count // 2)),
            "nothing": pyarrow.nulls(count, pyarrow.list_(pyarrow.float32())),
        }
        return pyarrow.table(columns)

    tables = {"a": table(0, 3_000), "b": table(3_000, 500), "c": table(0, 2).slice(0, 0)}
    for name, shard in tables.items():
        parquet.write_table(shard, folder / f"{name}.parquet")
    one, one_output = folder.parent / "one.parquet", folder.parent / "one_predictions.parquet"
    parquet.write_table(pyarrow.concat_tables(tables.values()), one)
    threshold = threshold_of(exported)
    options = PredictConfig(min_confidence=threshold)
    deque(predict_file(load(exported), one, one_output, options), maxlen=0)

    predict(folder, output, exported, "parquet", min_confidence=threshold)

    actual, expected = parquet.read_table(output), parquet.read_table(one_output)
    assert actual.schema.equals(expected.schema)
    confidences = [each["confidence"].to_pylist() for each in (actual, expected)]
    assert confidences[0] == pytest.approx(confidences[1], abs=5e-6)
    assert actual.drop(["confidence"]).equals(expected.drop(["confidence"]))
    assert 0 < actual["predicted_label"].null_count < 3_500


def test_the_output_appears_after_the_last_file_and_empty_shards_give_only_a_header(
    cluster: str, folder: Path, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder / "a.csv", [("text", "=id")])
    write(folder / "b.csv", [("=id", "text")])
    output = folder.parent / "shards_predictions"
    config = PredictConfig(csv=folder, weights=exported, raw=True)

    def interrupt(*_: object) -> None:
        assert not output.exists()
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(shards._OutputFolder, "on_write_complete", interrupt)
        with pytest.raises(MemoryError):
            shards.predict_shards(config)
    assert names(folder.parent) == ["shards"]
    shards.predict_shards(config)
    (file,) = output.iterdir()
    assert file.read_bytes() == b"text,predicted_label,predicted_emotion,confidence,=id\r\n"


def test_a_bad_row_is_named_in_one_line_and_leaves_no_output_if_the_policy_is_to_fail(
    cluster: str, folder: Path, exported: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write(folder / "a.csv", [("id", "text"), *[(1, "so happy")] * 3_000])
    write(folder / "b.csv", [("id", "text"), (1, "line\nbreak"), (2, "nan")])
    flags = ["--engine", "ray", "--csv", folder, "--weights", exported]
    assert call("predict", *flags, "--bad_rows", "fail") == 2
    assert capfd.readouterr() == (
        "",
        f"featherweight: {folder / 'b.csv'}, line 4: 'text' is NaN or null; "
        "add a text or remove the row (or continue past such rows: --bad_rows blank, or skip)\n",
    )
    assert names(folder.parent) == ["shards"]


@pytest.mark.parametrize("bad_rows", ["blank", "skip"])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_bad_rows_and_added_columns_are_those_of_one_file(
    cluster: str, folder: Path, output: Path, exported: Path, kind: str, bad_rows: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    texts = ["so happy", None, "", "NULL", "zzzz", "i am sad"]
    table = pyarrow.table({"text": texts, "confidence": ["a"] * 6, "problem": ["b"] * 6})
    one = folder.parent / f"one.{kind}"
    for path in (folder / f"a.{kind}", folder / f"b.{kind}", one):
        if kind == "parquet":
            parquet.write_table(table, path)
        else:
            ragged = [("x", "too", "many", "cells")]
            write(
                path, [table.column_names, *zip(*table.to_pydict().values(), strict=True), *ragged]
            )
    options = PredictConfig(bad_rows=bad_rows, known_words=True)
    one_output = folder.parent / f"one_predictions.{kind}"
    deque(predict_file(load(exported), one, one_output, options), maxlen=0)
    caplog.clear()
    caplog.set_level(logging.INFO)

    predict(folder, output, exported, kind, bad_rows=bad_rows, known_words=True)

    def read(path: Path) -> list[dict[str, Any]]:
        if kind == "parquet":
            return list(parquet.read_table(path).to_pylist())
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    expected = read(one_output) * 2
    actual = [row for path in sorted(output.iterdir()) for row in read(path)]
    assert list(actual[0]) == list(expected[0])
    assert len(actual) == (6 if bad_rows == "skip" else 12 + 2 * (kind == "csv"))
    for rows in (actual, expected):
        for row in rows:  # the last digit depends on the other texts of a batch
            row["confidence_2"] = round(float(row["confidence_2"] or 0), 4)
    assert actual == expected
    renamed, counted, *listed, written = caplog.messages
    assert renamed.endswith("already has confidence: what is predicted is in confidence_2")
    count = 8 if kind == "csv" else 6
    assert counted.startswith(f"{count} bad rows")
    assert len(listed) == count
    assert any(f"{folder / f'b.{kind}'}, " in line for line in listed)
    assert written == f"6 predictions written to {output}"


def test_the_command_joins_a_cluster_and_leaves_it_running(
    cluster: str, folder: Path, output: Path, exported: Path
) -> None:
    write(folder / "a.csv", [("id", "text", "note"), *rows_from(0, 20)])
    arguments = [
        "predict", "--engine", "ray", "--csv", folder, "--output_path", output,
        "--weights", exported,
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", MAIN, *map(str, arguments)],
        capture_output=True, text=True, check=False, env={**os.environ, "RAY_ADDRESS": cluster},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.splitlines() == [
        f"joining the Ray cluster at {cluster}",
        "3 bad rows, without a prediction:",
        *(f"- {folder / 'a.csv'}, line {line}: 'text' is empty" for line in (4, 12, 20)),
        f"17 predictions written to {output}",
    ]
    assert names(output) == ["part-000000.csv"]
    assert [node["Alive"] for node in ray.nodes()] == [True]


def test_a_node_of_a_joined_cluster_that_lacks_the_required_module_is_named(
    cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", cluster)
    for name, result in (("is_initialized", False), ("init", None), ("shutdown", None)):
        monkeypatch.setattr(ray, name, lambda *_, result=result, **__: result)
    message = r" in the Ray cluster has no no_module; .* pip install 'featherweight\[ray\]'$"
    with (
        pytest.raises(FeatherweightError, match=message),
        session.cluster("no_module.inside"),
    ):
        pytest.fail("it was joined")


@pytest.mark.parametrize(
    ("files", "flags", "kind", "message"),
    [
        ({"a.csv": "tweet\nhi\n"}, {}, DataError, r"a\.csv has no column 'text'.*--text_column"),
        (
            {"a.csv": "text,my_confidence\nhi,1\n"},
            {"answer_prefix": "my_"},
            UsageError,
            "--answer_prefix my_: .* already has my_confidence",
        ),
        ({"a.csv": "text\n", "b.csv": "text,id\n"}, {}, DataError, r"b\.csv .*a\.csv \(id\)"),
        ({"a.csv": "text\n", "b.csv": ""}, {}, DataError, r"b\.csv is empty"),
        ({"a.csv": "text\n", "b.csv": b"PAR1"}, {}, DataError, r"b\.csv is not a valid Parquet"),
        ({"a.parquet": "text\n"}, {}, DataError, r"contains no \.csv or"),
        ({}, {}, DataError, r"contains no \.csv or"),
        ({"a.csv": "text\n"}, {"texts": ["hi"]}, UsageError, "a text requires --engine local"),
        ({"a.csv": "text\n"}, {"resume": True}, UsageError, "--resume requires --engine local"),
        ({"a.csv": "text\n"}, {"jsonl": Path("x")}, UsageError, "--jsonl requires"),
        ({"a.csv": "text\n"}, {"parquet": Path("x")}, UsageError, "one folder: give either --csv"),
        ({"a.csv": "text\n"}, {"csv": None}, UsageError, "one folder: give either --csv"),
        ({"a.csv": "text\n"}, {"csv": Path("nowhere")}, UsageError, "--csv nowhere does not exist"),
        ({"a.csv": "text\n"}, {"csv": Path(__file__)}, UsageError, "is a file: --engine ray takes"),
        ({"a.csv": "text\n"}, {"weights": Path("x")}, WeightsError, "export it first.*weights x"),
        ({"a.csv": "text\n"}, {"output_path": Path(__file__)}, UsageError, "exists: name a new"),
        ({"a.csv": "text\n"}, {"output_path": Path(__file__).parent}, UsageError, "an empty one"),
        ({"a.csv": "text\n"}, {"output_path": Path("no/where")}, UsageError, "create it first"),
        ({"a.csv": "text\n"}, {"output_path": Path("/")}, UsageError, "/ is a mount point"),
    ],
)
def test_invalid_input_is_refused_before_ray_starts(
    folder: Path, output: Path, exported: Path, monkeypatch: pytest.MonkeyPatch,
    files: dict[str, str | bytes], flags: dict[str, Any], kind: type[FeatherweightError],
    message: str,
) -> None:  # fmt: skip
    for name, content in files.items():
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    monkeypatch.setattr(shards, "cluster", lambda: pytest.fail("it started"))
    with pytest.raises(kind, match=message):
        predict(folder, output, exported, **flags)
    assert names(folder.parent) == ["shards"]


def test_shards_with_different_types_are_refused(
    folder: Path, output: Path, exported: Path
) -> None:
    for name, number in (("a", 1), ("b", 1.5)):
        table = pyarrow.table({"text": ["hi"], "id": [number]})
        parquet.write_table(table, folder / f"{name}.parquet")
    with pytest.raises(DataError, match=r"b\.parquet .*a\.parquet \(id\)"):
        predict(folder, output, exported, "parquet")
    assert not output.exists()


def test_a_run_is_refused_with_the_command_that_exports_it(
    folder: Path, output: Path, tiny_run: Path, capsys: Capture
) -> None:
    write(folder / "a.csv", [("text",), ("hi",)])
    flags = ["--engine", "ray", "--csv", folder, "--output_path", output]
    assert call("predict", *flags, "--weights", tiny_run) == 2
    assert error_line(capsys).endswith(
        f"export it first (featherweight export --weights {tiny_run})"
    )


def test_a_folder_without_engine_ray_is_refused(folder: Path, capsys: Capture) -> None:
    assert call("predict", "--csv", folder, "--weights", "pretrained") == 2
    line = error_line(capsys)
    assert f"--csv {folder}" in line
    assert "--engine ray" in line
