"""The table of the bundle beside its peers shows what its record says."""

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture
def edge_table(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    for name in ("record", "edge_table"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module("rendering.edge_table")


def timing(texts: int, p50_us: float, noisy: bool = False) -> dict[str, Any]:
    return {
        "texts": texts, "p50_us": p50_us, "p99_us": 2 * p50_us,
        "texts_per_second": 1e6 * texts / p50_us, "noisy": noisy,
    }  # fmt: skip


def record() -> dict[str, Any]:
    """One row that answers and one that is only timed."""
    quality = {
        "accuracy": 0.9251, "macro_f1": 0.8764,
        "intervals": {"accuracy": [0.913, 0.937], "macro_f1": [0.852, 0.899]},
    }  # fmt: skip
    return {
        "data": {"splits": {"test": {"n": 2000}}},
        "environment": {"cpu": {"model": "a CPU"}},
        "rows": [
            {
                "model": "bundle", "backend": "onnxruntime",
                "one": timing(1, 52.34), "bulk": timing(2000, 50_000.0),
                "faster": 1234.5, "size_bytes": 343_999, "evaluation": quality, "note": "",
                "same_labels": 1.0, "batch_sensitivity": 3e-7,
            },
            {
                "model": "bert-base", "backend": "torch", "one": timing(1, 64_610.0, noisy=True),
                "bulk": timing(128, 5_000_000.0), "faster": 1.0, "size_bytes": 438_493_727,
                "evaluation": None, "note": "only timed",
            },
        ],
        "left_out": {"fastText": "No module named 'fasttext'"},
        "stages_us": {"tokenizing": 2.21, "graph": 44.96, "rest": 5.17},
        "cold_start": {
            "starts": 15,
            "median_ms": {"total": 253.0, "interpreter": 31.0, "imports": 204.0, "load": 17.0},
        },
    }  # fmt: skip


def rendered(table: ModuleType, monkeypatch: pytest.MonkeyPatch, record: dict[str, Any]) -> str:
    monkeypatch.setattr(table, "read_record", lambda name: {"edge-speed": record}[name])
    text: str = table.edge_speed()
    return text


def cells(text: str, model: str) -> list[str]:
    (line,) = (line for line in text.splitlines() if line.startswith(f"| {model} "))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_row_has_time_speed_size_and_quality(
    edge_table: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = rendered(edge_table, monkeypatch, record())
    assert cells(text, "bundle") == [
        "bundle", "52.3", "105", "1,230", "40,000", "344", "0.9251 [0.913, 0.937]",
        "0.8764 [0.852, 0.899]",
    ]  # fmt: skip
    assert cells(text, "bert-base") == [
        "bert-base", "64,600 *", "129,000 *", "1", "25.6", "438,494", "–", "–",
    ]  # fmt: skip


def test_what_a_reader_must_know_stands_below(
    edge_table: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = rendered(edge_table, monkeypatch, record())
    for said in (
        "a CPU", "2,000 texts at once, 128 for a transformer", "restless",
        "bert-base: only timed.", "Left out: fastText (No module named 'fasttext').",
        "2.2 µs to tokenize, 45.0 in the graph and 5.2 besides",
        "0.25 s (median of 15: 0.03 Python, 0.20 imports, 0.02 loading)",
    ):  # fmt: skip
        assert said in text
    assert "of the labels" not in text


def test_the_headline_answers_the_question(
    edge_table: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = record()
    both["rows"] += [both["rows"][0] | {"model": "elsewhere", "backend": "openvino"}]
    both["rows"].append(
        both["rows"][0]
        | {"model": "minilm, more labels", "one": timing(1, 5_234.0), "size_bytes": 91_000_000}
    )
    monkeypatch.setattr(edge_table, "read_record", lambda _: both)
    text = edge_table.headline()
    assert "answers in 52 µs, 100 times as fast as a MiniLM" in text
    assert "1,234 times as fast as BERT-base" in text
    assert "bert-base: only timed." in text
    assert "0.38% of MiniLM's bytes" in text
    assert "elsewhere" not in text
    both["rows"][3]["evaluation"] = both["rows"][0]["evaluation"] | {"macro_f1": 0.95}
    with pytest.raises(ValueError, match="contradicts"):
        edge_table.headline()


def test_no_star_where_all_was_quiet_and_no_ratio_where_nothing_was_slowest(
    edge_table: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet = record()
    del quiet["rows"][1], quiet["rows"][0]["faster"]
    text = rendered(edge_table, monkeypatch, quiet)
    assert "*" not in text
    assert "for a transformer" not in text
    assert cells(text, "bundle")[3] == "–"


def test_answers_that_depend_on_other_texts_are_told(
    edge_table: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = record()
    other["rows"][0] |= {"same_labels": 0.9985, "batch_sensitivity": 0.1508}
    text = rendered(edge_table, monkeypatch, other)
    assert "bundle: 99.85% of the labels are the bundle's" in text
    assert "by up to 0.151" in text


def test_the_picture_is_drawn_from_the_record(edge_table: ModuleType) -> None:
    assert edge_table.picture(record()).startswith(b"\x89PNG")
    faster = record()
    faster["rows"][0]["one"] = timing(1, 5.0)
    assert edge_table.picture(faster) != edge_table.picture(record())
