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
    for name in ("record", "render"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module("render")


def test_readme_shows_the_figures_of_the_records(render: ModuleType) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert render.render(text) == text, "run make readme"


def test_a_changed_figure_changes_the_readme(
    render: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    read = render.read_record

    def altered(name: str) -> dict[str, object]:
        record = read(name)
        for row in record.get("rows", []):
            if "seconds" in row:
                row["seconds"] += 100
        return record

    monkeypatch.setattr(render, "read_record", altered)
    assert render.render(text) != text


def test_missing_markers_are_an_error(render: ModuleType) -> None:
    with pytest.raises(ValueError, match="no markers"):
        render.render("# nothing to fill in")


@pytest.mark.parametrize("path", sorted((ROOT / "results").glob("*.json")), ids=lambda p: p.stem)
def test_a_record_says_how_it_was_made(path: Path) -> None:
    record = json.loads(path.read_text(encoding="utf-8"))
    assert record["command"].startswith("python benchmarks/")
    assert record["environment"]["cpu"]["model"]
    assert record["environment"]["libraries"]["torch"]
    assert all(len(split["sha256"]) == 64 for split in record["data"]["splits"].values())
