import base64
import copy
import hashlib
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from featherweight.comparison import plots
from featherweight.comparison.page import comparison_page
from featherweight.comparison.text import PICTURES
from tests.helpers.many_classes import with_classes

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, BROWSERS)), "")
ROBUSTNESS = "Robustness: accuracy (predictions changed)"
DISAGREEMENTS = "Texts on which the models disagree most"
ATTACK = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>&amp;"


class Page(HTMLParser):
    """Elements, text and table cells of a page as a browser parses them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.inline: dict[str, str] = {}
        self._open = ""
        self._in_cell = False
        self._rows: list[list[str]] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.elements.append((tag, attributes))
        self._open = tag
        if tag == "div" and "aria-label" in attributes:
            self._rows = self.tables[attributes["aria-label"]] = []
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append("")
            self._in_cell = True
        elif tag == "small":
            self._rows[-1][-1] += " "

    def handle_endtag(self, tag: str) -> None:
        self._open = ""
        if tag in ("td", "th"):
            self._in_cell = False

    def handle_data(self, data: str) -> None:
        if self._open in ("style", "script"):
            self.inline[self._open] = data
            return
        self.texts.append(data)
        if self._in_cell:
            self._rows[-1][-1] += data

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def row(self, table: str, first: str) -> list[str]:
        return next(row for row in self.tables[table] if row and row[0].startswith(first))

    def count(self, tag: str) -> int:
        return [name for name, _ in self.elements].count(tag)


PNG = b"\x89PNG\r\n\x1a\n"


def rendered(record: dict[str, Any]) -> str:
    """The page with stand-ins for the pictures, which take seconds to draw."""
    return comparison_page(record, dict.fromkeys(PICTURES, PNG))


@pytest.fixture(scope="module")
def html(shared_comparison: dict[str, Any]) -> str:
    return rendered(shared_comparison)


def test_of_many_labels_the_worst_and_the_best_are_shown() -> None:
    page = Page(rendered(with_classes(77)))
    rows = page.tables["By label"][2:]
    assert len(rows) == 20
    assert rows[0][0] == "topic 0"
    assert "57 of 77 labels are not shown" in page.text
    assert "are not shown" not in Page(rendered(with_classes(30))).text


def test_every_model_is_in_the_table_with_its_figures(
    html: str, comparison: dict[str, Any]
) -> None:
    page = Page(html)
    for row in comparison["rows"]:
        cells = page.row("All figures", row["model"])
        assert cells[1] == f"{row['parameters']:,}"
        if row["scores"] is None:
            assert cells[3:9] == ["–"] * 6
            continue
        for cell, metric in zip(
            cells[3:7], ("accuracy", "macro_f1", "macro_precision", "macro_recall"), strict=True
        ):
            low, high = row["intervals"][metric]
            assert cell == f"{row['scores'][metric]:.4f} [{low:.3f}, {high:.3f}]"
        assert cells[7] == f"{row['scores']['weighted_f1']:.4f}"
        assert cells[8] == f"{row['ece']:.3f}"


def test_times_are_those_of_the_device_and_batch_size_in_the_header(html: str) -> None:
    page = Page(html)
    assert page.tables["All figures"][0] == [
        "", "CPU batch 1", "CPU batch 32", "GPU batch 1",
    ]  # fmt: skip
    # p50, p99 = 1.5 p50 and texts a second of 0.112 ms for one text, nine times that for 32.
    feather = page.row("All figures", "feather")
    assert feather[2] == "1.236"
    assert feather[9:15] == ["0.112", "0.168", "8,929", "1.01", "1.51", "31,746"]
    assert feather[15:] == ["0.224", "0.336", "4,464"]
    assert page.row("All figures", "classic")[15:] == ["–"] * 3
    assert page.row("All figures", "bundle")[9:] == ["–"] * 9
    assert page.row("All figures", "most frequent class")[2] == "0.000024"


def test_verdict_is_in_words(html: str) -> None:
    text = Page(html).text
    assert re.search(r"highest macro-F1 is 0\.\d{4} \[.*?\], of feather \.", text)
    assert "for one text on the CPU: most frequent class , feather ." in text
    assert (
        "classic : accuracy ▼ worse (-0.0405, p < 0.0001); macro F1 ▼ worse (-0.0405, p < 0.0001); "
        "6.52 × the size; speed on the CPU 0.279 × at batch 1, 0.249 × at batch 32" in text
    )
    assert (
        "MiniLM, fine-tuned : accuracy ○ no difference shown (n = 2000) (+0.0005, p 0.84)" in text
    )
    assert "BERT-base from the Hub : quality not known; 354 × the size;" in text


def test_differences_have_intervals_and_p_values(html: str) -> None:
    cells = Page(html).row("Against feather", "classic")
    assert cells[1] == "6.52"
    assert cells[4:7] == ["0.279", "0.249", "0.11"]
    assert cells[7:11] == ["▼ worse", "-0.0405 [-0.047, -0.034]", "< 0.0001", "< 0.0001"]


def test_labels_robustness_and_disagreements_have_their_tables(
    html: str, comparison: dict[str, Any]
) -> None:
    page = Page(html)
    for label, scores in comparison["rows"][0]["per_class"].items():
        cells = page.row("By label", label)
        assert cells[1] == f"{scores['support']:,}"
        assert cells[2:5] == [f"{scores[name]:.4f}" for name in ("precision", "recall", "f1")]
    assert page.row(ROBUSTNESS, "classic")[2:] == ["0.9000", "3.1%", "0.7100", "27.0%"]
    first, second = page.tables[DISAGREEMENTS][1:]
    assert first == ["i feel like a <b>king</b> & a fool", "joy", "joy", "✗ sadness", "✗ anger"]
    assert second[1:] == ["love", "✗ joy", "love", "–"]


def test_page_says_how_it_was_measured(html: str, comparison: dict[str, Any]) -> None:
    page = Page(html)
    for part in (comparison["command"], comparison["data"]["sha256"], "cpu flags avx2, fma"):
        assert part in page.text
    assert "gpu" not in page.text.split("How it was measured")[1].split("model")[0]
    cells = page.row("Times in full", "feather")
    assert cells[:8] == [
        "feather",
        "CPU a processor",
        "1",
        "float32",
        "torch",
        "1",
        "1,234",
        "2.0%",
    ]
    # encode takes 0.3 of 0.112 ms, forward 0.7.
    assert [cells[8], cells[12], cells[16], cells[19]] == ["0.0336", "0.0784", "0.112", "0.168"]
    assert cells[20:] == ["0.784", "32", "312", "–"]


def test_page_is_self_contained_and_forbids_the_rest(html: str) -> None:
    page = Page(html)
    assert {tag for tag, _ in page.elements}.isdisjoint(
        {"link", "iframe", "object", "base", "form"}
    )
    for _, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        for name in ("src", "href", "srcset", "action"):
            assert attributes.get(name, "data:").startswith("data:")
    assert "url(" not in page.inline["style"]
    assert "@import" not in page.inline["style"]
    assert "http" not in page.inline["style"] + page.inline["script"]

    policy = next(a["content"] for _, a in page.elements if "http-equiv" in a)
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    assert rules["style-src"] == csp_hash(page.inline["style"])
    assert rules["script-src"] == csp_hash(page.inline["script"])


def csp_hash(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def test_pictures_are_inlined_and_described(html: str) -> None:
    pictures = [attributes for tag, attributes in Page(html).elements if tag == "img"]
    assert len(pictures) == 3
    for picture in pictures:
        kind, _, content = picture["src"].partition(",")
        assert kind == "data:image/png;base64"
        assert base64.b64decode(content) == PNG
        assert picture["alt"]


def poisoned(value: Any, keys: set[str]) -> Any:
    """Appends an attack to every text of a record except device kinds, and to some keys."""
    if isinstance(value, str):
        return value if value in ("", "cpu", "cuda") else value + ATTACK
    if isinstance(value, list):
        return [poisoned(item, keys) for item in value]
    if isinstance(value, dict):
        return {
            key + ATTACK if key in keys else key: poisoned(item, keys)
            for key, item in value.items()
        }
    return value


def test_everything_from_the_record_is_escaped(comparison: dict[str, Any]) -> None:
    models = {row["model"] for row in comparison["rows"]}
    record = poisoned(comparison, {*models, *comparison["data"]["labels"], "1", "32", "python"})

    clean, page = Page(rendered(comparison)), Page(rendered(record))

    assert [tag for tag, _ in page.elements] == [tag for tag, _ in clean.elements]
    for (_, before), (_, after) in zip(clean.elements, page.elements, strict=True):
        assert list(before) == list(after)
    assert page.text.count("<script>alert(1)</script>") > 100
    assert page.row(DISAGREEMENTS, "i feel")[0].endswith(ATTACK)


def test_noise_is_marked_and_explained_only_if_present(comparison: dict[str, Any]) -> None:
    page = Page(rendered(comparison))
    assert page.row("All figures", "feather (fp16)")[9] == "⚠ 0.115"
    assert page.row("Times in full", "feather (fp16)")[7] == "⚠ 31.0%"
    assert "⚠: noisy" in page.text
    comparison["rows"] = [row for row in comparison["rows"] if row["model"] != "feather (fp16)"]
    assert "⚠" not in Page(rendered(comparison)).text


def test_seeds_show_their_deviation_and_members(comparison: dict[str, Any]) -> None:
    feather = comparison["rows"][0]
    feather |= {
        "members": ["feather-0", "feather-1"],
        "intervals": None,
        "deviations": {"accuracy": 0.00314, "macro_f1": 0.0052},
    }
    page = Page(rendered(comparison))
    assert "times, labels and confusion matrices are those of the first seed" in page.text
    cells = page.row("All figures", "feather")
    assert cells[0] == "feather (2 seeds) feather-0, feather-1"
    assert cells[3] == f"{feather['scores']['accuracy']:.4f} ± 0.0031"
    assert cells[4] == f"{feather['scores']['macro_f1']:.4f} ± 0.0052"
    assert cells[5] == f"{feather['scores']['macro_precision']:.4f}"


def test_single_row_has_no_comparison_with_a_reference(comparison: dict[str, Any]) -> None:
    comparison["rows"], comparison["disagreements"] = comparison["rows"][:1], []
    comparison["rows"][0]["robustness"] = []
    html = rendered(comparison)
    assert re.findall("<h2>(.*?)</h2>", html) == [
        "Verdict", "All figures", "Quality against time", "By label", "Confusion matrices",
        "How it was measured",
    ]  # fmt: skip
    assert "Against" not in Page(html).text
    assert Page(html).count("img") == 3


@pytest.mark.parametrize(
    ("missing", "headings"),
    [
        ({"latencies": []}, {"By label", "Confusion matrices", "Robustness"}),
        (
            {"scores": None, "deviations": None, "intervals": None, "ece": None, "per_class": None,
             "confusion_matrix": None, "tests": None, "robustness": []},
            set(),
        ),
    ],
    ids=["no times", "no quality"],
)  # fmt: skip
def test_sections_without_figures_are_left_out(
    comparison: dict[str, Any], missing: dict[str, Any], headings: set[str]
) -> None:
    for row in comparison["rows"]:
        row |= missing
    html = rendered(comparison)
    always = {"Verdict", "All figures", "Against feather", DISAGREEMENTS,
              "How it was measured"}  # fmt: skip
    assert set(re.findall("<h2>(.*?)</h2>", html)) == always | headings


@pytest.fixture
def with_timed_only(comparison: dict[str, Any], timed_only: dict[str, Any]) -> dict[str, Any]:
    """A comparison whose first row is a model that was only timed, as `compare` writes it."""
    classic = next(row for row in comparison["rows"] if row["model"] == "classic")
    timed_only["latencies"] = copy.deepcopy(classic["latencies"])
    for timing in timed_only["latencies"]:
        timing["total_ms"] = dict.fromkeys(("p50", "p90", "p95", "p99"), 5123.456)
    timed_only["ratios"] |= {"size": 1409.4, "speed": {"cpu": {"1": 0.0000185, "32": 2345.6}}}
    comparison["rows"].insert(0, timed_only)
    return comparison


def test_timed_only_row_has_note_size_and_dashes(with_timed_only: dict[str, Any]) -> None:
    cells = Page(rendered(with_timed_only)).row("All figures", "huge")
    assert cells[:3] == ["huge random weights", "335,000,000", "1,742.000"]
    assert cells[3:9] == ["–"] * 6
    assert cells[9:11] == ["5,120", "5,120"]
    assert Page(rendered(with_timed_only)).row("Times in full", "huge")[16] == "5,120"


def test_timed_only_row_is_compared_by_size_and_speed(with_timed_only: dict[str, Any]) -> None:
    page = Page(rendered(with_timed_only))
    cells = page.row("Against feather", "huge")
    assert cells[1:4] == ["1,410", "–", "–"]
    assert cells[4:6] == ["0.0000185", "2,350"]
    assert cells[7:] == ["–"] * 8
    assert (
        "huge : quality not known; 1,410 × the size; "
        "speed on the CPU 0.0000185 × at batch 1, 2,350 × at batch 32." in page.text
    )
    assert "of feather ." in page.text  # the highest macro-F1


@pytest.mark.parametrize("table", ["By label", ROBUSTNESS, DISAGREEMENTS])
def test_timed_only_row_is_left_out_where_predictions_are_needed(
    with_timed_only: dict[str, Any], table: str
) -> None:
    before = Page(rendered(with_timed_only)).tables[table]
    del with_timed_only["rows"][0]
    assert Page(rendered(with_timed_only)).tables[table] == before


def test_ratio_sorts_by_its_full_value(with_timed_only: dict[str, Any]) -> None:
    assert ' data-key="1409.4">1,410</td>' in rendered(with_timed_only)


PROBE = """
const result = {};
const header = (name) =>
  [...document.querySelectorAll("table")[0].querySelectorAll("th button")]
    .find((button) => button.textContent === name);
const models = () =>
  [...document.querySelectorAll("table")[0].tBodies[0].rows]
    .map((row) => row.cells[0].firstChild.textContent);
const sorts = () =>
  [...document.querySelectorAll("table")[0].tHead.rows[1].cells]
    .map((cell) => cell.getAttribute("aria-sort"));
window.addEventListener("load", () => {
  result.first = models();
  for (const name of ["parameters", "p50 ms", "model"]) {
    header(name).click();
    result[name + " up"] = models();
    result[name + " up sorts"] = sorts();
    header(name).click();
    result[name + " down"] = models();
    result[name + " down sorts"] = sorts();
  }
  header("accuracy").focus();
  result.focused = document.activeElement.textContent;
  result.title = getComputedStyle(document.querySelector("h1")).overflowWrap;
  result.pictures = [...document.images].map((image) => image.naturalWidth);
  result.sideways = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  document.body.innerHTML = "<pre>" + JSON.stringify(result).replace(/</g, "&lt;") + "</pre>";
});
"""


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium: apt-get install chromium")
def test_browser_shows_the_page_and_a_click_sorts(
    comparison: dict[str, Any], tmp_path: Path
) -> None:
    html = comparison_page(comparison, plots.pictures(comparison))
    # The policy stays in force: it allows the probe by its hash, in addition to the page's script.
    probed = html.replace("script-src ", f"script-src {csp_hash(PROBE)} ")
    probed = probed.replace("</body>", f"<script>{PROBE}</script></body>")
    (tmp_path / "page.html").write_text(probed, encoding="utf-8")

    result = json.loads(re.findall("<pre>(.*)</pre>", browse(tmp_path), re.DOTALL)[0])

    by_parameters = [
        "most frequent class", "feather", "feather (fp16)", "bundle", "TF-IDF + linear SVM",
        "classic", "classic (fp16)", "MiniLM, fine-tuned", "BERT-base from the Hub",
    ]  # fmt: skip
    assert sorted(result["first"]) == sorted(by_parameters) != result["first"]
    assert result["parameters up"] == by_parameters
    # Ties keep their order, so descending is not the reverse of ascending.
    assert result["parameters down"][:4] == [by_parameters[i] for i in (8, 7, 5, 6)]
    assert result["parameters down"][-1] == "most frequent class"
    # 0.0021 < 0.112 < … < 9.8 < 42 as numbers; the bundle has no time and is last both ways.
    assert result["p50 ms up"][:2] == ["most frequent class", "feather"]
    assert result["p50 ms up"][-2:] == ["BERT-base from the Hub", "bundle"]
    assert result["p50 ms down"][:2] == ["BERT-base from the Hub", "MiniLM, fine-tuned"]
    assert result["p50 ms down"][-2:] == ["most frequent class", "bundle"]
    assert result["model up"][:2] == ["BERT-base from the Hub", "bundle"]
    assert result["model down"][0] == "TF-IDF + linear SVM"

    assert result["parameters up sorts"][:3] == ["none", "ascending", "none"]
    assert result["parameters down sorts"][:3] == ["none", "descending", "none"]
    assert result["model up sorts"][:2] == ["ascending", "none"]
    assert result["focused"] == "accuracy"
    assert result["title"] == "anywhere"  # the policy allows the style
    assert result["pictures"] == [1080] * 3
    assert result["sideways"] == 0


def browse(folder: Path) -> str:
    """Opens page.html in a window as narrow as a phone's, and returns the resulting DOM."""
    flags = [
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        f"--user-data-dir={folder / 'profile'}", "--window-size=500,900", "--dump-dom",
    ]  # fmt: skip
    done = subprocess.run(
        [CHROMIUM, *flags, (folder / "page.html").as_uri()],
        capture_output=True,
        encoding="utf-8",
        timeout=600,
        check=True,
    )
    return done.stdout
