"""The process that times one contender, as the measuring process sees it."""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from featherweight.errors import DataError, FeatherweightError, UsageError, WeightsError

_ERRORS = {error.__name__: error for error in (UsageError, DataError, WeightsError)}
# Read by the libraries when they are loaded, so they have to stand in the environment before.
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS",
)  # fmt: skip


class Worker:
    """The process that times one contender on one device; it ends when its stdin does."""

    def __init__(self, label: str, threads: int, log: Path) -> None:
        self._label = label
        self._log = log
        variables = dict.fromkeys(_THREAD_VARIABLES, str(threads))
        with log.open("wb") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "featherweight.timing.worker_process"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                encoding="utf-8",
                # What can be imported here can be imported there.
                env={**os.environ, **variables, "PYTHONPATH": os.pathsep.join(sys.path)},
                # Ctrl-C is for this process to hear, which then stops the others.
                start_new_session=True,
            )

    def ask(self, **request: Any) -> dict[str, Any]:
        """Sends one line and waits for the one that answers it."""
        assert self._process.stdin and self._process.stdout
        with suppress(BrokenPipeError):  # a dead process is found out by its silence
            self._process.stdin.write(json.dumps(request, default=str) + "\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line.endswith("\n"):
            raise self._death()
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise _ERRORS.get(answer["error"], FeatherweightError)(answer["message"])
        return answer

    def stop(self) -> None:
        """Kills the process and waits until it is gone."""
        self._process.kill()
        self._process.communicate()

    def _death(self) -> FeatherweightError:
        code = self._process.wait()
        cause = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
        said = [line for line in self._log.read_text(errors="replace").splitlines() if line.strip()]
        last = f": {said[-1].strip()}" if said else ""
        return FeatherweightError(f"timing {self._label} was cut off by {cause}{last}")
