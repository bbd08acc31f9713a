"""Values and the picture of the comparison of the bundle with other models, for one text."""

from typing import Any

from featherweight.comparison import plots

_BATCH_SENSITIVE = 1e-3  # change of a probability by the other texts of a batch


def values(record: dict[str, Any]) -> dict[str, Any]:
    """Returns a record of edge_speed.py with what the sentences below its tables need.

    Raises:
        ValueError: The record contradicts a sentence of the template.
    """
    rows, n = record["rows"], record["data"]["splits"]["test"]["n"]
    models = {row["model"]: row for row in rows}
    bundle, transformer = models["bundle"], models["minilm, more labels"]
    low, high = bundle["evaluation"]["intervals"]["macro_f1"]
    if not low <= transformer["evaluation"]["macro_f1"] <= high:
        raise ValueError("the record contradicts the headline of README.md: rewrite its template")
    return {
        **record,
        "n": n,
        "rows": [{"faster": None, **row} for row in rows],
        "bundle_row": bundle,
        "transformer_row": transformer,
        "smaller_batches": sorted({row["bulk"]["texts"] for row in rows} - {n}),
        "noisy": any(row[key]["noisy"] for row in rows for key in ("one", "bulk")),
        "batch_sensitive": [
            row for row in rows if row.get("batch_sensitivity", 0) > _BATCH_SENSITIVE
        ],
        "cold_start_s": {
            name: value / 1000 for name, value in record["cold_start"]["median_ms"].items()
        },
    }


def picture(record: dict[str, Any]) -> bytes:
    """Returns a PNG of macro-F1 against the time of one text."""
    rows = [
        {
            "model": row["model"],
            "size_bytes": row["size_bytes"],
            "scores": row["evaluation"],
            "intervals": row["evaluation"] and row["evaluation"]["intervals"],
            "latencies": [
                {
                    "device": "cpu",
                    "batch_size": 1,
                    "total_ms": {"p50": row["one"]["p50_us"] / 1000},
                    "noisy": row["one"]["noisy"],
                }
            ],
        }
        for row in record["rows"]
        if row["backend"] != "openvino"
    ]
    return plots.trade_off({"rows": rows})
