"""Calls the command line in this process or in a child, and kills children at chosen moments."""

import io
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faults.sweep import Violation

from featherweight.cli import main

_BUG = 70  # exit code of a command that ended with a traceback
_WRITES = os.O_WRONLY | os.O_RDWR
_CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "shutil.rmtree")

Arguments = Sequence[object]


@dataclass(frozen=True)
class Answer:
    """How a command ended."""

    code: int
    out: str
    err: str

    def require_success(self) -> "Answer":
        """Returns itself, or raises a Violation if the command failed."""
        if self.code:
            raise Violation(f"failed: {self._last_line()}")
        return self

    def require_one_line(self) -> "Answer":
        """Returns itself, or raises a Violation if it failed with anything else than one line."""
        errors = [line for line in self.err.splitlines() if line.startswith("featherweight: ")]
        is_one_line = len(errors) == 1 and self.err.splitlines()[-1] == errors[0]
        if self.code not in (0, 1, 2) or (self.code and not is_one_line):
            raise Violation(f"not one line: exit code {self.code}, {self._last_line()}")
        return self

    def _last_line(self) -> str:
        return next(iter(self.err.strip().splitlines()[-1:]), "no message")[:300]


def call(*arguments: object) -> Answer:
    """Runs a command in this process; a bug raises its exception."""
    out, err = io.StringIO(), io.StringIO()
    logging.getLogger().handlers.clear()  # the one of the last call writes to its stderr
    with redirect_stdout(out), redirect_stderr(err):
        code = main([str(argument) for argument in arguments])
    return Answer(code, out.getvalue(), err.getvalue())


def run(arguments: Arguments, log: Path, before: Callable[[], None] | None = None) -> Answer:
    """Runs a command in a child process to its end.

    Args:
        arguments: The verb and its flags.
        log: Path of the files for its output, without suffix.
        before: Called in the child first.
    """
    _, status = os.waitpid(start(arguments, log, before), 0)
    code = os.waitstatus_to_exitcode(status)
    out, err = (
        log.with_suffix(suffix).read_text("utf-8", "replace") for suffix in (".out", ".err")
    )
    return Answer(code, out, err)


def start(arguments: Arguments, log: Path, before: Callable[[], None] | None = None) -> int:
    """Starts what `run` waits for, and returns the number of the process."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    code = _BUG
    try:
        for descriptor, suffix in ((1, ".out"), (2, ".err")):
            os.dup2(
                os.open(log.with_suffix(suffix), os.O_CREAT | os.O_TRUNC | os.O_RDWR), descriptor
            )
        if before:
            before()
        code = main([str(argument) for argument in arguments])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def kill_after(seconds: float, arguments: Arguments, log: Path) -> None:
    """Runs a command and kills it after a time, unless it has ended."""
    pid = start(arguments, log)
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)  # a process that has ended waits for `waitpid`
    os.waitpid(pid, 0)


def kill_at(operation: int, folder: Path, arguments: Arguments, log: Path) -> None:
    """Runs a command and kills it just before it changes a folder for the nth time, from 0."""
    changes = 0

    def count(_: str) -> None:
        nonlocal changes
        if changes == operation:
            os.kill(os.getpid(), signal.SIGKILL)
        changes += 1

    run(arguments, log, lambda: _watch(folder, count))


def run_recorded(folder: Path, arguments: Arguments, log: Path) -> tuple[Answer, list[str]]:
    """Runs a command and returns its answer and how it changed a folder, in order."""
    record = log.with_suffix(".changes")
    descriptor = os.open(record, os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_WRONLY)

    def note(change: str) -> None:
        os.write(descriptor, f"{change}\n".encode())

    answer = run(arguments, log, lambda: _watch(folder, note))
    os.close(descriptor)
    return answer, record.read_text("utf-8").splitlines()


def _watch(folder: Path, notice: Callable[[str], None]) -> None:
    """Calls a function before each change of a folder by this process."""
    inside = str(folder)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if not (isinstance(path, str) and flags & _WRITES):
                return
        elif event not in _CHANGES:
            return
        paths = [os.fsdecode(each) for each in arguments[:2] if isinstance(each, str | os.PathLike)]
        if any(path.startswith(inside) for path in paths):
            notice(f"{event} {' '.join(paths)}")

    sys.addaudithook(hook)
