"""The program that breaks things runs, and counts what does not end as promised."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
# In a process of its own, which has no threads and can fork.
PROGRAM = """
import sys
from pathlib import Path
from shared import record
record.RESULTS = Path(sys.argv.pop(1))
import runpy
runpy.run_path(str(Path(sys.path[0]) / "stress.py"), run_name="__main__")
"""
SWEEP = """
import json, os, sys, time
from pathlib import Path
from faults.sweep import Part, Violation, sweep

def case(number, generator):
    if number == 1:
        raise Violation("broken")
    if number == 2:
        raise ValueError("two\\nlines")
    if number == 3:
        os.abort()
    if number == 4:
        time.sleep(60)
    return "even" if number % 2 == 0 else "odd"

result = sweep(Part("part", 8, lambda _: case, 10, 5.0), 0, Path(sys.argv[1]))
print(json.dumps([result.cases, result.outcomes, result.violations]))
"""


def run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    code = f"import sys; sys.path.insert(0, {str(BENCHMARKS)!r})\n{code}"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip


def test_crashes_hangs_and_errors_are_violations(tmp_path: Path) -> None:
    done = run(SWEEP, tmp_path)
    cases, outcomes, violations = json.loads(done.stdout)
    assert (cases, outcomes) == (80, {"even": 20, "odd": 20})
    problems = {each["case"]: each["problem"] for each in violations}
    assert problems.pop(2).startswith("ValueError at ")
    assert problems == {1: "broken", 3: "the process ended with -6", 4: "no answer in 5 s"}


@pytest.mark.timing  # its watchdogs need a quiet machine
def test_every_part_runs(tmp_path: Path) -> None:
    flags = ["--kill", 2, "--flip", 8, "--truncate", 4, "--data_file", 6, "--text", 100,
             "--lstm_text", 100, "--folder", 1, "--overload_seconds", 0]  # fmt: skip
    done = run(PROGRAM, tmp_path, *flags)
    record = json.loads((tmp_path / "stress.json").read_text(encoding="utf-8"))
    assert [(row["name"], row["cases"]) for row in record["rows"]] == [
        ("kills", 2), ("flips", 8), ("truncations", 4), ("data files", 6), ("texts", 100),
        ("lstm texts", 100), ("folders", 1), ("overload", 0),
    ]  # fmt: skip
    violations = [each for row in record["rows"] for each in row["violations"]]
    assert violations == []
    assert done.returncode == 0, done.stderr
