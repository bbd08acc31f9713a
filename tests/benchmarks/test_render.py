"""What the README shows is what the records say."""

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent.parent
BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture
def render(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    for path in BENCHMARKS.glob("*.py"):
        monkeypatch.delitem(sys.modules, path.stem, raising=False)
    return importlib.import_module("render")


def documents() -> list[str]:
    """Returns the documents with figures, read off their markers."""
    folders = ("", "docs", "edge/pretrained")
    paths = [path for folder in folders for path in (ROOT / folder).glob("*.md")]
    marked = [path for path in paths if "<!-- /" in path.read_text(encoding="utf-8")]
    return sorted(path.relative_to(ROOT).as_posix() for path in marked)


@pytest.mark.parametrize("document", documents())
def test_a_document_shows_the_figures_of_the_records(render: ModuleType, document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    assert render.render(text, render.DOCUMENTS[document]()) == text, "run make readme"


def test_every_document_is_there(render: ModuleType) -> None:
    assert sorted(render.DOCUMENTS) == documents()


def test_a_changed_figure_changes_the_readme(
    render: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    tables = importlib.import_module("rendering.tables")
    read = tables.read_record

    def altered(name: str) -> dict[str, object]:
        record = read(name)
        for row in record.get("rows", []):
            if "seconds" in row:
                row["seconds"] += 100
        return record

    monkeypatch.setattr(tables, "read_record", altered)
    assert render.render(text, render.DOCUMENTS["README.md"]()) != text


def test_markers_and_blocks_that_do_not_meet_are_an_error(render: ModuleType) -> None:
    with pytest.raises(ValueError, match="no markers"):
        render.render("# nothing to fill in", {"quality": "good"})
    with pytest.raises(ValueError, match="nothing is known for the markers quality"):
        render.render("<!-- quality -->\n<!-- /quality -->", {})


@pytest.mark.parametrize("path", sorted((ROOT / "results").glob("*.json")), ids=lambda p: p.stem)
def test_a_record_says_how_it_was_made(path: Path) -> None:
    record = json.loads(path.read_text(encoding="utf-8"))
    assert record["command"].startswith("python benchmarks/")
    assert record["environment"]["cpu"]["model"]
    assert record["environment"]["libraries"]["torch"]
    assert all(len(split["sha256"]) == 64 for split in record["data"]["splits"].values())
