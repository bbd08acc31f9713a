"""The documents show what the records hold."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.conftest import Program

ROOT = Path(__file__).parents[2]


def documents() -> list[str]:
    """Returns the documents that have markers."""
    folders = ("", "docs", "edge/pretrained")
    paths = [path for folder in folders for path in (ROOT / folder).glob("*.md")]
    marked = [path for path in paths if "<!-- /" in path.read_text(encoding="utf-8")]
    return sorted(path.relative_to(ROOT).as_posix() for path in marked)


def rendered(program: Program, document: str, text: str) -> str:
    render = program("render")
    template, values = render.DOCUMENTS[document]
    result: str = render.render(text, render.blocks(template, values()))
    return result


@pytest.mark.parametrize("document", documents())
def test_document_equals_the_rendered_records(program: Program, document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    assert rendered(program, document, text) == text, "run make readme"


def test_every_document_with_markers_is_rendered(program: Program) -> None:
    assert sorted(program("render").DOCUMENTS) == documents()


def alter(monkeypatch: pytest.MonkeyPatch, module: Any, change: Any) -> None:
    read = module.read_record

    def altered(name: str) -> Any:
        record = read(name)
        change(record)
        return record

    monkeypatch.setattr(module, "read_record", altered)


def test_changed_figure_changes_the_readme(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slower(record: dict[str, Any]) -> None:
        for row in record.get("rows", []):
            if "seconds" in row:
                row["seconds"] += 100

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    alter(monkeypatch, program("rendering.readme"), slower)
    assert rendered(program, "README.md", text) != text


def test_record_that_contradicts_a_finding_is_refused(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    def worse(record: dict[str, Any]) -> None:
        for row in record.get("comparison", {}).get("rows", []):
            if row["model"] == "minilm":
                row["tests"]["macro_f1"]["adjusted_p"] = 0.01

    findings = program("rendering.findings")
    alter(monkeypatch, findings, worse)
    with pytest.raises(ValueError, match="no difference between MiniLM and the LSTM"):
        findings.values()


def test_blocks_and_markers_must_match(program: Program) -> None:
    render = program("render").render
    with pytest.raises(ValueError, match="no markers"):
        render("# nothing to fill in", {"quality": "good"})
    with pytest.raises(ValueError, match="no block for the markers quality"):
        render("<!-- quality -->\n<!-- /quality -->", {})


@pytest.mark.parametrize("path", sorted((ROOT / "results").glob("*.json")), ids=lambda p: p.stem)
def test_record_says_how_it_was_made(path: Path) -> None:
    record = json.loads(path.read_text(encoding="utf-8"))
    assert record["command"].startswith("python benchmarks/")
    assert record["environment"]["cpu"]["model"]
    assert record["environment"]["libraries"]["torch"]
    # The data sets of most programs have splits; word vectors have other inputs.
    splits = record["data"].get("splits", {}).values()
    hashes = [split["sha256"] for split in splits] or list(record["data"]["sha256"].values())
    assert all(len(digest) == 64 for digest in hashes)
