"""Values of the templates of README.md and docs/presets.md."""

import itertools
import statistics
from collections.abc import Mapping
from typing import Any

from rendering import edge
from shared.record import read_record

from featherweight.comparison import text
from featherweight.comparison.record import latency_at
from featherweight.comparison.tables import sections

MAX_LINES = 30  # shown of what a command prints


def values() -> dict[str, Any]:
    """Returns the values of the template of README.md."""
    return {
        "edge": edge.values(read_record("edge-speed")),
        "steps": steps(),
        "quality": quality("emotion"),
        "training": training_time(),
        "other_data": [quality(name) for name in ("sst2", "trec6")],
        "comparison": comparison("versus-transformers"),
        "compression": [compression(origin) for origin in ("feather", "classic", "minilm")],
        "distillation": distillation(),
    }


def presets() -> dict[str, Any]:
    """Returns the values of the template of docs/presets.md."""
    return {"comparison": comparison("comparison")}


def steps() -> list[dict[str, str]]:
    """Returns the commands of the walkthrough and what they print, in whole paragraphs."""
    shown = []
    for step in read_record("walkthrough")["steps"]:
        paragraphs = step["prints"].split("\n\n")
        ends = itertools.accumulate(paragraph.count("\n") + 2 for paragraph in paragraphs)
        kept = sum(end <= MAX_LINES for end in ends)
        more = ["…"] if kept < len(paragraphs) else []
        shown.append({**step, "prints": "\n\n".join([*paragraphs[:kept], *more])})
    return shown


def quality(name: str) -> dict[str, Any]:
    """Returns the evaluations of a data set's models, over seeds."""
    record = read_record(f"quality-{name}")
    models = by_model(record["rows"])
    return {
        "name": name,
        "classes": len(record["data"]["labels"]),
        "splits": record["data"]["splits"],
        "models": models,
        "tests": {model["name"]: model["tests"] for model in models},
    }


def by_model(rows: list[dict[str, Any]], key: str = "model") -> list[dict[str, Any]]:
    """Groups evaluations of several seeds, in the order of the models' first rows."""
    return [
        {
            "name": name,
            "tests": [row["test"] for row in rows if row[key] == name],
            "validations": [row["validation"] for row in rows if row[key] == name],
            "seeds": sum(row[key] == name and row["seed"] is not None for row in rows),
        }
        for name in dict.fromkeys(row[key] for row in rows)
    ]


def comparison(name: str) -> dict[str, Any]:
    """Returns the tables of a comparison and where it was measured."""
    record = read_record(name)
    contest = record["comparison"]
    devices = {timing["device"] for row in contest["rows"] for timing in row["latencies"]}
    return {
        "name": name,
        "tables": [
            (table.title, text.render(table, "github"))
            for name, table in sections(contest).items()
            if name != "classes"  # too long for a document
        ],
        "legend": text.legend(contest).replace("\n", "  \n"),
        "environment": record["environment"],
        "threads": contest["threads"],
        "gpu": record["environment"]["gpu"] if "cuda" in devices else None,
    }


def compression(origin: str) -> dict[str, Any]:
    """Returns size, quality and milliseconds of a model and its variants."""
    record = read_record(f"compression-{origin}")
    contest = record["comparison"]
    variants: list[Mapping[str, Any]] = [{"method": ""}, *record["variants"]]
    rows = [
        {
            **row,
            "method": variant["method"],
            "ratio": variant.get("ratio"),
            "rejected": variant.get("rejected"),
            "test": (row["tests"] or {}).get("macro_f1"),
            "milliseconds": {size: milliseconds(row, size) for size in (1, 32)},
        }
        # The rows of the baselines come after those of the variants.
        for row, variant in zip(contest["rows"], variants, strict=False)
    ]
    return {
        "origin": origin,
        "rows": rows,
        "n": record["data"]["splits"]["test"]["n"],
        "cpu": record["environment"]["cpu"]["model"],
        "threads": contest["threads"],
    }


def milliseconds(row: Mapping[str, Any], batch_size: int) -> float:
    """Returns the median time of one batch on the CPU."""
    latency = latency_at(row, "cpu", batch_size)
    assert latency
    return float(latency["total_ms"]["p50"])


def distillation() -> dict[str, Any]:
    """Returns the evaluations of `feather` with and without teachers, over seeds."""
    record = read_record("distillation")
    return {**record, "models": by_model(record["rows"])}


def training_time() -> dict[str, Any]:
    """Returns the medians over the measured trainings, and the longest time."""
    record = read_record("training-time")
    rows = record["rows"]
    medians = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
    return {**record, **medians, "longest": max(row["seconds"] for row in rows)}
