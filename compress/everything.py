"""`compress --method all`: every method that fits, ranked by size, speed and quality."""

import logging
from dataclasses import replace
from typing import Any

from compress.config import CompressConfig
from compress.variant import FOLDER, compress_run, methods_for
from featherweight import comparison_text, plots
from featherweight.config import CompareConfig
from featherweight.contest import contest
from featherweight.loading import load
from featherweight.run import COMPRESSION, Run, atomic_directory, newest_run

logger = logging.getLogger("featherweight")

REPORT = "report"


def compress_all(config: CompressConfig) -> str:
    """Makes every variant that is not there yet, compares them on validation, and reports.

    Returns:
        The tables, the rankings and one sentence of advice.

    Raises:
        UsageError: The run is no LSTM, or a variant itself.
        WeightsError: The run cannot be loaded.
        DataError: The run's data has gone.
    """
    origin = Run(config.weights) if config.weights else newest_run(config.output_dir)
    variants = []
    for method in methods_for(load(origin.path, "cpu"), origin):
        path = origin.file(FOLDER) / method
        if config.overwrite or not (path / COMPRESSION).is_file():
            logger.info("%s: %s", origin.path, method)
            compress_run(replace(config, weights=origin.path, method=method))
        variants.append(Run(path))
    record = contest(
        CompareConfig(
            weights=[origin.path, *(it.path for it in variants)],
            split="validation",
            device="cpu" if config.device == "cpu" else "auto",
        )
    )
    advised = advice(record)
    text = "\n\n".join([comparison_text.terminal(record), rankings(record), advised])
    with atomic_directory(origin.file(FOLDER) / REPORT) as folder:
        report = Run(folder)
        report.write_json(
            "compression_report.json",
            {
                "comparison": record,
                "variants": [it.read_json(COMPRESSION) for it in variants],
                "advice": advised,
            },
        )
        report.write_text("comparison_report.txt", text + "\n")
        report.write_bytes("compression_comparison.png", plots.trade_off(record))
    return f"{text}\n\nreport: {origin.file(FOLDER) / REPORT}"


def rankings(record: dict[str, Any]) -> str:
    """Returns the contenders by size, by time for one text on the CPU, and by macro-F1."""
    rows = [row for row in record["rows"] if row["size_bytes"]]
    orders = {
        "by size": sorted(rows, key=lambda row: row["size_bytes"]),
        "by speed": sorted(rows, key=_milliseconds),
        "by macro F1": sorted(rows, key=lambda row: -row["scores"]["macro_f1"]),
    }
    return "\n".join(
        f"{title}: {', '.join(row['model'] for row in order)}" for title, order in orders.items()
    )


def advice(record: dict[str, Any]) -> str:
    """Returns one sentence: the smallest variant that is not rejected."""
    origin, *others = record["rows"]
    fit = [row for row in others if row["model"].startswith(f"{origin['model']} (")]
    fit = [row for row in fit if not row["note"]]
    if not fit:
        return f"Keep {origin['model']}: every variant loses more than is allowed."
    best = min(fit, key=lambda row: row["size_bytes"])
    change = best["scores"]["macro_f1"] - origin["scores"]["macro_f1"]
    return (
        f"Take {best['model']}: {best['size_bytes'] / origin['size_bytes']:.0%} of the size for "
        f"{change:+.4f} of validation macro F1."
    )


def _milliseconds(row: dict[str, Any]) -> float:
    latency = plots.latency_at(row, "cpu", 1)
    return float(latency["phases"]["total"]["p50"]) if latency else float("inf")
