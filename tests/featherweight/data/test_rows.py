"""Rows of every format, and the error message for each kind of broken file."""

import csv
import gzip
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featherweight.data.files.formats import BadRow
from featherweight.data.rows import Rows, file_format, file_stem, listing, open_rows
from featherweight.errors import DataError

ROWS = [
    ("i feel fine", "joy"),
    ("well, well", "fear"),
    ('she said "no"', "anger"),
    ("zażółć 🙂", "joy"),
]


def write_delimited(path: Path, delimiter: str) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows([("text", "label"), *ROWS])


def write_json_lines(path: Path) -> None:
    lines = [json.dumps({"text": text, "label": label}) + "\n" for text, label in ROWS]
    path.write_text("".join(lines), encoding="utf-8")


def write_labeled_lines(path: Path) -> None:
    lines = [f"{text};{label}\n" for text, label in ROWS]
    path.write_text("".join(lines), encoding="utf-8")


def write_parquet(path: Path) -> None:
    texts, labels = zip(*ROWS, strict=True)
    pq.write_table(pa.table({"text": texts, "label": labels}), path)


WRITERS: dict[str, Callable[[Path], None]] = {
    ".csv": lambda path: write_delimited(path, ","),
    ".tsv": lambda path: write_delimited(path, "\t"),
    ".jsonl": write_json_lines,
    ".ndjson": write_json_lines,
    ".txt": write_labeled_lines,
    ".parquet": write_parquet,
}


def compress(path: Path) -> Path:
    zipped = path.with_name(path.name + ".gz")
    zipped.write_bytes(gzip.compress(path.read_bytes()))
    return zipped


def file_of(tmp_path: Path, name: str, content: bytes | str) -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(path: Path) -> list[tuple[int, dict[str, object]]]:
    """Returns all rows as training reads them: a bad one is an error."""
    result = []
    with open_rows(path) as rows:
        for number, values in rows:
            if isinstance(values, BadRow):
                raise DataError(f"{rows.place(number)}: {values.problem}")
            result.append((number, values))
    return result


def message(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read(path)
    text = str(caught.value)
    assert path.name in text
    assert "\n" not in text
    return text


@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("kind", WRITERS)
def test_every_format_yields_the_same_rows(tmp_path: Path, kind: str, zipped: bool) -> None:
    path = tmp_path / f"reviews{kind}"
    WRITERS[kind](path)
    path = compress(path) if zipped else path

    with open_rows(path) as rows:
        assert rows.columns == ("text", "label")
        assert rows.size_bytes == path.stat().st_size
        records = [(*record, rows.bytes_read()) for record in rows]
        assert rows.bytes_read() == rows.size_bytes

    assert [(values["text"], values["label"]) for _, values, _ in records] == ROWS
    first = 2 if kind in (".csv", ".tsv") else 1
    assert [number for number, _, _ in records] == list(range(first, first + len(ROWS)))
    positions = [position for _, _, position in records]
    assert positions == sorted(positions)


def test_bytes_read_halfway(tmp_path: Path) -> None:
    lines = [f"text number {i},joy\n" for i in range(20_000)]
    path = file_of(tmp_path, "long.csv", "text,label\n" + "".join(lines))
    with open_rows(path) as rows:
        for number, _ in rows:
            if number == 10_000:
                break
        assert 0.4 < rows.bytes_read() / rows.size_bytes < 0.6


@pytest.mark.parametrize("kind", [".csv", ".jsonl", ".parquet"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, kind: str) -> None:
    text = "a text of some length " * 20
    path = tmp_path / f"big{kind}"
    if kind == ".parquet":
        with pq.ParquetWriter(path, pa.schema({"text": pa.string()})) as writer:
            for _ in range(8):
                writer.write_table(pa.table({"text": [text] * 1_000}))
    else:
        line = text if kind == ".csv" else json.dumps({"text": text})
        path.write_text("text\n" * (kind == ".csv") + f"{line}\n" * 8_000)

    tracemalloc.start()
    with open_rows(path) as rows:
        assert sum(1 for _ in rows) == 8_000
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak_bytes < 2_000_000  # the texts have 3.5 MB


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("\ufefftext,label\na,b\n", [(2, "a")]),
        ('\ufeff"text",label\na,b\n', [(2, "a")]),
        ("text,label\r\na,b\r\nc,d\r\n", [(2, "a"), (3, "c")]),
        ('text,label\n"a\nb",x\nc,d\n', [(2, "a\nb"), (4, "c")]),
        ('text,label\r\n"a\r\nb",x\r\nc,d\r\n', [(2, "a\r\nb"), (4, "c")]),
        ("text,label\n\na,b\n   \nc,d\n\n", [(3, "a"), (5, "c")]),
        ("text,label\na,b", [(2, "a")]),
        ('text,label\n"say ""hi""",b\n', [(2, 'say "hi"')]),
        ("text,label\n,b\n", [(2, "")]),
        ("text,label\n👩‍👩‍👧,b\n", [(2, "👩‍👩‍👧")]),
        ("text,label\na\u2028b\x0bc\x85,b\n", [(2, "a\u2028b\x0bc\x85")]),
        ('text\na\n\n""\nb\n', [(2, "a"), (4, ""), (5, "b")]),
    ],
)
def test_valid_csv(tmp_path: Path, content: str, expected: list[tuple[int, str]]) -> None:
    path = file_of(tmp_path, "a.csv", content)
    assert [(number, values["text"]) for number, values in read(path)] == expected


def test_a_very_long_field_is_read(tmp_path: Path) -> None:
    text = "long " * 200_000
    assert read(file_of(tmp_path, "a.csv", f"text,label\n{text},joy\n"))[0][1]["text"] == text


def test_labeled_lines_are_split_at_the_last_semicolon(tmp_path: Path) -> None:
    path = file_of(tmp_path, "a.txt", "\ufeffone; two; three;joy\r\n\r\nfour;fear")
    assert read(path) == [
        (1, {"text": "one; two; three", "label": "joy"}),
        (3, {"text": "four", "label": "fear"}),
    ]


def test_json_lines_keep_scalars_and_skip_blank_lines(tmp_path: Path) -> None:
    path = file_of(tmp_path, "a.jsonl", '{"text": "a", "n": 1}\n\n{"text": null, "n": 2.5}\n')
    assert read(path) == [(1, {"text": "a", "n": 1}), (3, {"text": None, "n": 2.5})]


def test_the_columns_of_json_lines_are_the_keys_of_all_objects(tmp_path: Path) -> None:
    path = file_of(tmp_path, "a.jsonl", '{"b": 1, "a": 2}\n{"c": 3, "a": 4}\n')
    with open_rows(path) as rows:
        assert rows.columns == ("b", "a", "c")


def test_extensions_are_read_in_any_case(tmp_path: Path) -> None:
    path = file_of(tmp_path, "A.CSV.GZ", gzip.compress(b"text,label\na,b\n"))
    assert read(path) == [(2, {"text": "a", "label": "b"})]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", "text,label\na,b\nc\n", "line 3: 1 field(s), but the header has 2"),
        ("a.csv", "text,label\na,b,c\n", "line 2: 3 field(s), but the header has 2"),
        ("a.tsv", "text\tlabel\na\tb\tc\n", "line 2: 3 field(s)"),
        ("a.csv", 'text,label\na,b\n"c,d\ne,f\n', "line 3: unexpected end of data"),
        ("a.csv", 'text,label\n"a" b,c\n', "line 2: ',' expected after '\"'"),
        ("a.csv", "text,text\na,b\n", "duplicate columns (text)"),
        ("a.csv", "", "is empty"),
        ("a.csv", "\n\n", "is empty"),
        ("a.csv", "\ufeff", "is empty"),
        ("a.csv.gz", "", "is empty"),
        ("a.jsonl", "", "is empty"),
        ("a.txt", " \n", "is empty"),
        ("a.parquet", "", "is empty"),
        ("a.csv", b"text,label\na,b\ncaf\xe9,b\n", "line 3: not UTF-8 (byte 0xe9)"),
        ("a.txt", b"caf\xe9;b\n", "line 1: not UTF-8 (byte 0xe9)"),
        ("a.csv", "text,label\n".encode("utf-16-le"), "has NUL bytes: try --encoding utf-16-le"),
        ("a.csv", "text,label\n".encode("utf-16-be"), "has NUL bytes: try --encoding utf-16-be"),
        ("a.csv", "text\n".encode("utf-16") + b"a", "after line 1: "),
        ("a.csv", b"\x00\x01\x02\x03", "a.csv is a binary file"),
        ("a.csv", b"PAR1\x15\x04\x15", "is not a valid Parquet file"),
        ("a.jsonl", b"\x89PNG\r\n\x1a\n", "is a binary file"),
        ("a.csv", b"text,label\n" + b"a,b\n" * 999 + b"a\0,b\n", "line 1001: a NUL byte"),
        ("a.csv.gz", gzip.compress(b"text,label\na,b\n" * 9, mtime=0)[:-12], "corrupt ("),
        ("a.csv.gz", gzip.compress(b"text,label\na,b\n", mtime=0)[:-8] + b"\0" * 8, "corrupt ("),
        ("a.parquet.gz", gzip.compress(b"PAR1" * 99, mtime=0)[:-9], "corrupt ("),
        ("a.jsonl", '{"text": "a"}\n{"text": \n', "line 2: invalid JSON"),
        ("a.jsonl", '{"text": "a"}\n["a"]\n', "line 2: not a JSON object"),
        ("a.jsonl", "[" * 100_000, "line 1: invalid JSON"),
        ("a.jsonl", '{"n": ' + "9" * 5_000 + "}", "line 1: invalid JSON"),
        ("a.txt", "a;joy\nno label here\n", "line 2: no label"),
        ("a.parquet", b"PAR1 and then nothing of the kind PAR1", "is not a valid Parquet file"),
        (
            "a.docx",
            "text",
            "unknown format; supported are .csv .tsv .jsonl .ndjson .json ",
        ),
        ("a.gz", "text", "unknown format"),
    ],
)
def test_error_message_for_a_broken_file(
    tmp_path: Path, name: str, content: bytes | str, expected: str
) -> None:
    assert expected in message(file_of(tmp_path, name, content))


@pytest.mark.parametrize("cut", [0.2, 0.5, 0.9])
def test_a_truncated_parquet_file_is_refused(tmp_path: Path, cut: float) -> None:
    path = tmp_path / "a.parquet"
    write_parquet(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * cut)])
    assert "is not a valid Parquet file" in message(path)


def test_a_damaged_parquet_page_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [f"text {i}" for i in range(5_000)]}), path)
    damaged = bytearray(path.read_bytes())
    damaged[200:2_000] = b"\xff" * 1_800
    path.write_bytes(damaged)
    assert "corrupt (" in message(path)


def test_a_missing_file_and_a_directory(tmp_path: Path) -> None:
    assert message(tmp_path / "gone.csv").startswith("no such file: ")
    folder = tmp_path / "folder.csv"
    folder.mkdir()
    assert "is a directory, not a file" in message(folder)


def test_the_file_is_closed_at_the_end_and_after_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = file_of(tmp_path, "broken.csv", "text,text\n")
    good = file_of(tmp_path, "good.csv", "text,label\na,b\n")
    files: list[IO[Any]] = []
    path_open = Path.open

    def open_and_note(path: Path, mode: str = "r") -> IO[Any]:
        files.append(path_open(path, mode))
        return files[-1]

    monkeypatch.setattr(Path, "open", open_and_note)
    message(broken)
    with open_rows(good) as rows:
        next(iter(rows))

    assert len(files) >= 2
    assert all(file.closed for file in files)


@pytest.mark.parametrize(
    ("name", "place"), [("a.csv", "a.csv, line 7"), ("a.parquet", "a.parquet, row 7")]
)
def test_place_names_a_line_or_a_row(tmp_path: Path, name: str, place: str) -> None:
    path = tmp_path / name
    WRITERS[path.suffix](path)
    with open_rows(path) as rows:
        assert isinstance(rows, Rows)
        assert rows.place(7).endswith(place)


@pytest.mark.parametrize(
    ("name", "stem", "kind"),
    [
        ("train.csv", "train", ".csv"),
        ("train.csv.gz", "train", ".csv"),
        ("my.train.JSONL", "my.train", ".jsonl"),
        ("train.csv.zst", "train", ".csv"),
        ("train.xlsx", "train", ".xlsx"),
        ("README.md", "README.md", ""),
    ],
)
def test_stem_and_format_of_a_name(name: str, stem: str, kind: str) -> None:
    assert file_stem(Path(name)) == stem
    assert file_format(Path(name)) == kind


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([], ""),
        (["joy", "fear"], "joy, fear"),
        ([str(n) for n in range(12)], "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"),
        (["x" * 60] * 5, f"{', '.join(['x' * 60] * 3)} and 2 more"),
        (["a" * 50 + "b" * 50, "c"], f"{'a' * 30}…{'b' * 29}, c"),
    ],
)
def test_a_listing_is_short(names: list[str], expected: str) -> None:
    assert listing(names) == expected
