"""Labels, names and texts that look like code never change the structure of what shows them."""

import csv
import io
import json
import re
from functools import partial
from html.parser import HTMLParser
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from huggingface_hub import ModelCard

from featherweight.comparison import text
from featherweight.comparison.page import comparison_page
from featherweight.hub.push import contents
from featherweight.reports.terminal import controls_terminal
from featherweight.run import Run
from featherweight.timing.latency import measure
from tests.helpers.command_line import TINY, call

LABELS = [
    '"><img src=x onerror=alert(1)>', "# heading", "- item", "1. item", "<!-- x",
    "<script>alert(1)</script>", '=HYPERLINK("http://x","y")', "@SUM(A1)", "[x]: y", "\\",
    "](javascript:x)", "`", "```", "a|b", "{{ 7 * 7 }}", "\u200b=1+1", "＝1", "😂",
]  # fmt: skip
NAME = "=<b onclick=alert(1)>|`](javascript:x)&lt; _x_ ='\""
TEXTS = [
    "=1+1", "so\x1b[31mhappy", "\u202eevil", "a|b `c` <script>alert(2)</script>", "](javascript:x)",
    "two\nlines", " \u200b@SUM(A1)", "</td></tr><tr><td>",
]  # fmt: skip
PLAIN_NAME = "plain"


class Runs(NamedTuple):
    """The same training and comparison with plain names and with hostile ones."""

    plain: Path
    hostile: Path
    report: Path  # of the hostile run
    printed: str  # by all verbs for the hostile run


def write_data(folder: Path, labels: list[str]) -> Path:
    folder.mkdir()
    for split, per_class in (("train", 3), ("validation", 1), ("test", 1)):
        texts = cycle(TEXTS)
        rows = [
            {"text": f"{next(texts)} {position}", "label": label}
            for _ in range(per_class)
            for position, label in enumerate(labels)
        ]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(lines)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("hostile")
    names = {NAME: LABELS, PLAIN_NAME: [f"l{index:02d}" for index in range(len(LABELS))]}
    printed = pytest.MonkeyPatch()
    out = io.StringIO()
    printed.setattr("sys.stdout", out)
    quick = {"min_iterations": 1, "min_seconds": 0.01}
    printed.setattr("featherweight.comparison.compare.measure", partial(measure, **quick))
    printed.setattr("featherweight.test._MIN_SECONDS", 0.01)
    for name, labels in names.items():
        data = write_data(folder / f"data-{len(labels[0])}", labels)
        where = ["--output_dir", folder]
        assert call("train", "--data", data, "--name", name, *where, *TINY) == 0
        assert call("test", "--weights", folder / name, "--device", "cpu") == 0
    hostile = folder / NAME
    report = folder / "report"
    flags = ["--disagreements", "5", "--batch_sizes", "1", "--device", "cpu"]
    assert call("compare", hostile, *flags, "--output_path", report) == 0
    assert call("predict", "--weights", hostile, *TEXTS) == 0
    printed.undo()
    return Runs(folder / PLAIN_NAME, hostile, report, out.getvalue())


def test_the_labels_are_sorted_like_the_plain_ones() -> None:
    assert sorted(LABELS) == LABELS  # so that both runs have the same weights and predictions


def test_the_terminal_shows_lines_without_control_characters(made: Runs) -> None:
    lines = made.printed.split("\n")
    assert not any(map(controls_terminal, lines))
    for label in LABELS:
        assert any(line.startswith(f"{label}  ") for line in lines)
    for sample in ("so�[31mhappy", "�evil", "two lines"):
        assert any(line.startswith(sample) for line in lines)


# Markdown


def structure(markdown: str) -> dict[str, Any]:
    """Returns headings, tables and embedded elements of Markdown, as a renderer finds them."""
    kept, fence = [], ""
    blocks = 0
    for line in markdown.splitlines():
        opened = re.match(r"`{3,}", line)
        if fence:
            fence = "" if line.strip() == fence else fence
        elif opened:
            fence, blocks = opened[0], blocks + 1
        else:
            kept.append(re.sub(r"\\[!-/:-@\[-`{-~]", "·", without_code(line)))
    return {
        "headings": [len(line.split(" ")[0]) for line in kept if re.match(r"#{1,6} ", line)],
        "code blocks": blocks,
        "open": fence,
        "columns": [line.count("|") for line in kept if line.startswith("|")],
        "items": sum(bool(re.match(r"([-+*]|1[.)])\s", line)) for line in kept),
        "links": [target for line in kept for target in re.findall(r"\]\(([^)]*)\)", line)],
        "references": sum(bool(re.match(r"\[[^]]*\]: \S+$", line)) for line in kept),
        "elements": [tag for line in kept for tag in re.findall(r"<[A-Za-z/!?]", line)],
        "emphasis": sum(len(re.findall(r"(?<!\w)[_*]+(?=\S)|~~", line)) for line in kept),
        "entities": sum(len(re.findall(r"&#?\w+;", line)) for line in kept),
        "backticks": sum(line.count("`") for line in kept),
    }


def without_code(line: str) -> str:
    """Returns a line without its code spans; a backslash before a fence makes it text."""
    return re.sub(r"(?<![\\`])(`+)(?!`).+?(?<!`)\1(?!`)", "code", line)


def plain_record(record: Any) -> Any:
    """Returns a record with plain labels and names."""
    names = {label: f"l{index:02d}" for index, label in enumerate(LABELS)} | {NAME: PLAIN_NAME}
    if isinstance(record, dict):
        return {names.get(key, key): plain_record(value) for key, value in record.items()}
    if isinstance(record, list):
        return [plain_record(value) for value in record]
    if isinstance(record, str) and any(record.startswith(start) for start in TEXTS):
        return "so happy"
    return names.get(record, record) if isinstance(record, str) else record


def test_the_card_of_a_run_has_the_same_structure(made: Runs) -> None:
    hostile, plain = ((run / "README.md").read_text() for run in (made.hostile, made.plain))
    assert structure(hostile) == structure(plain)


def test_the_card_for_the_hub_has_the_same_structure(made: Runs) -> None:
    cards = [
        ModelCard(contents(Run(run), "ada/moods")["README.md"].decode())  # type: ignore[union-attr]
        for run in (made.hostile, made.plain)
    ]
    hostile, plain = cards
    assert structure(hostile.text) == structure(plain.text)
    assert "## Test" in hostile.text
    (entry,) = hostile.data.to_dict()["model-index"]
    assert entry["name"] == NAME
    assert [result["dataset"]["split"] for result in entry["results"]] == ["validation", "test"]


def test_the_report_has_the_same_structure(made: Runs) -> None:
    record = json.loads((made.report / "report.json").read_text())
    hostile = (made.report / "report.md").read_text()
    assert hostile == text.markdown(record)
    assert structure(hostile) == structure(text.markdown(plain_record(record)))


def test_remarks_of_models_have_the_same_structure(made: Runs) -> None:
    record = json.loads((made.report / "report.json").read_text())
    plain = json.loads(json.dumps(record))
    for label in [*LABELS, *TEXTS]:
        record["rows"][0] |= {"model": label, "note": label, "rejected": label}
        plain["rows"][0] |= {"model": "plain", "note": "plain", "rejected": "plain"}
        shown, expected = (text.legend(each, text.escaped) for each in (record, plain))
        assert structure(shown) == structure(expected)


# HTML


class Elements(HTMLParser):
    """The elements of a page with the names of their attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[Any] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, *(name for name, _ in attrs)))

    def handle_endtag(self, tag: str) -> None:
        self.found.append(f"/{tag}")

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_comment(self, data: str) -> None:
        self.found.append("comment")


def test_the_page_has_the_same_elements(made: Runs) -> None:
    record = json.loads((made.report / "report.json").read_text())
    pictures = dict.fromkeys(text.PICTURES, b"")
    hostile = Elements(comparison_page(record, pictures))
    plain = Elements(comparison_page(plain_record(record), pictures))
    assert hostile.found == plain.found
    for name in [NAME, *LABELS]:
        assert name in hostile.text
    written = Elements((made.report / "report.html").read_text())
    assert written.found == hostile.found


# CSV


def starts_a_formula(cell: str) -> bool:
    """Returns whether a spreadsheet that skips what is invisible sees a formula."""
    visible = re.sub(r"\A[\s\u200b-\u200f\u202a-\u202e\u2060\ufeff\xad]+", "", cell)
    try:
        float(cell)
    except ValueError:
        return visible[:1] in tuple("=+-@＝＋－＠")
    return False


def test_no_cell_is_a_formula_and_every_row_is_whole(made: Runs) -> None:
    texts = made.report.parent / "texts.csv"
    with texts.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["text", "=note"], *zip(TEXTS, TEXTS, strict=True)])
    assert call("predict", "--weights", made.hostile, "--csv", texts) == 0
    files = [
        made.report / "report.csv", texts.with_name("texts_predictions.csv"),
        made.hostile / "predictions.csv", made.hostile / "predictions-test.csv",
    ]  # fmt: skip
    for path in files:
        with path.open(newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file, strict=True)
        assert rows
        assert {len(row) for row in rows} == {len(header)}
        assert not any(starts_a_formula(cell) for row in rows for cell in row)
        own = [name for name in header if name != "=note"]  # that of the input is unchanged
        assert not any(map(starts_a_formula, own))
    with files[0].open(newline="", encoding="utf-8") as file:
        assert next(csv.DictReader(file))["model"] == f"'{NAME}"
