"""Delimited files in the dialects that people have: recognized, or given with flags."""

import bz2
import gzip
import io
import lzma
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featherweight.data.dialect import Dialect
from featherweight.data.files.formats import BadRow, Record
from featherweight.data.rows import open_rows
from featherweight.errors import DataError, UsageError


def rows_of(path: Path, dialect: Dialect | None = None) -> list[Record]:
    with open_rows(path, dialect or Dialect()) as rows:
        return list(rows)


def pairs(path: Path, dialect: Dialect | None = None) -> list[tuple[object, ...]]:
    """Returns the cells of each row; a bad row is its problem."""
    return [
        (values.problem,) if isinstance(values, BadRow) else tuple(values.values())
        for _, values in rows_of(path, dialect)
    ]


def written(tmp_path: Path, name: str, content: str | bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    ("kind", "name", "content", "expected"),
    [
        ("semicolons", "a.csv", "text;label\na, b;joy\nc;fear\n", [("a, b", "joy"), ("c", "fear")]),
        ("vertical bars", "a.csv", "text|label\na, b|joy\n", [("a, b", "joy")]),
        ("tabs in .csv", "a.csv", "text\tlabel\na, b\tjoy\n", [("a, b", "joy")]),
        ("commas in .tsv", "a.tsv", "text,label\na,joy\n", [("a", "joy")]),
        ("one column", "a.csv", "text\na; b\nc, d | e\n", [("a; b",), ("2 field(s)",)]),
        ("sep= line", "a.csv", "sep=;\r\ntext;label\r\na;joy\r\n", [("a", "joy")]),
        ("quoted sep= line", "a.csv", '"sep=,"\ntext,label\na,joy\n', [("a", "joy")]),
        ("space after comma", "a.csv", 'text, label\n"a, b", joy\n', [("a, b", "joy")]),
        ("backslashed quotes", "a.csv", 'text,label\n"a \\"b\\" c",joy\n', [('a "b" c', "joy")]),
        ("backslash in a plain file", "a.csv", 'text,label\n"C:\\new",joy\n', [("C:\\new", "joy")]),
        ("CR only", "a.csv", 'text,label\ra,joy\r"b\rc",fear\r', [("a", "joy"), ("b\rc", "fear")]),
        ("nameless columns", "a.csv", "v1,v2,,,\njoy,a,,,\nfear,b\n",
         [("joy", "a", "", "", ""), ("fear", "b", "", "", "")]),
        ("cells beyond the header", "a.csv", "text,label\na,joy,,\n", [("a", "joy")]),
        ("index column", "a.csv", ",text\n0,a\n", [("0", "a")]),
        ("commas only", "a.csv", "text,label\n,,\na,joy\n,\n", [("a", "joy")]),
        ("quotes in a cell", "a.csv", 'text,label\nsay "no",joy\n', [('say "no"', "joy")]),
        ("tsv: quote that opens a tweet", "a.tsv", 'text\tlabel\n"hello\tjoy\nb\tfear\nc" d\tjoy\n',
         [('"hello', "joy"), ("b", "fear"), ('c" d', "joy")]),
        ("tsv: quoted cell", "a.tsv", 'text\tlabel\n"a ""b"" c"\tjoy\n"d\te"\tfear\n',
         [('a "b" c', "joy"), ("d\te", "fear")]),
        ("tsv: quote over two cells", "a.tsv", 'text\tlabel\n"a\tb"\n', [('"a', 'b"')]),
        ("tsv: empty last cell", "a.tsv", "text\tlabel\na\t\n", [("a", "")]),
    ],
)  # fmt: skip
def test_recognized_dialect(
    tmp_path: Path, kind: str, name: str, content: str, expected: list[tuple[str, ...]]
) -> None:
    found = pairs(written(tmp_path, name, content))
    assert len(found) == len(expected)
    for actual, cells in zip(found, expected, strict=True):
        assert actual == cells or str(actual[0]).startswith(cells[0])


@pytest.mark.parametrize(
    ("flags", "content", "expected"),
    [
        (Dialect(delimiter="tab"), "text\tlabel\na,b\tjoy\n", [("a,b", "joy")]),
        (Dialect(delimiter="\\t"), "text\tlabel\na,b\tjoy\n", [("a,b", "joy")]),
        (Dialect(delimiter="#"), "text#label\na#joy\n", [("a", "joy")]),
        (Dialect(quoting="none"), 'text,label\n"a,joy\nb",fear\n', [('"a', "joy"), ('b"', "fear")]),
        (Dialect(encoding="cp1252"), "text,label\ncafé,joy\n".encode("cp1252"), [("café", "joy")]),
        (Dialect(encoding="utf-16-le"), "text,label\na,joy\n".encode("utf-16-le"), [("a", "joy")]),
        (Dialect(encoding="utf-8"), "\ufefftext,label\na,joy\n", [("a", "joy")]),
    ],
)
def test_given_dialect(
    tmp_path: Path, flags: Dialect, content: str | bytes, expected: list[tuple[str, ...]]
) -> None:
    assert pairs(written(tmp_path, "a.csv", content), flags) == expected


def test_a_file_without_header(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", "joy,a\nfear,b\n")
    assert rows_of(path, Dialect(header=False)) == [
        (1, {"column_1": "joy", "column_2": "a"}),
        (2, {"column_1": "fear", "column_2": "b"}),
    ]


@pytest.mark.parametrize(
    "flags", [{"encoding": "utf-9"}, {"encoding": "hex"}, {"delimiter": ",,"}, {"delimiter": '"'}]
)
def test_a_flag_of_no_dialect_is_refused(flags: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=f"--{next(iter(flags))} "):
        Dialect(**flags)  # type: ignore[arg-type]


def test_a_recognized_delimiter_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "featherweight")
    rows_of(written(tmp_path, "a.csv", "text;label\na;joy\n"))
    assert "the columns are separated by semicolons" in caplog.text


def test_two_possible_delimiters_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", "a;b|joy\nc;d|fear\n")
    with pytest.raises(DataError, match="semicolons or vertical bars: give --delimiter"):
        rows_of(path)


def test_rows_of_commas_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "featherweight")
    rows_of(written(tmp_path, "a.csv", "text,label\n,\n,,,\na,joy\n\n"))
    assert "2 rows without any content are skipped" in caplog.text


@pytest.mark.parametrize(
    "swallowed", ['"b,fear\nc,joy\nd,fear\ne",joy\n', '"b\tfear\nc\tjoy",joy\n']
)
def test_a_cell_that_looks_like_rows_is_reported(
    tmp_path: Path, swallowed: str, caplog: pytest.LogCaptureFixture
) -> None:
    rows_of(written(tmp_path, "a.csv", f"text,label\na,joy\n{swallowed}"))
    assert "line 3: a cell has line breaks and looks like several rows" in caplog.text


def test_an_ordinary_cell_of_several_lines_is_not_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = written(tmp_path, "a.csv", 'text,label\n"dear all\nthank you\nbye",joy\n')
    assert pairs(path) == [("dear all\nthank you\nbye", "joy")]
    assert not caplog.text


def test_rows_after_an_unclosed_quote_are_read(tmp_path: Path) -> None:
    lines = ["text,label\n", '"a,joy\n', *(f"text {i},fear\n" for i in range(2_000))]
    found = pairs(written(tmp_path, "a.csv", "".join(lines)))
    assert len(found) == 2_001
    assert str(found[0][0]).startswith("unexpected end of data; quote a text")
    assert found[1:] == [(f"text {i}", "fear") for i in range(2_000)]


def test_only_the_first_line_of_a_ragged_row_is_bad(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", 'text,label\n"a,joy\nb,fear\nc",d,joy\ne,joy\n')
    assert [found[-1] for found in pairs(path)[1:2]] == ["fear"]
    assert pairs(path)[-1] == ("e", "joy")


@pytest.mark.parametrize(
    ("sentence", "encoding"),
    [
        ("le café était très agréable, déjà vu", "cp1252"),
        ("“quoted” – and a dash", "cp1252"),
        ("今日はとても嬉しいです", "cp932"),
        ("오늘은 정말 기분이 좋아요", "cp949"),
        ("今天我非常高兴", "gb18030"),
        ("сегодня очень хороший день", "cp1251"),
    ],
)
def test_the_likely_encoding_is_named(tmp_path: Path, sentence: str, encoding: str) -> None:
    content = f"text,label\nplain,joy\n{sentence},joy\n" * 20
    path = written(tmp_path, "a.csv", content.encode(encoding))
    with pytest.raises(DataError, match=rf"line 3: not UTF-8 .byte 0x.*--encoding {encoding}$"):
        rows_of(path)


def test_a_single_invalid_byte_after_the_start_is_a_bad_row(tmp_path: Path) -> None:
    lines = [b"text,label\n", *[b"plain,joy\n"] * 20_000, b"caf\xe9,joy\n", b"last,joy\n"]
    found = pairs(written(tmp_path, "a.csv", b"".join(lines)))
    assert found[-2:] == [("not UTF-8 (byte 0xe9); try --encoding cp1252",), ("last", "joy")]


def zipped(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("inside/a.csv", content)
        archive.writestr("__MACOSX/._a.csv", b"metadata")
    return buffer.getvalue()


CONTAINERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zip": zipped,
    ".zst": lambda content: bytes(pa.compress(content, "zstd", asbytes=True)),
}
DELIMITERS = {",": ".csv", ";": ".csv", "|": ".csv", "\t": ".tsv"}


@dataclass(frozen=True)
class Style:
    """How a table is written."""

    delimiter: str
    line_end: str
    encoding: str
    quote_all: bool
    backslash: bool
    space: bool
    sep_line: bool
    header: bool
    suffix: str

    def cell(self, text: str) -> str:
        if not self.quote_all and not set(text) & {self.delimiter, '"', "\n", "\r", " "}:
            return text
        escaped = text.replace('"', '\\"' if self.backslash else '""')
        return f'"{escaped}"'

    def content(self, rows: list[tuple[str, str]]) -> bytes:
        between = self.delimiter + " " * self.space
        lines = [between.join(map(self.cell, row)) for row in rows]
        if self.header:
            lines.insert(0, between.join(("text", "label")))
        if self.sep_line:
            lines.insert(0, f"sep={self.delimiter}")
        return "".join(line + self.line_end for line in lines).encode(self.encoding)


@st.composite
def tables(draw: st.DrawFn) -> tuple[Style, list[tuple[str, str]]]:
    style = Style(
        delimiter=draw(st.sampled_from(list(DELIMITERS))),
        line_end=draw(st.sampled_from(["\n", "\r\n", "\r"])),
        encoding=draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "cp1252", "gb18030"])),
        quote_all=draw(st.booleans()),
        backslash=draw(st.booleans()),
        space=draw(st.booleans()),
        sep_line=draw(st.booleans()),
        header=draw(st.booleans()),
        suffix=draw(st.sampled_from(list(CONTAINERS))),
    )
    letters = "abcz ,;|\"'" + "é" * (style.encoding != "gb18030")
    if style.encoding not in ("cp1252",):
        letters += "喜"
    if style.encoding.startswith("utf"):
        letters += "🙂\u2028\x85\u0301"
    if style.delimiter == "\t":
        style = replace(style, backslash=False, space=False)  # neither exists in TSV
    elif style.line_end != "\r":
        letters += "\t" + "\n\r" * (not style.backslash)
    # A backslash dialect is recognized by quotes inside of cells, a plain one needs no backslash.
    inside = st.text(letters if not style.backslash else letters.replace('"', ""), max_size=8)
    quote = '"' if style.backslash else draw(st.sampled_from(["", '"']))
    text = st.builds(lambda a, b: f"a{a}{quote}x{b}z", inside, inside)
    rows = draw(st.lists(st.tuples(text, st.sampled_from(["joy", "fear"])), min_size=2, max_size=6))
    return style, rows


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tables())
def test_a_table_written_in_any_dialect_is_read_back(
    table: tuple[Style, list[tuple[str, str]]],
) -> None:
    style, rows = table
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{DELIMITERS[style.delimiter]}{style.suffix}"
        path.write_bytes(CONTAINERS[style.suffix](style.content(rows)))
        flags = Dialect(
            encoding="" if style.encoding.startswith("utf") else style.encoding,
            # Without a header, the texts may allow another reading.
            delimiter="" if style.header or style.sep_line else style.delimiter,
            header=style.header,
        )
        assert pairs(path, flags) == rows
