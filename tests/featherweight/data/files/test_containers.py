"""JSON, Arrow, Excel, compressed files and lines of text: the same rows from each."""

import bz2
import gzip
import io
import json
import lzma
import sys
import zipfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import datasets
import openpyxl
import pyarrow as pa
import pyarrow.feather
import pytest

from featherweight.data.files.formats import BadRow
from featherweight.data.rows import STANDARD_INPUT, open_rows
from featherweight.errors import DataError, MissingExtraError

TEXTS = ["i feel fine", 'she said "no"', "a; b, c", "zażółć 🙂"]
LABELS = ["joy", "anger", "fear", "joy"]
ROWS = [{"text": text, "label": label} for text, label in zip(TEXTS, LABELS, strict=True)]


def values_of(path: Path, unlabeled: bool = False) -> list[object]:
    """Returns the values of each row; a bad row is its problem."""
    with open_rows(path, unlabeled=unlabeled) as rows:
        return [values.problem if isinstance(values, BadRow) else values for _, values in rows]


def message(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        values_of(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def write_excel(path: Path) -> None:
    workbook = openpyxl.Workbook()
    workbook.create_sheet("empty", 0)
    sheet = workbook.active = workbook.worksheets[1]
    for row in [("text", "label"), *zip(TEXTS, LABELS, strict=True)]:
        sheet.append(row)
    workbook.save(path)


def write_stream(path: Path) -> None:
    table = pa.Table.from_pylist(ROWS)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)


JSON_LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
WRITERS: dict[str, Callable[[Path], object]] = {
    "array.json": lambda path: path.write_text(json.dumps(ROWS, indent=1)),
    "columns.json": lambda path: path.write_text(json.dumps({"text": TEXTS, "label": LABELS})),
    "pandas.json": lambda path: path.write_text(
        json.dumps({"text": dict(enumerate(TEXTS)), "label": dict(enumerate(LABELS))})
    ),
    "wrapped.json": lambda path: path.write_text(json.dumps({"data": ROWS})),
    "lines.json": lambda path: path.write_text(JSON_LINES),
    "lines.txt": lambda path: path.write_text(JSON_LINES),
    "lines.csv": lambda path: path.write_text(JSON_LINES),
    "lines": lambda path: path.write_text(JSON_LINES),
    "lines.utf16.jsonl": lambda path: path.write_text(JSON_LINES, encoding="utf-16"),
    "table.feather": lambda path: pa.feather.write_feather(pa.Table.from_pylist(ROWS), path),
    "stream.arrow": write_stream,
    "table.xlsx": write_excel,
}
COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda content: bytes(pa.compress(content, "zstd", asbytes=True)),
}


@pytest.mark.parametrize("suffix", ["", *COMPRESSIONS, ".zip"])
@pytest.mark.parametrize("name", WRITERS)
def test_every_container_yields_the_same_rows(tmp_path: Path, name: str, suffix: str) -> None:
    path = tmp_path / name
    WRITERS[name](path)
    if suffix == ".zip":
        with zipfile.ZipFile(tmp_path / "download.zip", "w") as archive:
            archive.write(path, f"folder/{name}")
            archive.writestr("__MACOSX/folder/._x", "metadata of the system")
        path = tmp_path / "download.zip"
    elif suffix:
        content = path.read_bytes()
        path = tmp_path / f"{name}{suffix}"
        path.write_bytes(COMPRESSIONS[suffix](content))
    assert values_of(path) == ROWS


def test_a_compressed_file_is_read_under_any_name(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(gzip.compress(b"text,label\na,joy\n"))
    assert values_of(path) == [{"text": "a", "label": "joy"}]


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ([], "must contain one file, but contains 0 (none)"),
        (["a.csv", "b.csv"], "must contain one file, but contains 2 (a.csv, b.csv): unpack it"),
    ],
)
def test_a_zip_archive_of_other_than_one_file(
    tmp_path: Path, members: list[str], expected: str
) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("folder/", "")
        for member in members:
            archive.writestr(member, "text\na\n")
    assert expected in message(path)


@pytest.mark.parametrize("suffix", COMPRESSIONS)
def test_a_truncated_file_is_refused(tmp_path: Path, suffix: str) -> None:
    lines = "".join(f"text {i * 7919 % 1000},joy\n" for i in range(500))
    path = tmp_path / f"a.csv{suffix}"
    path.write_bytes(COMPRESSIONS[suffix](f"text,label\n{lines}".encode())[:-20])
    assert f"a.csv{suffix}" in message(path)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.json", "", "a.json is empty"),
        ("a.json", "[]", "a.json must be an array of objects"),
        ("a.json", "[{", "a.json: invalid JSON"),
        ("a.json", '{"text": ["a"], "label": []}', "columns have different lengths"),
        ("a.json", "[" * 100_000, "a.json: invalid JSON"),
        ("a.json", "7", "must be an array of objects"),
        ("a.xlsx", "text", "a.xlsx is not a valid .xlsx file"),
        ("a.xlsx", b"PK\x03\x04 and nothing else", "a.xlsx: corrupt zip archive"),
        ("a.xls", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "save it as .xlsx or .csv"),
        ("a.arrow", b"ARROW1 and nothing else", "is not a valid Arrow file"),
    ],
)
def test_error_message_for_a_broken_container(
    tmp_path: Path, name: str, content: str | bytes, expected: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    assert expected in message(path)


def test_json_rows_that_are_not_objects_are_bad(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('[{"text": "a"}, 7, {"label": NaN}]')
    assert values_of(path) == [{"text": "a"}, "not an object with named fields", {"label": None}]


def test_nan_in_json_is_null(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": NaN, "n": [Infinity, -Infinity, 1.5]}\n')
    assert values_of(path) == [{"text": None, "n": [None, None, 1.5]}]


def test_json_lines_under_another_name_are_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "featherweight")
    path = tmp_path / "export.log"
    path.write_text(JSON_LINES)
    assert values_of(path) == ROWS
    assert "export.log is read as JSON lines" in caplog.text


def test_excel_cells_are_read_as_displayed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    workbook = openpyxl.Workbook()
    sheet = workbook.active
    assert sheet
    for row in [
        ("text", None, "label", "when"),
        (42, 1.5, 3.0, datetime(2024, 5, 1, 12)),
        (),
        ("a", None, True),
    ]:
        sheet.append(row)
    workbook.create_sheet("more").append(("another", "table"))
    workbook.save(tmp_path / "a.xlsx")
    with open_rows(tmp_path / "a.xlsx") as rows:
        assert list(rows) == [
            (2, {"text": "42", "column_2": "1.5", "label": "3", "when": "2024-05-01T12:00:00"}),
            (4, {"text": "a", "column_2": "", "label": "True", "when": ""}),
        ]
    assert "only the sheet 'Sheet' is read; it has 2 sheets with rows" in caplog.text


def test_excel_needs_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_excel(tmp_path / "a.xlsx")
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(MissingExtraError, match=r"openpyxl .* 'featherweight\[excel\]'"):
        values_of(tmp_path / "a.xlsx")


def test_class_names_of_a_schema(tmp_path: Path) -> None:
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["sad", "glad"])}
    )
    data = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features)
    data.to_parquet(tmp_path / "a.parquet")
    data.save_to_disk(tmp_path / "saved")
    for path in (tmp_path / "a.parquet", *(tmp_path / "saved").glob("*.arrow")):
        with open_rows(path) as rows:
            assert rows.class_names == {"label": ("sad", "glad")}
            assert rows.schema.names == ["text", "label"]


@pytest.mark.parametrize(
    ("content", "labeled", "unlabeled"),
    [
        (
            "it was cold; sadly\n\nno label\n",
            [
                {"text": "it was cold", "label": " sadly"},
                "no label; write it after the text and a ';'",
            ],
            [{"text": "it was cold; sadly"}, {"text": ""}, {"text": "no label"}],
        ),
        (
            "__label__joy what a day\n__label__a __label__b two\nnone at all\n",
            [
                {"text": "what a day", "label": "joy"},
                "2 labels, and one is needed; write __label__NAME before the text",
                "no label; write __label__NAME before the text",
            ],
            None,
        ),
    ],
)
def test_lines_of_text(
    tmp_path: Path, content: str, labeled: list[object], unlabeled: list[object] | None
) -> None:
    path = tmp_path / "a.txt"
    path.write_text(content)
    assert values_of(path) == labeled
    assert values_of(path, unlabeled=True) == (unlabeled or labeled)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"text,n\na,1\n", [{"text": "a", "n": "1"}]),
        (b"text;n\na;1\n", [{"text": "a", "n": "1"}]),
        (b'{"text": "a"}\n{"n": 1}\n', [{"text": "a"}, {"n": 1}]),
        (gzip.compress(b"text\na\n", mtime=0), [{"text": "a"}]),
    ],
)
def test_standard_input(
    monkeypatch: pytest.MonkeyPatch, content: bytes, expected: list[object]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    with open_rows(STANDARD_INPUT) as rows:
        assert str(rows) == "standard input"
        assert rows.size_bytes == len(content)
        assert [values for _, values in rows] == expected
        assert rows.place(3) == "standard input, line 3"
