"""Breaks things on purpose and counts what does not end as promised; `make stress` runs it.

Kills commands, damages files, writes broken data files and strange texts, starts commands in
poisoned folders, and overloads the service. Every case follows from the seed and its number, and is
repeated with --part and --case.

$ python benchmarks/stress.py
"""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

# One thread per process, before any library starts threads: a process with threads cannot fork.
os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}

from faults import damage, data_files, folders, kills, overload, texts
from faults.materials import make, prepare_process
from faults.sweep import Part, Result, sweep
from jsonargparse import ArgumentParser
from shared.record import write_record
from tabulate import tabulate


def stress(
    kill: int = 100,
    flip: int = 2_000,
    truncate: int = 350,
    data_file: int = 2_000,
    text: int = 100_000,
    lstm_text: int = 20_000,
    folder: int = 12,
    overload_seconds: float = 60.0,
    seed: int = 0,
    part: str = "",
    case: int | None = None,
) -> int:
    """Runs all parts and writes results/stress.json, or repeats a part without a record.

    Args:
        kill: Number of commands that are killed.
        flip: Number of files of which a byte is changed.
        truncate: Number of files of which the end is missing.
        data_file: Number of broken data files.
        text: Number of strange texts for a bundle.
        lstm_text: Number of strange texts for an LSTM in PyTorch.
        folder: Number of commands that are started in a poisoned folder; at most one of each.
        overload_seconds: How long the service is overloaded.
        seed: Determines all cases.
        part: Name of the only part to run.
        case: Number of the only case of this part to run.

    Returns:
        The number of violations.
    """
    prepare_process()
    with TemporaryDirectory() as name:
        work = Path(name).resolve()
        made, dataset = make(work / "materials")
        os.environ["TMPDIR"] = name
        parts = [
            kills.part(made, kill),
            damage.flips(made, flip),
            damage.truncations(made, truncate),
            data_files.part(made, data_file),
            texts.part("texts", made.bundle, text),
            texts.part("lstm texts", made.lstm, lstm_text),
            folders.part(made, folder),
            overload.part(overload_seconds, work),
        ]
        chosen = [each for each in parts if part in ("", each.name)]
        results = [_run(each, seed, work, None if case is None else [case]) for each in chosen]
        figures = work / overload.FIGURES
        measured = json.loads(figures.read_text("utf-8")) if figures.exists() else None
    _print(results)
    if not part:
        rows = [vars(result) for result in results]
        values = {"seed": seed, "rows": rows, "overload": measured}
        write_record("stress", dataset.identity(), values)
    return sum(len(result.violations) for result in results)


def _run(part: Part, seed: int, work: Path, cases: Sequence[int] | None) -> Result:
    result = sweep(part, seed, work / "cases", cases)
    print(f"{part.name}: {result.cpu_seconds:.0f} CPU seconds", flush=True)
    for violation in result.violations:
        flags = f"--part '{part.name}' --case {violation['case']} --seed {seed}"
        print(f"  {flags}: {violation['problem']}", flush=True)
    return result


def _print(results: Sequence[Result]) -> None:
    rows = [
        (
            result.name, f"{result.cases:,}",
            ", ".join(f"{count:,} {outcome}" for outcome, count in result.outcomes.most_common()),
            len(result.violations), f"{result.cpu_seconds:.0f}",
        )
        for result in results
    ]  # fmt: skip
    print(tabulate(rows, ["part", "cases", "outcomes", "violations", "CPU seconds"]))


if __name__ == "__main__":
    parser = ArgumentParser()
    parser.add_function_arguments(stress)
    sys.exit(1 if stress(**parser.parse_args().as_dict()) else 0)
