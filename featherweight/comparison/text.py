"""Renders a comparison's record as text: for a terminal, as Markdown and as CSV."""

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tabulate import tabulate

from featherweight.comparison import tables
from featherweight.comparison.record import Record, model_name, remarks
from featherweight.comparison.table import MISSING, Cell, Column, Table
from featherweight.prediction.cells import write_rows
from featherweight.reports.markdown import code, escaped
from featherweight.reports.numbers import DASH, macro_limit
from featherweight.reports.terminal import printable

PICTURES = ("trade_off", "confusion_matrices", "per_class")
_NOISY = " *"
_MAX_FIRST_COLUMN = 44  # letters, in a terminal


def render(table: Table, tablefmt: str = "simple") -> str:
    """Returns a table for a terminal, or as Markdown with "github"."""
    shown = table.shown_in("text")
    own = [column for column in shown.columns if not column.joined]
    headers = [column.short or column.name for column in own]
    rows = [_texts(shown.columns, row) for row in shown.rows]
    shown_as = escaped if tablefmt == "github" else printable
    headers, *rows = [[*map(shown_as, line)] for line in (headers, *rows)]
    rendered = tabulate(
        rows,
        headers,
        tablefmt=tablefmt,
        colalign=["left", *("left" if column.left else "right" for column in own[1:])],
        maxcolwidths=[_MAX_FIRST_COLUMN] if tablefmt == "simple" else None,
        disable_numparse=True,
    )
    return f"{rendered}\n\n{table.note}".rstrip()


def legend(record: Record, shown: Callable[[str], str] = printable) -> str:
    """Returns what the signs in the tables mean and the remarks on models, one line each.

    Args:
        record: The record of a comparison.
        shown: Escapes names for the place of the lines.
    """
    lines = explanations(record, shown(_NOISY.strip()), shown)
    for row in record["rows"]:
        lines += [f"{shown(model_name(row))}: {shown(remark)}" for remark in remarks(row)]
    return "\n".join(lines)


def explanations(record: Record, noisy: str, shown: Callable[[str], str] = printable) -> list[str]:
    """Returns what the signs in the tables mean, one line each.

    Args:
        record: The record of a comparison.
        noisy: The sign of a noisy time.
        shown: Escapes names for the place of the lines.
    """
    lines = [
        "[low, high]: 95 % bootstrap interval. ECE: expected calibration error, 0 is best. "
        f"p99: 99 % of the batches took no longer. {DASH}: not measured."
    ]
    data = record["data"]
    # Records of version 0.1 do not list the missing classes.
    missing = [shown(label) for label in data.get("missing_classes", ())]
    limit = macro_limit(data["split"], len(data["labels"]), missing)
    if limit:
        lines.append(limit)
    if any(row["deviations"] for row in record["rows"]):
        lines.append(
            "±: standard deviation over seeds; times, labels and confusion matrices are those of "
            "the first seed."
        )
    if any(row["tests"] for row in record["rows"]):
        lines.append(
            "p: paired tests on the same texts, corrected for multiple comparisons (Holm); exact "
            "McNemar for accuracy and bootstrap for macro F1, bootstrap for both if there are "
            "several seeds. “No difference shown” does not prove that there is none."
        )
    if any(latency["noisy"] for row in record["rows"] for latency in row["latencies"]):
        lines.append(f"{noisy}: noisy, the time varied too much between rounds to be relied on.")
    return lines


def terminal(record: Record) -> str:
    """Returns the comparison for a terminal."""
    parts = [
        f"{printable(table.title)}\n\n{render(table)}" for table in tables.sections(record).values()
    ]
    return "\n\n".join([*parts, legend(record)])


def markdown(record: Record) -> str:
    """Returns the comparison as Markdown that shows the report's pictures."""
    parts = [
        f"## {escaped(table.title)}\n\n{render(table, 'github')}"
        for table in tables.sections(record).values()
    ]
    machine = escaped(record["environment"]["cpu"]["model"])
    command = f"Measured with {code(record['command'])} on {machine}."
    pictures = [f"![{name.replace('_', ' ')}]({name}.png)" for name in PICTURES]
    explained = legend(record, escaped).replace("\n", "  \n")
    return "\n\n".join(["# Comparison", *parts, explained, command, *pictures]) + "\n"


def comma_separated(record: Record) -> str:
    """Returns one CSV row per model, with a column for every figure."""
    rows = [_flat(row) for row in record["rows"]]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    buffer = io.StringIO(newline="")
    write_rows(buffer, [columns, *([row.get(name) for name in columns] for row in rows)])
    return buffer.getvalue()


def _texts(columns: Sequence[Column], cells: Sequence[Cell]) -> list[str]:
    """Returns the texts of a row, with joined cells appended to the one before."""
    texts: list[str] = []
    for column, cell in zip(columns, cells, strict=True):
        noisy = _NOISY if cell.flag == "noisy" else ""
        if not column.joined:
            texts.append(f"{cell.text} {cell.note}".rstrip() + noisy)
        elif cell != MISSING:
            texts[-1] = texts[-1].removesuffix(_NOISY) + column.joined.format(cell.text) + noisy
    return texts


def _flat(row: Record) -> Mapping[str, Any]:
    cells = {name: row[name] for name in ("model", "note", "parameters", "size_bytes", "ece")}
    cells["rejected"] = row.get("rejected", "")
    for metric, score in row["scores"].items():
        cells[metric] = score
        if metric in row["intervals"]:
            cells[f"{metric}_low"], cells[f"{metric}_high"] = row["intervals"][metric]
        if row["deviations"]:
            cells[f"{metric}_deviation"] = row["deviations"][metric]
    for latency in row["latencies"]:
        place = f"{latency['device']}_{latency['batch_size']}"
        cells |= {f"{place}_{name}_ms": latency["total_ms"][name] for name in ("p50", "p99")}
        cells |= {f"{place}_{name}": latency[name] for name in ("texts_per_second", "noisy")}
    for metric, test in (row["tests"] or {}).items():
        cells |= {
            f"{metric}_{name}": test[name] for name in ("difference", "adjusted_p", "verdict")
        }
    for result in row["robustness"]:
        name = result["perturbation"].replace(" ", "_")
        cells[f"accuracy_{name}"] = result["accuracy"]
    return cells
