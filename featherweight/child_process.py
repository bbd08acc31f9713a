"""Starts child processes that import nothing from the current folder."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from typing import IO

_MAX_LINE = 300  # characters of a child's last line in a message


def start(module: str, log: IO[bytes], variables: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Runs `main()` of a module in a process connected by stdin and stdout.

    Python puts the current folder first on the import path of `-m` and `-c`, where a file named
    json.py would run. The child has the import path of this process instead.

    Args:
        module: Such as "featherweight.timing.worker_process".
        log: A file for its stderr.
        variables: Environment variables to set.
    """
    path = [entry for entry in sys.path if entry]  # "" is the current folder
    code = f"import sys; sys.path[:] = {path!r}; from {module} import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        env={**os.environ, **variables},
        # Only this process gets Ctrl-C, and then stops its children.
        start_new_session=True,
    )


def exit_reason(process: subprocess.Popen[bytes], log: IO[bytes]) -> str:
    """Waits for a child that has closed its stdout, and returns why it ended."""
    code = process.wait()
    cause = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
    log.seek(0)
    lines = log.read().decode(errors="replace").strip().splitlines()
    return f"{cause}: {lines[-1].strip()[:_MAX_LINE]}" if lines else cause
