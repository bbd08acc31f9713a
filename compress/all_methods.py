"""`compress --method all`: every method that fits, ranked by size, speed and quality."""

import logging
from dataclasses import replace
from typing import Any

from tabulate import tabulate

from compress.config import CompressConfig
from compress.origin import Origin, origin_of
from compress.variant import make_variant, methods_for, refuse_existing
from compress.workspace import FOLDER, GO_ON
from featherweight.comparison import plots, text
from featherweight.comparison.compare import compare
from featherweight.comparison.record import latency_at, model_name
from featherweight.config import CompareConfig
from featherweight.errors import FeatherweightError
from featherweight.run import COMPRESSION, Run, atomic_directory

logger = logging.getLogger("featherweight")

REPORT = "report"


def compress_all(config: CompressConfig) -> str:
    """Makes every variant that is not there yet, compares them on validation, and reports.

    Returns:
        The tables, the rankings, what was skipped and why, and one sentence of advice.

    Raises:
        UsageError: The run is a variant itself, or of a kind that nothing fits.
        WeightsError: The run cannot be loaded.
        DataError: The run's data has gone.
        KeyboardInterrupt: With the way to go on.
    """
    try:
        origin = Origin.load(origin_of(config), config.device)
        skipped = _make_all(origin, config)
        return _report(origin, config, skipped)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(GO_ON) from None


def _make_all(origin: Origin, config: CompressConfig) -> dict[str, str]:
    """Makes what is missing, or everything anew; returns why each of the others was not made."""
    place, methods = origin.run.file(FOLDER), methods_for(origin)
    kept = [it for it in methods if (place / it / COMPRESSION).is_file() and not config.overwrite]
    if kept:
        logger.info("there already, and kept: %s; --overwrite makes them anew", ", ".join(kept))
    skipped: dict[str, str] = {}
    for method in methods:
        if method in kept:
            continue
        path = place / method
        logger.info("%s: %s", origin.run.path, method)
        try:
            refuse_existing(path, config.overwrite)
            make_variant(origin, replace(config, weights=origin.run.path, method=method))
        except FeatherweightError as error:
            skipped[method] = str(error)
            logger.warning("%s: skipped, since %s", method, error)
    return skipped


def _report(origin: Origin, config: CompressConfig, skipped: dict[str, str]) -> str:
    place = origin.run.file(FOLDER)
    variants = [Run(place / method) for method in methods_for(origin) if method not in skipped]
    record = compare(
        CompareConfig(
            weights=[origin.run.path, *(it.path for it in variants)],
            split="validation",
            device="cpu" if config.device == "cpu" else "auto",
        )
    )
    advised = advice(record)
    lines = [f"skipped: {method}, since {why}" for method, why in skipped.items()]
    parts = [text.terminal(record), rankings(record), "\n".join(lines), advised]
    printed = "\n\n".join(filter(None, parts))
    with atomic_directory(place / REPORT) as folder:
        report = Run(folder)
        report.write_json(
            "compression_report.json",
            {
                "comparison": record,
                "variants": [it.read_json(COMPRESSION) for it in variants],
                "skipped": skipped,
                "advice": advised,
            },
        )
        report.write_text("comparison_report.txt", f"{printed}\n\n{class_reports(record)}\n")
        report.write_bytes("compression_comparison.png", plots.trade_off(record))
    return f"{printed}\n\nreport: {place / REPORT}"


def class_reports(record: dict[str, Any]) -> str:
    """Returns a table for each contender: precision, recall, F1 and support of each class."""
    headers = ["precision", "recall", "F1", "support"]
    tables = []
    for row in record["rows"]:
        cells = [[label, *scores.values()] for label, scores in row["per_class"].items()]
        tables.append(tabulate(cells, [model_name(row), *headers], floatfmt=".4f"))
    return "\n\n".join(tables)


def rankings(record: dict[str, Any]) -> str:
    """Returns the contenders by size, by time for one text on the CPU, and by macro-F1."""
    rows = [row for row in record["rows"] if row["size_bytes"]]
    orders = {
        "by size": sorted(rows, key=lambda row: row["size_bytes"]),
        "by speed": sorted(rows, key=_milliseconds),
        "by macro F1": sorted(rows, key=lambda row: -row["scores"]["macro_f1"]),
    }
    return "\n".join(
        f"{title}: {', '.join(map(model_name, order))}" for title, order in orders.items()
    )


def advice(record: dict[str, Any]) -> str:
    """Returns one sentence: the smallest variant that is not rejected."""
    origin, *others = record["rows"]
    accepted = [row for row in others if row["method"] and not row["rejected"]]
    if not accepted:
        return f"Keep {origin['model']}: no variant was made that is worth its loss."
    best = min(accepted, key=lambda row: row["size_bytes"])
    change = best["scores"]["macro_f1"] - origin["scores"]["macro_f1"]
    return (
        f"Take {best['model']}: {best['size_bytes'] / origin['size_bytes']:.0%} of the size for "
        f"{change:+.4f} of validation macro F1."
    )


def _milliseconds(row: dict[str, Any]) -> float:
    latency = latency_at(row, "cpu", 1)
    return float(latency["total_ms"]["p50"]) if latency else float("inf")
