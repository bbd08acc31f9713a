"""Folders of shards through a local Ray, which is started once for all of this file."""

import csv
import gzip
import logging
import os
import shutil
import signal
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

from edge.cluster import shards
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
DYING = """
import os, signal
from edge.cluster.shards import _Folder
_Folder.on_write_complete = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
"""
ELSEWHERE = """
import functools, ray
ray.init = functools.partial(ray.init, runtime_env={{"env_vars": {{"PYTHONPATH": {path!r}}}}})
"""
NO_RUNTIME = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name == "onnxruntime":
            raise ModuleNotFoundError("No module named 'onnxruntime'", name=name)

sys.meta_path.insert(0, Blocked())
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster of two CPUs, which this process has joined."""
    ray.init(
        "local", num_cpus=2, object_store_memory=80 * 2**20, include_dashboard=False,
        log_to_driver=False, logging_level=logging.ERROR,
    )  # fmt: skip
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shards").mkdir()
    return tmp_path / "shards"


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "answers"


def write(path: Path, rows: Sequence[Sequence[object]]) -> None:
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter="\t" if ".tsv" in path.name else ",").writerows(rows)


def rows_from(start: int, count: int) -> list[tuple[str, str, str]]:
    """Returns rows of a number that begins with a zero, a text, and what could be a formula."""
    numbers = range(start, start + count)
    return [(f"0{number}", TEXTS[number % len(TEXTS)], f"@{number}") for number in numbers]


def predict(folder: Path, output: Path, bundle: Path, flag: str = "csv", **flags: Any) -> None:
    given: dict[str, Any] = {flag: folder, "output_path": output, "weights": bundle, **flags}
    shards.predict_shards(PredictConfig(engine="ray", **given))


def sure(bundle: Path) -> float:
    """Returns a confidence that some of the texts are answered with, and others not."""
    return float(load(bundle).predict_proba(TEXTS).max()) - 1e-5


def command(address: str, *arguments: object, before: str = "") -> subprocess.CompletedProcess[str]:
    """Runs the command in an interpreter of its own, which joins the cluster."""
    given = ["predict", "--engine", "ray", *map(str, arguments)]
    return subprocess.run(
        [sys.executable, "-c", f"{before}\n{MAIN}", *given],
        capture_output=True, text=True, check=False,
        env={**os.environ, "RAY_ADDRESS": address},
    )  # fmt: skip


def test_csv_is_answered_as_one_file_would_be_by_workers_that_see_no_bundle(
    cluster: str, folder: Path, output: Path, copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = ("id", "text", "=note")
    shares = {"a.csv": 3_000, "b.csv.gz": 10, "c.csv": 0, "d.tsv": 2_000, "e.csv": 1}
    whole, start = [header], 0
    for name, count in shares.items():
        write(folder / name, [header, *rows_from(start, count)])
        whole += rows_from(start, count)
        start += count
    write(folder / "f.csv", [("text", "=note", "id"), ("so sad", "last", "x")])
    for name in ("_SUCCESS.csv", ".a.csv", "README.md", "g.parquet"):
        (folder / name).write_text("not one of them")
    one = folder.parent / "one.csv"
    write(one, [*whole, ("x", "so sad", "last")])
    answers = folder.parent / "one_answers.csv"
    surest = sure(copied)
    deque(predict_file(load(copied), one, answers, min_confidence=surest), maxlen=0)

    def read_and_remove(path: Path) -> Any:
        files = read(path)
        shutil.rmtree(path)
        return files

    read = shards.read
    monkeypatch.setattr(shards, "read", read_and_remove)
    monkeypatch.setattr(shards, "_FILE_BYTES", 1)
    output.mkdir()
    predict(folder, output, copied, min_confidence=surest)

    assert not copied.exists()
    files = sorted(output.iterdir())
    assert len(files) > 2
    assert all(file.suffix == ".csv" and file.stem.startswith("part-") for file in files)
    (head, *_), *_ = parts = [file.read_bytes().splitlines(keepends=True) for file in files]
    assert all(part[0] == head for part in parts)
    assert head + b"".join(b"".join(part[1:]) for part in parts) == answers.read_bytes()
    with answers.open(encoding="utf-8", newline="") as file:
        assert {not row["predicted_label"] for row in csv.DictReader(file)} == {True, False}
    assert names(folder.parent) == ["answers", "one.csv", "one_answers.csv", "shards"]


def test_parquet_keeps_the_types_of_its_columns(
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

    tables = [table(0, 3_000), table(3_000, 500), table(0, 2).slice(0, 0)]
    for name, each in zip(("a", "b", "c"), tables, strict=True):
        parquet.write_table(each, folder / f"{name}.parquet")
    one, answers = folder.parent / "one.parquet", folder.parent / "one_answers.parquet"
    parquet.write_table(pyarrow.concat_tables(tables), one)
    surest = sure(exported)
    deque(predict_file(load(exported), one, answers, min_confidence=surest), maxlen=0)

    predict(folder, output, exported, "parquet", min_confidence=surest)

    found, expected = parquet.read_table(output), parquet.read_table(answers)
    assert found.schema.equals(expected.schema)
    assert found.equals(expected)
    assert 0 < found["predicted_label"].null_count < 3_500


def test_shards_without_rows_have_answers_without_rows(
    cluster: str, folder: Path, exported: Path
) -> None:
    write(folder / "a.csv", [("text", "=id")])
    write(folder / "b.csv", [("=id", "text")])
    shards.predict_shards(PredictConfig(csv=folder, weights=exported, raw=True))
    (file,) = (folder.parent / "shards_predictions").iterdir()
    assert file.read_bytes() == b"text,predicted_label,predicted_emotion,confidence,=id\r\n"


def test_a_broken_row_is_named_and_leaves_nothing(
    cluster: str, folder: Path, output: Path, exported: Path
) -> None:
    write(folder / "a.csv", [("id", "text", "note"), *rows_from(0, 3_000)])
    write(folder / "b.csv", [("id", "text", "note"), *rows_from(0, 10), ("1", "nan", "")])
    with pytest.raises(DataError) as caught:
        predict(folder, output, exported)
    line = sum(1 for _ in (folder / "b.csv").open(encoding="utf-8", newline=""))
    assert str(caught.value) == (
        f"{folder / 'b.csv'}, line {line}: 'text' is NaN or null; add a text or remove the row"
    )
    assert type(caught.value) is DataError  # and none of Ray's own kinds
    assert names(folder.parent) == ["shards"]


def test_the_command_joins_a_cluster_and_leaves_it_as_it_was(
    cluster: str, folder: Path, output: Path, exported: Path
) -> None:
    write(folder / "a.csv", [("id", "text", "note"), *rows_from(0, 20)])
    flags = ["--csv", folder, "--output_path", output, "--weights", exported]
    killed = command(cluster, *flags, before=DYING)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not output.exists()

    done = command(cluster, *flags)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.splitlines() == [
        f"joining the Ray cluster at {cluster}",
        f"20 rows answered: {output}",
    ]
    assert names(output) == ["part-000000.csv"]
    assert [node["Alive"] for node in ray.nodes()] == [True]


def test_a_machine_without_the_package_is_named(
    cluster: str, folder: Path, output: Path, exported: Path, tmp_path: Path
) -> None:
    write(folder / "a.csv", [("text",), ("so happy",)])
    (tmp_path / "sitecustomize.py").write_text(NO_RUNTIME)
    flags = ["--csv", folder, "--output_path", output, "--weights", exported]
    done = command(cluster, *flags, before=ELSEWHERE.format(path=str(tmp_path)))
    assert (done.returncode, done.stdout) == (1, "")
    _, line = done.stderr.splitlines()
    assert " in the Ray cluster has no onnxruntime; " in line
    assert line.endswith("get it there with: pip install 'featherweight[ray]'")
    assert not output.exists()


@pytest.mark.parametrize(
    ("files", "flags", "kind", "named"),
    [
        ({"a.csv": "tweet\nhi\n"}, {}, DataError, r"a\.csv has no column 'text'.*--text_column"),
        (
            {"a.csv": "text,confidence\nhi,1\n"},
            {},
            UsageError,
            "already has a column confidence",
        ),
        ({"a.csv": "text\n", "b.csv": "text,id\n"}, {}, DataError, r"b\.csv .*a\.csv \(id\)"),
        ({"a.csv": "text\n", "b.csv": ""}, {}, DataError, r"b\.csv is empty"),
        ({"a.csv": "text\n", "b.csv": b"PAR1"}, {}, DataError, r"b\.csv is a binary file"),
        ({"a.parquet": "text\n"}, {}, DataError, r"holds no file called \.csv or"),
        ({}, {}, DataError, r"holds no file called \.csv or"),
        ({"a.csv": "text\n"}, {"texts": ["hi"]}, UsageError, "a text goes with --engine local"),
        ({"a.csv": "text\n"}, {"resume": True}, UsageError, "--resume goes with --engine local"),
        ({"a.csv": "text\n"}, {"jsonl": Path("x")}, UsageError, "--jsonl goes with"),
        ({"a.csv": "text\n"}, {"parquet": Path("x")}, UsageError, "one folder: give --csv or"),
        ({"a.csv": "text\n"}, {"csv": None}, UsageError, "one folder: give --csv or"),
        ({"a.csv": "text\n"}, {"csv": Path("nowhere")}, UsageError, "--csv nowhere is not there"),
        ({"a.csv": "text\n"}, {"csv": Path(__file__)}, UsageError, "is a file: --engine ray takes"),
        ({"a.csv": "text\n"}, {"weights": Path("x")}, WeightsError, "export it first.*weights x"),
        ({"a.csv": "text\n"}, {"output_path": Path(__file__)}, UsageError, "is taken"),
        ({"a.csv": "text\n"}, {"output_path": Path(__file__).parent}, UsageError, "is taken"),
        ({"a.csv": "text\n"}, {"output_path": Path("no/where")}, UsageError, "make it first"),
        ({"a.csv": "text\n"}, {"output_path": Path("/")}, UsageError, "/ is a mount point"),
    ],
)
def test_what_cannot_be_is_refused_before_ray_starts(
    folder: Path, output: Path, exported: Path, monkeypatch: pytest.MonkeyPatch,
    files: dict[str, str | bytes], flags: dict[str, Any], kind: type[FeatherweightError],
    named: str,
) -> None:  # fmt: skip
    for name, content in files.items():
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    monkeypatch.setattr(shards, "cluster", lambda: pytest.fail("it started"))
    with pytest.raises(kind, match=named):
        predict(folder, output, exported, **flags)
    assert names(folder.parent) == ["shards"]


def test_types_that_differ_are_told_from_each_other(
    folder: Path, output: Path, exported: Path
) -> None:
    for name, number in (("a", 1), ("b", 1.5)):
        table = pyarrow.table({"text": ["hi"], "id": [number]})
        parquet.write_table(table, folder / f"{name}.parquet")
    with pytest.raises(DataError, match=r"b\.parquet .*a\.parquet \(id\)"):
        predict(folder, output, exported, "parquet")
    assert not output.exists()


def test_a_run_is_no_bundle(folder: Path, output: Path, tiny_run: Path, capsys: Capture) -> None:
    write(folder / "a.csv", [("text",), ("hi",)])
    flags = ["--engine", "ray", "--csv", folder, "--output_path", output]
    assert call("predict", *flags, "--weights", tiny_run) == 2
    line = error_line(capsys)
    assert (
        f"{tiny_run} is none: export it first (featherweight export --weights {tiny_run})" in line
    )


def test_without_ray_a_folder_is_no_file(folder: Path, capsys: Capture) -> None:
    assert call("predict", "--csv", folder, "--weights", "pretrained") == 2
    assert error_line(capsys).endswith(
        f"--csv {folder} is a folder: give a file, or add --engine ray"
    )
