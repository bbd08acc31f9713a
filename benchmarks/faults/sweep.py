"""Runs many cases in child processes, two at a time, and counts how they end."""

import os
import random
import resource
import shutil
import signal
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

PROCESSES = 2
_MAX_MESSAGE = 200  # characters
_FORK = get_context("fork")  # a child has everything imported that its parent has

# Of a case's number and its random numbers; returns how it ended, or raises a Violation.
Case = Callable[[int, random.Random], str]


class Violation(Exception):
    """A case that ended as it never should; the message is one line."""


@dataclass(frozen=True)
class Part:
    """A kind of fault.

    Attributes:
        name: Of the row in the table, and in `--part`.
        count: Number of cases.
        prepare: Returns the case, given a folder for its files; called in each child process.
        unit: What a case consists of, such as 100 texts.
        hang_seconds: Without an answer, after which a case counts as hanging.
    """

    name: str
    count: int
    prepare: Callable[[Path], Case]
    unit: int = 1
    hang_seconds: float = 60.0


@dataclass
class Result:
    """How the cases of a part ended.

    Attributes:
        name: Of the part.
        cases: Their number, in units.
        outcomes: Number of those that ended as promised, by how they ended.
        violations: The number and the problem of each other case.
        cpu_seconds: Of all processes.
    """

    name: str
    cases: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    violations: list[dict[str, Any]] = field(default_factory=list)
    cpu_seconds: float = 0.0

    def add(self, number: int, outcome: str, problem: str, unit: int) -> None:
        """Adds a case; `problem` is empty unless it is a violation."""
        self.cases += unit
        if problem:
            self.violations.append({"case": number, "problem": problem})
        else:
            self.outcomes[outcome] += unit


def sweep(part: Part, seed: int, folder: Path, numbers: Iterable[int] | None = None) -> Result:
    """Runs the cases of a part.

    A child process that crashes or hangs is a violation of its present case, and is replaced.

    Args:
        part: What to run.
        seed: Together with the part's name and the case's number, determines a case.
        folder: Where each child gets a folder of its own.
        numbers: The cases; None: all of them.
    """
    started = _cpu_seconds()
    result = Result(part.name)
    remaining = list(range(part.count) if numbers is None else numbers)
    shares = [remaining[index::PROCESSES] for index in range(PROCESSES)]
    children = [
        _Child(part, seed, folder / f"{part.name}-{index}".replace(" ", "-"), deque(share))
        for index, share in enumerate(shares)
        if share
    ]
    try:
        while children:
            wait([child.connection for child in children], timeout=1)
            for child in children:
                child.collect(result)
            for child in children:
                if not child.numbers:
                    child.join()
            children = [child for child in children if child.numbers]
    finally:
        for child in children:
            child.kill()
    result.cpu_seconds = _cpu_seconds() - started
    return result


def _cpu_seconds() -> float:
    """Returns the CPU time of the children that have ended, and of theirs."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


class _Child:
    """A process that runs its share of the cases."""

    def __init__(self, part: Part, seed: int, folder: Path, numbers: deque[int]) -> None:
        self.numbers = numbers  # not yet answered
        self._part, self._seed, self._folder = part, seed, folder
        self._start()

    def _start(self) -> None:
        self.connection, theirs = _FORK.Pipe(duplex=False)
        arguments = self._part, self._seed, self._folder, tuple(self.numbers), theirs
        self._process = _FORK.Process(target=_work, args=arguments)
        self._process.start()
        theirs.close()
        self._answered_at = time.monotonic()
        self._is_prepared = False

    def collect(self, result: Result) -> None:
        """Adds the answers so far, and replaces the process if it has crashed or hangs."""
        try:
            while self.numbers and self.connection.poll():
                answer = self.connection.recv()
                self._answered_at = time.monotonic()
                if answer is None:
                    self._is_prepared = True
                else:
                    result.add(self.numbers.popleft(), *answer, self._part.unit)
        except EOFError:
            self._process.join()
            if not self._is_prepared:
                raise RuntimeError(f"{self._part.name} cannot be prepared") from None
            self._replace(result, f"the process ended with {self._process.exitcode}")
        if self.numbers and time.monotonic() - self._answered_at > self._part.hang_seconds:
            self.kill()
            self._replace(result, f"no answer in {self._part.hang_seconds:g} s")

    def _replace(self, result: Result, problem: str) -> None:
        result.add(self.numbers.popleft(), "", problem, self._part.unit)
        if self.numbers:
            self._start()

    def join(self) -> None:
        """Waits for the end of the process, which has answered all cases."""
        self._process.join()

    def kill(self) -> None:
        """Ends the process and those that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.join()


def _work(part: Part, seed: int, folder: Path, numbers: Iterable[int], answers: Any) -> None:
    os.setpgid(0, 0)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    case = part.prepare(folder)
    answers.send(None)
    parent = os.getppid()
    for number in numbers:
        if os.getppid() != parent:  # it has been killed
            return
        answers.send(_ended(case, number, random.Random(f"{seed} {part.name} {number}")))


def _ended(case: Case, number: int, generator: random.Random) -> tuple[str, str]:
    """Returns the outcome of a case and, if it is a violation, the problem."""
    try:
        return case(number, generator), ""
    except Exception as error:
        return "", _described(error)


@contextmanager
def named(name: str) -> Iterator[None]:
    """Puts the name of a case before the problem if there is one."""
    try:
        yield
    except Exception as error:
        raise Violation(f"{name}: {_described(error)}") from error


def _described(error: Exception) -> str:
    """Returns a violation's message, or where any other error was raised, on one line."""
    if isinstance(error, Violation):
        return str(error)
    traceback.print_exception(error)
    frame = traceback.extract_tb(error.__traceback__)[-1]
    message = " ".join(str(error).split())[:_MAX_MESSAGE]
    return f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}: {message}"
