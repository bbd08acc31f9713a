"""The sections of README.md on the bundle's speed show what their record holds."""

from typing import Any

import pytest

from tests.benchmarks.conftest import Program

QUALITY = {
    "accuracy": 0.9251, "macro_f1": 0.8764,
    "intervals": {"accuracy": [0.913, 0.937], "macro_f1": [0.852, 0.899]},
}  # fmt: skip


def timing(texts: int, p50_us: float, noisy: bool = False) -> dict[str, Any]:
    return {
        "texts": texts, "p50_us": p50_us, "p99_us": 2 * p50_us,
        "texts_per_second": 1e6 * texts / p50_us, "noisy": noisy,
    }  # fmt: skip


def record() -> dict[str, Any]:
    """The bundle, a fine-tuned transformer and one that is only timed."""
    bundle = {
        "model": "bundle", "backend": "onnxruntime", "one": timing(1, 52.34),
        "bulk": timing(2000, 50_000.0), "faster": 1234.5, "size_bytes": 343_999,
        "evaluation": QUALITY, "note": "", "same_labels": 1.0, "batch_sensitivity": 3e-7,
    }  # fmt: skip
    return {
        "data": {"splits": {"test": {"n": 2000}}},
        "environment": {"cpu": {"model": "a CPU"}},
        "rows": [
            bundle,
            bundle
            | {"model": "minilm, more labels", "one": timing(1, 5_234.0), "size_bytes": 91_000_000},
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


def rendered(program: Program, record: dict[str, Any], block: str = "edge") -> str:
    values = program("rendering.readme").values()
    values["edge"] = program("rendering.edge").values(record)
    text: str = program("render").blocks("README.md.jinja", values)[block]
    return text


def cells(text: str, model: str) -> list[str]:
    (line,) = (line for line in text.splitlines() if line.startswith(f"| {model} "))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_row_has_time_speed_size_and_quality(program: Program) -> None:
    text = rendered(program, record())
    assert cells(text, "bundle") == [
        "bundle", "52.3", "105", "1,230", "40,000", "344", "0.9251 [0.913, 0.937]",
        "0.8764 [0.852, 0.899]",
    ]  # fmt: skip
    assert cells(text, "bert-base") == [
        "bert-base", "64,600 *", "129,000 *", "1", "25.6", "438,494", "–", "–",
    ]  # fmt: skip
    for sentence in (
        "a CPU", "2,000 texts at once, 128 for a transformer", "*: noisy",
        "bert-base: only timed.", "Left out: fastText (No module named 'fasttext').",
        "2.2 µs to tokenize, 45.0 µs in the graph and 5.2 µs in the rest",
        "0.25 s (median of 15: 0.03 Python, 0.20 imports, 0.02 loading)",
    ):  # fmt: skip
        assert sentence in text
    assert "of its labels" not in text


def test_headline_compares_the_bundle_with_the_transformer(program: Program) -> None:
    data = record()
    data["rows"].append(data["rows"][0] | {"model": "elsewhere", "backend": "openvino"})
    text = rendered(program, data, "headline")
    assert "classifies a text in 52 µs, 100 times as fast as a MiniLM" in text
    assert "1,234 times as fast as BERT-base" in text
    assert "bert-base: only timed." in text
    assert "0.38% of MiniLM's bytes" in text
    assert "elsewhere" not in text
    data["rows"][1]["evaluation"] = QUALITY | {"macro_f1": 0.95}
    with pytest.raises(ValueError, match="contradicts"):
        rendered(program, data, "headline")


def test_sentences_follow_the_record(program: Program) -> None:
    data = record()
    del data["rows"][2], data["rows"][1]["faster"]
    text = rendered(program, data)
    assert "*" not in text
    assert "for a transformer" not in text
    assert cells(text, "minilm, more labels")[3] == "–"
    data["rows"][0] |= {"same_labels": 0.9985, "batch_sensitivity": 0.1508}
    text = rendered(program, data)
    assert "bundle: 99.85% of its labels equal the bundle's" in text
    assert "by up to 0.151" in text


def test_picture_is_drawn_from_the_record(program: Program) -> None:
    edge = program("rendering.edge")
    faster = record()
    faster["rows"][0]["one"] = timing(1, 5.0)
    assert edge.picture(record()).startswith(b"\x89PNG")
    assert edge.picture(faster) != edge.picture(record())
