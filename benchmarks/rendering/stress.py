"""Values of the template of docs/stress.md."""

from typing import Any

from shared.record import read_record

# What is done in each part, and what must hold afterwards.
_PROMISES = {
    "kills": (
        "train, finetune, predict, compress, export and compare are killed at a random moment or "
        "before a random change of their folder",
        "the old output or the new one is complete, the next command has the result of an "
        "uninterrupted one, and nothing hidden is left",
    ),
    "flips": (
        "one byte of a file of a run, variant, bundle, checkpoint or progress record is changed",
        "one line, or the same answer as before",
    ),
    "truncations": ("the end of such a file is missing", "one line, or the same answer as before"),
    "data files": (
        "CSV, TSV, JSON, JSON lines, text, Parquet, Arrow, Excel, gzip and zip files are broken",
        "rows or one line, for training and for predictions",
    ),
    "texts": (
        "a bundle classifies random Unicode, control characters, halves of surrogate pairs, emoji "
        "sequences and repetitions",
        "probabilities are finite, sum to 1 and do not depend on other texts",
    ),
    "lstm texts": ("the same, by an LSTM in PyTorch", "the same"),
    "folders": (
        "commands start in a folder with modules named json, numpy, torch, …",
        "no process imports one",
    ),
    "overload": (
        "the service is asked ten times as often as it can answer",
        "answers or 503 with Retry-After, and it answers as before within 10 s",
    ),
}


def values() -> dict[str, Any]:
    """Returns the values of the template."""
    record = read_record("stress")
    rows = []
    for row in record["rows"]:
        done, promise = _PROMISES[row["name"]]
        rows.append({**row, "done": done, "promise": promise, "violations": len(row["violations"])})
    return {**record, "rows": rows}
