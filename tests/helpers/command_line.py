"""Calls the command line and reads its output."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from featherweight.cli import main

Capture = pytest.CaptureFixture[str]
TINY = [
    "--embedding_dim", "8", "--hidden_dim", "8", "--epochs", "1", "--min_steps", "1",
    "--device", "cpu",
]  # fmt: skip


def call(*arguments: str | Path) -> int:
    """Returns the exit code, also if the parser exits."""
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as end:
        return int(end.code or 0)


def error_line(capsys: Capture) -> str:
    """Returns the error message, after checking that it is one line."""
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    assert captured.err.endswith("\n")
    (line,) = [line for line in captured.err.splitlines() if line.startswith("featherweight: ")]
    assert captured.err.splitlines()[-1] == line
    return line


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def frozen(folder: Path, model: Path, data: Path) -> list[str | Path]:
    """Returns flags of `features` that restrict its output to a folder."""
    return [
        "--model", model, "--data", data, "--device", "cpu",
        "--output_dir", folder / "outputs", "--cache_dir", folder / "cache",
    ]  # fmt: skip


def shell(code: str, **options: object) -> subprocess.CompletedProcess[str]:
    """Runs code in a new interpreter."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-c", f"import sys; from featherweight.cli import main\n{code}"],
        text=True, stderr=subprocess.PIPE, env=environment, check=False, **options,
    )  # type: ignore[call-overload, no-any-return]  # fmt: skip
