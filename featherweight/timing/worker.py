"""Starts a worker process and communicates with it."""

import json
import tempfile
from contextlib import suppress
from typing import Any

from featherweight.child_process import exit_reason, start
from featherweight.errors import DataError, FeatherweightError, UsageError, WeightsError

_ERRORS = {error.__name__: error for error in (UsageError, DataError, WeightsError)}
# Libraries read these variables when they are loaded.
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS",
)  # fmt: skip


class Worker:
    """A process that times one model on one device (see `worker_process`)."""

    def __init__(self, label: str, threads: int) -> None:
        self._label = label
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  closed by `stop`
        variables = dict.fromkeys(_THREAD_VARIABLES, str(threads))
        self._process = start("featherweight.timing.worker_process", self._log, variables)

    def request(self, **request: Any) -> dict[str, Any]:
        """Sends a request, one line of JSON, and returns the response.

        Raises:
            FeatherweightError: The worker reports an error, or has died.
        """
        assert self._process.stdin and self._process.stdout
        with suppress(BrokenPipeError):  # a dead worker is detected by its missing response
            self._process.stdin.write(json.dumps(request, default=str).encode() + b"\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line.endswith(b"\n"):
            reason = exit_reason(self._process, self._log)
            raise FeatherweightError(f"timing {self._label} failed with {reason}")
        response: dict[str, Any] = json.loads(line)
        if "error" in response:
            raise _ERRORS.get(response["error"], FeatherweightError)(response["message"])
        return response

    def stop(self) -> None:
        """Kills the process and waits for its end."""
        self._process.kill()
        self._process.communicate()
        self._log.close()
