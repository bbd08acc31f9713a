"""`compress --method all`: every method that fits, ranked by size, speed and quality."""

import logging
from dataclasses import replace
from typing import Any

from tabulate import tabulate

from compress.config import CompressConfig
from compress.origin import Origin, origin_of
from compress.variant import make_variant, methods_for, refuse_existing
from compress.workspace import FOLDER, RESUME
from featherweight.comparison import plots, text
from featherweight.comparison.compare import compare
from featherweight.comparison.record import latency_at, model_name
from featherweight.config import CompareConfig
from featherweight.disk.atomic import atomic_directory
from featherweight.errors import FeatherweightError
from featherweight.reports.terminal import printable
from featherweight.run import COMPRESSION, Run

logger = logging.getLogger("featherweight")

REPORT = "report"


def compress_all(config: CompressConfig) -> str:
    """Makes every variant that does not exist yet, compares them on validation, and reports.

    Returns:
        The tables, the rankings, the skipped methods with reasons, and one sentence of advice.

    Raises:
        UsageError: The run is a variant itself, or no method fits its model.
        WeightsError: The run cannot be loaded.
        DataError: The run's data no longer exists.
        KeyboardInterrupt: With the way to resume.
    """
    try:
        origin = Origin.load(origin_of(config), config.device)
        skipped = _make_all(origin, config)
        return _report(origin, config, skipped)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(RESUME) from None


def _make_all(origin: Origin, config: CompressConfig) -> dict[str, str]:
    """Makes the missing variants, or all with --overwrite; returns skipped methods with reasons."""
    folder, methods = origin.run.file(FOLDER), methods_for(origin)
    existing = [name for name in methods if (folder / name / COMPRESSION).is_file()]
    if existing and not config.overwrite:
        logger.info(
            "%s: exist already and are kept; --overwrite makes them again", ", ".join(existing)
        )
        methods = {name: method for name, method in methods.items() if name not in existing}
    skipped: dict[str, str] = {}
    for name in methods:
        logger.info("%s: %s", origin.run.path, name)
        try:
            refuse_existing(folder / name, config.overwrite)
            make_variant(origin, replace(config, weights=origin.run.path, method=name))
        except FeatherweightError as error:
            skipped[name] = str(error)
            logger.warning("%s: skipped: %s", name, error)
    return skipped


def _report(origin: Origin, config: CompressConfig, skipped: dict[str, str]) -> str:
    parent = origin.run.file(FOLDER)
    variants = [Run(parent / method) for method in methods_for(origin) if method not in skipped]
    record = compare(
        CompareConfig(
            weights=[origin.run.path, *(variant.path for variant in variants)],
            split="validation",
            device="cpu" if config.device == "cpu" else "auto",
        )
    )
    advised = advice(record)
    lines = [f"skipped {method}: {reason}" for method, reason in skipped.items()]
    parts = [text.terminal(record), rankings(record), "\n".join(lines), advised]
    printed = "\n\n".join(filter(None, parts))
    with atomic_directory(parent / REPORT) as folder:
        report = Run(folder)
        report.write_json(
            "compression_report.json",
            {
                "comparison": record,
                "variants": [variant.read_json(COMPRESSION) for variant in variants],
                "skipped": skipped,
                "advice": advised,
            },
        )
        report.write_text("comparison_report.txt", f"{printed}\n\n{class_reports(record)}\n")
        report.write_bytes("compression_comparison.png", plots.trade_off(record))
    return f"{printed}\n\nreport: {parent / REPORT}"


def class_reports(record: dict[str, Any]) -> str:
    """Returns one table per model: precision, recall, F1 and support of each class."""
    headers = ["precision", "recall", "F1", "support"]
    tables = []
    for row in record["rows"]:
        cells = [[printable(label), *scores.values()] for label, scores in row["per_class"].items()]
        titles = [printable(model_name(row)), *headers]
        tables.append(tabulate(cells, titles, floatfmt=".4f", disable_numparse=[0]))
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
        f"{title}: {printable(', '.join(map(model_name, order)))}"
        for title, order in orders.items()
    )


def advice(record: dict[str, Any]) -> str:
    """Returns one sentence: the smallest variant that is not rejected."""
    origin, *others = record["rows"]
    accepted = [row for row in others if row["method"] and not row["rejected"]]
    if not accepted:
        return f"Keep {printable(origin['model'])}: no variant was made that is worth its loss."
    best = min(accepted, key=lambda row: row["size_bytes"])
    change = best["scores"]["macro_f1"] - origin["scores"]["macro_f1"]
    share = best["size_bytes"] / origin["size_bytes"]
    return (
        f"Take {printable(best['model'])}: {share:.0%} of the size for "
        f"{change:+.4f} of validation macro F1."
    )


def _milliseconds(row: dict[str, Any]) -> float:
    latency = latency_at(row, "cpu", 1)
    return float(latency["total_ms"]["p50"]) if latency else float("inf")
