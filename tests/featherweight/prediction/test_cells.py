import csv
import io
import math
from datetime import date

import numpy as np
import pytest

from featherweight.prediction.cells import (
    csv_cell,
    prediction_cells,
    safe_cell,
    to_json,
    write_rows,
)


@pytest.mark.parametrize(
    "cell",
    [
        "=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "=", "-", "-x", "@ann hi",
        "\n=1", "\r\n=1", " =1", "  +x", "\u00a0@x", "\u3000=1", "\v=1", "\f-x",
        "＝1+1", "＋x", "－x", "＠x", " ＝1",
        "\u200b=1", "\ufeff=1", "\u200e=1", "\u202e=1", "\u2066=1", "\u2060=1", "\xad=1",
        "\u200d\u200c \ufe0f=1", "\0=1", "\x1b=1", "\u061c@x", "\u180e=1",
    ],
)  # fmt: skip
def test_formulas_get_an_apostrophe(cell: str) -> None:
    assert safe_cell(cell) == f"'{cell}"


@pytest.mark.parametrize(
    "cell",
    ["", "hi", "a=1", "'=1", "-1", "+3.5", "-1e-3", "😂 =1", "#tag", " -1", " hi", "(=1)",
     "\u200bhi", "…=1", 7, -7, 1.5, None, True],
)  # fmt: skip
def test_other_cells_are_unchanged(cell: object) -> None:
    assert safe_cell(cell) is cell


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize(
    "text",
    [
        "plain", "", "a,b", 'say "no"', "two\nlines", "two\r\nlines", "old\rmac", "end\r",
        "'quoted'", " spaces ", "tab\there", "😂 ünï", "a;b", "\u2028", "x" * 100_000,
    ],
)  # fmt: skip
def test_round_trip_through_csv(text: str, raw: bool) -> None:
    file = io.StringIO(newline="")
    write_rows(file, [("text", "n"), (text, 1)], raw)
    file.seek(0)
    assert list(csv.reader(file, strict=True)) == [["text", "n"], [text, "1"]]


def test_raw_leaves_formulas() -> None:
    file = io.StringIO()
    write_rows(file, [("=1+1", "@ann")], raw=True)
    assert file.getvalue() == "=1+1,@ann\r\n"


def test_every_cell_is_made_safe_including_the_header() -> None:
    file = io.StringIO()
    write_rows(file, [("=head", "b"), ("x", "+1 =")])
    assert file.getvalue() == "'=head,b\r\nx,'+1 =\r\n"


def test_cells_are_checked_whatever_their_type() -> None:
    file = io.StringIO()
    write_rows(file, [(-1, -0.5, None, True, "x"), ("=x", 2, "\u200b=y", "9=", "é=")])
    assert file.getvalue() == "-1,-0.5,,True,x\r\n'=x,2,'\u200b=y,9=,é=\r\n"


def test_json_is_ascii_for_streams_of_unknown_encoding() -> None:
    assert to_json({"é": "😂"}, ascii_only=True) == '{"\\u00e9": "\\ud83d\\ude02"}'
    assert to_json([math.nan, "é"], ascii_only=True) == '[null, "\\u00e9"]'


def test_prediction_cells_are_id_name_and_confidence() -> None:
    probabilities = np.array([[0.25, 0.75], [1.0, 0.0], [0.5, 0.5]])
    cells = list(prediction_cells(("no", "yes"), probabilities))
    assert cells == [(1, "yes", "0.750000"), (0, "no", "1.000000"), (0, "no", "0.500000")]
    assert all(type(label) is int for label, _, _ in cells)


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ({"name": "x", "tags": ["a", None]}, '{"name": "x", "tags": ["a", null]}'),
        ([1, True, "é"], '[1, true, "é"]'),
        ([math.nan, {"x": -math.inf}], '[null, {"x": null}]'),
        ([date(2024, 1, 2), b"x", b"\xff"], '["2024-01-02", "x", "\\\\xff"]'),
        (True, "true"),
        (None, ""),
        (math.nan, ""),
        (b"text", "text"),
        ("text", "text"),
        (7, 7),
        (1.5, 1.5),
    ],
)
def test_values_become_cells_without_python_syntax(value: object, cell: object) -> None:
    assert csv_cell(value) == cell


def test_json_has_null_in_place_of_what_is_no_number() -> None:
    values = {"a": math.nan, "b": [math.inf, 1.5], "c": {"d": (-math.inf, "NaN")}, "e": "é"}
    expected = '{"a": null, "b": [null, 1.5], "c": {"d": [null, "NaN"]}, "e": "é"}'
    assert to_json(values) == expected
