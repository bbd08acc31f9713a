"""Inputs whose reading matters to `predict` only: lines of text, late keys, the standard input."""

import bz2
import csv
import io
import json
import lzma
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.command_line import call, names

MAIN = "import sys; from featherweight.cli import main; sys.exit(main(sys.argv[1:]))"


def answered(tiny_run: Path, path: Path, *flags: Any, flag: str = "csv") -> list[dict[str, str]]:
    """Returns the rows of the output for a file."""
    output = path.parent / "out.csv"
    arguments = [f"--{flag}", path, "--weights", tiny_run, "--output_path", output, *flags]
    assert call("predict", *arguments) == 0
    with output.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_text_file_has_one_text_per_line(tiny_run: Path, tmp_path: Path) -> None:
    path = tmp_path / "tweets.txt"
    path.write_text("so happy today\nthe tea; it was cold, sadly\n")
    rows = answered(tiny_run, path)
    assert [row["text"] for row in rows] == ["so happy today", "the tea; it was cold, sadly"]
    assert all(row["predicted_label"] for row in rows)


def test_values_of_keys_that_appear_late_are_below_their_column(
    tiny_run: Path, tmp_path: Path
) -> None:
    path = tmp_path / "in.jsonl"
    objects = [{"text": "so happy", "id": 1}, {"id": 2, "text": "so sad", "confidence": [1]}]
    path.write_text("".join(json.dumps(row) + "\n" for row in objects))
    first, second = answered(tiny_run, path)
    assert (first["confidence"], second["confidence"]) == ("", "[1]")
    assert float(first["confidence_2"]) > 0
    assert (first["id"], second["id"]) == ("1", "2")


@pytest.mark.parametrize(
    ("name", "packed"),
    [
        pytest.param("in.csv.bz2", bz2.compress),
        pytest.param("in.csv.xz", lzma.compress),
        ("in.csv", bytes),
    ],
)
def test_compressed_input_has_the_default_output_beside_it(
    tiny_run: Path, tmp_path: Path, name: str, packed: Callable[[bytes], bytes]
) -> None:
    (tmp_path / name).write_bytes(packed(b"text,id\nso happy,1\n"))
    assert call("predict", "--csv", tmp_path / name, "--weights", tiny_run) == 0
    assert names(tmp_path) == [name, "in_predictions.csv"]


@pytest.mark.parametrize("flag", ["csv", "jsonl"])
def test_a_json_array_keeps_nested_values(tiny_run: Path, tmp_path: Path, flag: str) -> None:
    path = tmp_path / "in.json"
    path.write_text(json.dumps([{"text": "so happy", "tags": ["a", None]}, {"text": None}]))
    first, second = answered(tiny_run, path, flag=flag)
    assert first["tags"] == '["a", null]'
    assert second["predicted_label"] == ""


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252"])
def test_the_dialect_is_that_of_the_flags(tiny_run: Path, tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "in.csv"
    path.write_text("1;so happy é\n2;\n", encoding=encoding)
    flags = ["--no_header", "--delimiter", ";", "--encoding", encoding]
    first, second = answered(tiny_run, path, *flags, "--text_column", "column_2")
    assert (first["column_2"], first["column_1"]) == ("so happy é", "1")
    assert second["predicted_label"] == ""


def test_a_csv_through_real_pipes(tiny_run: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MAIN, "predict", "--csv", "-", "--weights", str(tiny_run)],
        input="id,text\n1,so happy\n2,\n", capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": ":".join(filter(None, sys.path))},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, second = csv.DictReader(io.StringIO(done.stdout))
    assert (first["id"], second["id"]) == ("1", "2")
    assert first["predicted_label"] != "" == second["predicted_label"]
    assert "standard input, line 3" in done.stderr
