"""A service in a process of its own."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

MAIN = "import sys; from featherweight.cli import main; sys.exit(main(sys.argv[1:]))"
NO_TORCH = f"import sys; sys.modules['torch'] = None\n{MAIN}"


class Server(NamedTuple):
    process: subprocess.Popen[str]
    line: str
    url: str
    port: int


@contextmanager
def running(
    weights: Path, environment: dict[str, str], *flags: str, code: str = NO_TORCH, **options: Any
) -> Iterator[Server]:
    command = [sys.executable, "-c", code, "serve", "--weights", str(weights), "--port", "0"]
    process = subprocess.Popen(
        [*command, *flags], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=environment, **options,
    )  # fmt: skip
    try:
        assert process.stdout
        line = process.stdout.readline()
        match = re.search(r"http://[\d.]+:(\d+)", line)
        assert match, process.communicate()[1]
        yield Server(process, line, match[0], int(match[1]))
    finally:
        process.kill()
        process.communicate()
