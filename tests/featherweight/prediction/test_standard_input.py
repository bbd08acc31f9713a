"""Texts from the standard input: a text per line, or a CSV file."""

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from featherweight.data import rows as reader
from featherweight.data.dialect import Dialect
from featherweight.data.files.formats import BadRow
from featherweight.errors import DataError
from featherweight.prediction import streaming
from featherweight.prediction.bad_rows import BadRowError
from featherweight.prediction.config import PredictConfig
from featherweight.prediction.predict import predict
from featherweight.prediction.standard_input import Lines
from tests.helpers.command_line import Capture, call, error_line, names

MAIN = "import sys; from featherweight.cli import main; sys.exit(main(sys.argv[1:]))"


def lines(content: bytes, encoding: str = "") -> list[object]:
    """Returns each line's text, or its problem."""
    table = Lines(io.BufferedReader(io.BytesIO(content)), encoding)  # type: ignore[arg-type]
    return [row.problem if isinstance(row, BadRow) else row["text"] for _, row in table]


@pytest.fixture
def piped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A function that makes the standard input a pipe with some content."""
    opened: list[Any] = []

    def pipe(content: bytes) -> None:
        path = tmp_path / "stdin"
        path.write_bytes(content)
        opened.append(path.open("rb"))
        path.unlink()
        monkeypatch.setattr(sys, "stdin", opened[-1])

    yield pipe
    for file in opened:
        file.close()


def test_each_line_is_a_text() -> None:
    assert lines(b"so happy\r\n\n  two;parts, \"q\" \nlast") == [
        "so happy", "", '  two;parts, "q" ', "last",
    ]  # fmt: skip
    assert lines(b"") == []
    assert lines("\ufeffé\x0b\u2028ü\n".encode()) == ["é\x0b\u2028ü"]


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-16-le", "shift_jis"])
def test_the_encoding_is_that_of_the_flag(encoding: str) -> None:
    text = "日本\n語" if encoding == "shift_jis" else "é\nü"
    assert lines(text.encode(encoding), encoding) == text.split("\n")


def test_a_byte_order_mark_selects_utf16() -> None:
    assert lines("é\r\n\nü\r\n".encode("utf-16")) == ["é", "", "ü"]


def test_a_line_in_another_encoding_is_a_bad_row() -> None:
    first, bad, last = lines(b"a\n caf\xe9\nb\n")
    assert (first, last) == ("a", "b")
    assert "not UTF-8" in str(bad)
    assert "--encoding" in str(bad)


def test_a_broken_end_is_named() -> None:
    with pytest.raises(DataError, match="standard input, after line 0: not utf-16"):
        lines("é".encode("utf-16") + b"\x41")


def test_lines_are_answered_as_texts_are(tiny_run: Path, piped: Any, capsys: Capture) -> None:
    texts = ["so happy", "None", "", "zzzz", "i miss my dog"]
    assert call("predict", *texts, "--weights", tiny_run, "--json") == 0
    expected = json.loads(capsys.readouterr().out)
    piped("\n".join(texts).encode())
    assert call("predict", "--weights", tiny_run, "--json") == 0
    assert json.loads(capsys.readouterr().out) == expected

    piped("\n".join(texts).encode())
    assert call("predict", "--weights", tiny_run) == 0
    out, err = capsys.readouterr()
    assert err == ""
    header, _, *rows, unknown = out.splitlines()
    assert header.split()[0] == "text"
    assert len({row.rindex("0.") for row in rows}) == 1
    assert len(rows) == 5
    assert unknown.startswith("no known word in text 2, 3, 4:")


@pytest.mark.parametrize("count", [1, 1_024, 2_500])
def test_lines_of_several_batches_come_in_order(
    tiny_run: Path, piped: Any, capsys: Capture, count: int
) -> None:
    piped("".join(f"happy {number}\n" for number in range(count)).encode())
    assert call("predict", "--weights", tiny_run) == 0
    rows = capsys.readouterr().out.splitlines()[2:]
    assert [row.split()[:2] for row in rows] == [["happy", str(n)] for n in range(count)]


def test_more_than_ten_texts_without_a_known_word_are_counted(
    tiny_run: Path, piped: Any, capsys: Capture
) -> None:
    piped(b"zzzz\n" * 1_100)
    assert call("predict", "--weights", tiny_run) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("no known word in text 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 1,090 more:")


@pytest.mark.parametrize(("policy", "answered"), [("blank", 3), ("skip", 2), ("fail", 1)])
def test_bad_lines_follow_the_policy(
    tiny_run: Path, piped: Any, capsys: Capture, caplog: pytest.LogCaptureFixture, policy: str,
    answered: int,
) -> None:  # fmt: skip
    piped(b"so happy\ncaf\xe9\nso sad\n")
    code = call("predict", "--weights", tiny_run, "--json", "--bad_rows", policy)
    out, err = capsys.readouterr()
    rows = json.loads(out)
    assert len(rows) == answered
    assert "standard input, line 2: not UTF-8" in "".join([err, *caplog.messages])
    assert code == (2 if policy == "fail" else 0)
    if policy == "blank":
        assert rows[1] == {
            "text": "caf?", "predicted_label": None, "predicted_emotion": None, "confidence": None,
        }  # fmt: skip


def test_an_empty_input_is_refused_with_the_ways_to_give_one(
    tiny_run: Path, piped: Any, capsys: Capture
) -> None:
    piped(b"")
    assert call("predict", "--weights", tiny_run) == 2
    assert "lines on the standard input" in error_line(capsys)


@pytest.mark.parametrize("flags", [["--resume"], ["--output_path", "out.csv"]])
def test_flags_of_files_are_refused_with_lines(
    piped: Any, capsys: Capture, flags: list[str]
) -> None:
    piped(b"so happy\n")
    assert call("predict", *flags) == 2
    assert f"{flags[0]} requires --csv" in error_line(capsys)


def test_lines_of_a_real_pipe(tiny_run: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MAIN, "predict", "--weights", str(tiny_run)],
        input=b"so happy\n\xf0\x9f\x98\x82\n", capture_output=True, check=False,
        env={**os.environ, "PYTHONPATH": ":".join(filter(None, sys.path))},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode().splitlines()[2].startswith("so happy  ")


@pytest.fixture
def csv_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is read in place of the standard input."""
    path = tmp_path / "spooled.csv"

    @contextmanager
    def open_rows(given: Path, dialect: Dialect, unlabeled: bool) -> Iterator[reader.Rows]:
        assert given == Path("-")
        with reader.open_rows(path, dialect, unlabeled) as rows:
            rows.path = given
            yield rows

    monkeypatch.setattr(streaming, "open_rows", open_rows)
    return path


def test_a_csv_on_the_standard_input_is_answered_on_the_standard_output(
    csv_input: Path,
    tiny_run: Path,
    tmp_path: Path,
    capsys: Capture,
    caplog: pytest.LogCaptureFixture,
) -> None:
    csv_input.write_text("id,text\n" + "".join(f"{i},so happy\n" for i in range(2_000)) + "x,\n")
    assert call("predict", "--csv", "-", "--weights", tiny_run) == 0
    out = capsys.readouterr().out
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["id"] for row in rows] == [*map(str, range(2_000)), "x"]
    assert list(rows[0]) == ["text", "predicted_label", "predicted_emotion", "confidence", "id"]
    assert rows[-1]["confidence"] == ""
    first, _, written = caplog.messages
    assert first == "1 bad row, without a prediction:"
    assert written == "2000 rows predicted: standard output"
    assert names(tmp_path) == ["spooled.csv"]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_csv_on_the_standard_input_is_written_to_the_output_path(
    csv_input: Path, tiny_run: Path, tmp_path: Path, capsys: Capture, kind: str
) -> None:
    csv_input.write_text("id,text\n1,so happy\n")
    output = tmp_path / f"out.{kind}"
    assert call("predict", "--csv", "-", "--weights", tiny_run, "--output_path", output) == 0
    assert capsys.readouterr().out == ""
    assert names(tmp_path) == [output.name, "spooled.csv"]


def test_the_standard_input_is_not_resumed(
    csv_input: Path, tiny_run: Path, tmp_path: Path, capsys: Capture
) -> None:
    csv_input.write_text("id,text\n1,so happy\n2,\n")
    output = tmp_path / "out.csv"
    flags = ["--csv", "-", "--weights", tiny_run, "--output_path", output]
    assert call("predict", *flags, "--bad_rows", "fail") == 2
    assert "--resume" not in error_line(capsys)
    assert names(tmp_path) == ["spooled.csv"]
    assert call("predict", *flags, "--resume") == 2
    assert "--resume: the standard input cannot be read again" in error_line(capsys)


def test_rows_before_the_first_bad_one_are_on_the_standard_output(
    csv_input: Path, tiny_run: Path, capsys: Capture
) -> None:
    csv_input.write_text("text\nso happy\nnan\nso sad\n")
    with pytest.raises(BadRowError):
        predict(PredictConfig(csv=Path("-"), weights=tiny_run, bad_rows="fail"))
    assert [line.split(",")[0] for line in capsys.readouterr().out.splitlines()] == [
        "text", "so happy",
    ]  # fmt: skip
