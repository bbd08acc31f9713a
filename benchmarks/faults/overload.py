"""Overload: the service is asked ten times as often as it can answer, then left alone again."""

import asyncio
import dataclasses
import json
import random
import re
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from faults.sweep import Case, Part, Violation

from edge.config import ServeConfig
from edge.pretrained import PATH
from featherweight.data.dataset import DataConfig, load_dataset

FIGURES = "overload.json"
_TEXTS = 300  # per request, so that this process can ask faster than the service answers
_FACTOR = 10.0  # of the capacity
_CLIENTS = 4  # at a time, to measure the capacity
_MEASURED_SECONDS = 5.0  # without overload
_TIMEOUT_SECONDS = 20.0  # for a response
_RECOVERY_SECONDS = 10.0  # after which the service must answer as before
_BUSY = 503
_START = "import sys; from featherweight.cli import main; sys.exit(main(sys.argv[1:]))"


@dataclass
class Load:
    """What clients saw.

    Attributes:
        statuses: Number of responses by status, and of failed requests by kind of error.
        seconds: From the request to the answer, of each request that was answered.
        problems: Responses that should not occur.
    """

    statuses: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    problems: Counter[str] = field(default_factory=Counter)

    def p99_ms(self) -> float:
        """Returns the 99th percentile of the milliseconds of an answer, or NaN without any."""
        return 1000 * float(np.percentile(self.seconds, 99)) if self.seconds else float("nan")


def part(seconds: float, folder: Path) -> Part:
    """Returns the part, with one case.

    Args:
        seconds: How long the overload lasts; 0: the part has no case.
        folder: Where the figures are written, as overload.json.
    """

    def prepare(_: Path) -> Case:
        def case(_: int, generator: random.Random) -> str:
            if "max_queue" not in {option.name for option in dataclasses.fields(ServeConfig)}:
                return "skipped: serve has no --max_queue"
            figures, problems = _measured(seconds, generator)
            (folder / FIGURES).write_text(json.dumps(figures), encoding="utf-8")
            if problems:
                raise Violation(f"{problems}, {figures}")
            return "recovered"

        return case

    allowed = seconds + 2 * _MEASURED_SECONDS + _TIMEOUT_SECONDS + _RECOVERY_SECONDS + 60
    return Part("overload", int(seconds > 0), prepare, hang_seconds=allowed)


def _measured(seconds: float, generator: random.Random) -> tuple[dict[str, Any], str]:
    """Returns the figures and the problems, "" if there are none."""
    corpus = load_dataset(DataConfig()).train.texts
    texts = [corpus[row % len(corpus)] for row in range(_TEXTS)]
    with subprocess.Popen(
        [sys.executable, "-c", _START, "serve", "--weights", PATH, "--port", "0"],
        stdout=subprocess.PIPE, text=True,
    ) as service:  # fmt: skip
        try:
            assert service.stdout
            port = re.search(r":(\d+) ", service.stdout.readline())
            if not port:
                return {}, "the service did not start"
            client = _Client(int(port[1]), texts)
            figures, problems = asyncio.run(client.measure(seconds, generator))
            ended = service.poll()
            return figures, problems if ended is None else f"the service ended with {ended}"
        finally:
            service.kill()


class _Client:
    """Sends one request again and again and checks its responses."""

    def __init__(self, port: int, texts: list[str]) -> None:
        body = json.dumps({"texts": texts}).encode()
        self._request = (
            f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json"
            f"\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode() + body
        self._port = port
        self._labels: list[str] = []  # of the first answer; all others have to be the same

    async def measure(self, seconds: float, generator: random.Random) -> tuple[dict[str, Any], str]:
        """Measures one client at a time, the capacity, the overload and the recovery."""
        await self._ask(Load())  # the first answer includes what is done only once
        normal = await self._closed_loop(1)
        busy = await self._closed_loop(_CLIENTS)
        capacity = len(busy.seconds) / _MEASURED_SECONDS
        overload = await self._overload(_FACTOR * capacity, seconds, generator)
        recovered = await self._recovery(3 * max(normal.seconds))
        asked = sum(overload.statuses.values())
        figures = {
            "texts_per_request": _TEXTS,
            "capacity_per_second": capacity,
            "asked_per_second": asked / seconds,
            "seconds": seconds,
            "statuses": dict(overload.statuses),
            "p99_ms": {"normal": normal.p99_ms(), "at capacity": busy.p99_ms(),
                       "overload": overload.p99_ms()},
            "recovery_seconds": recovered,
        }  # fmt: skip
        problems = normal.problems + busy.problems + overload.problems
        if recovered is None:
            problems[f"no recovery in {_RECOVERY_SECONDS:g} s"] += 1
        if not overload.seconds:
            problems["no answer in the overload"] += 1
        return figures, ", ".join(f"{problem} ({n} times)" for problem, n in problems.items())

    async def _closed_loop(self, clients: int) -> Load:
        """Runs clients that wait for each answer before they ask again."""
        load = Load()
        end = time.monotonic() + _MEASURED_SECONDS

        async def ask_again() -> None:
            while time.monotonic() < end:
                await self._ask(load)

        await asyncio.gather(*(ask_again() for _ in range(clients)))
        return load

    async def _overload(self, per_second: float, seconds: float, generator: random.Random) -> Load:
        """Asks at random moments, whether there were answers or not."""
        load, started = Load(), time.monotonic()
        running: set[asyncio.Task[None]] = set()
        moment = started
        while moment < started + seconds:
            await asyncio.sleep(max(0.0, moment - time.monotonic()))
            task = asyncio.create_task(self._ask(load))
            running.add(task)
            task.add_done_callback(running.discard)
            moment += generator.expovariate(per_second)
        await asyncio.gather(*running)
        return load

    async def _recovery(self, usual_seconds: float) -> float | None:
        """Returns the seconds until a request is answered about as fast as before, or None."""
        started = time.monotonic()
        while time.monotonic() < started + _RECOVERY_SECONDS:
            load = Load()
            await self._ask(load)
            if load.seconds and load.seconds[0] <= usual_seconds:
                return time.monotonic() - started - load.seconds[0]
            await asyncio.sleep(0.05)
        return None

    async def _ask(self, load: Load) -> None:
        started = time.monotonic()
        try:
            status, head, body = await asyncio.wait_for(self._exchange(), _TIMEOUT_SECONDS)
        except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError) as error:
            load.statuses[type(error).__name__] += 1
            load.problems[type(error).__name__] += 1
            return
        load.statuses[str(status)] += 1
        if status == _BUSY:
            if b"\r\nretry-after:" not in head.lower():
                load.problems["503 without Retry-After"] += 1
        elif status != 200:
            load.problems[f"status {status}"] += 1
        else:
            load.seconds.append(time.monotonic() - started)
            labels = [row["label"] for row in json.loads(body)["predictions"]]
            self._labels = self._labels or labels
            if labels != self._labels:
                load.problems["another answer"] += 1

    async def _exchange(self) -> tuple[int, bytes, bytes]:
        """Sends the request over a new connection; returns status, head and body."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(self._request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"\r\ncontent-length: *(\d+)", head.lower())
            body = await reader.readexactly(int(length[1])) if length else b""
            return int(head.split()[1]), head, body
        finally:
            writer.close()
