"""What every benchmark writes: its figures with the command, the data and the machine."""

import json
import shlex
import sys
from pathlib import Path
from typing import Any

from featherweight.device import environment
from featherweight.run import atomic_open

RESULTS = Path(__file__).parents[2] / "results"


def write_record(name: str, data: dict[str, Any], figures: dict[str, Any]) -> Path:
    """Writes results/NAME.json atomically and returns its path."""
    record = {
        "command": shlex.join(["python", *sys.argv]),
        "data": data,
        "environment": environment(),
        **figures,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    with atomic_open(path) as file:
        file.write(json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    return path


def read_record(name: str) -> dict[str, Any]:
    """Reads results/NAME.json."""
    record: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return record
