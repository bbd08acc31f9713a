"""Ray: joined or started, ended again, and its failures told in one line."""

import logging
import os
import re
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import ray
from ray.data.exceptions import ExecutionTimeoutError
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from featherweight.errors import FeatherweightError, UsageError, first_line
from featherweight.prediction.workers import cores

logger = logging.getLogger("featherweight")

_CONNECTING_SECONDS = 5
_RAISED = re.compile(r"^[\w.]*(?:Error|Exception): .*", re.MULTILINE)
_ADVICE = ": 'Failed to apply UDF"  # which Ray puts where an error of the disk has its file


@contextmanager
def cluster(needed: str) -> Iterator[None]:
    """Joins the cluster that RAY_ADDRESS names, without it starts Ray here; then leaves or ends it.

    A Ray that the caller has started is used as it is.

    Args:
        needed: Name of the module that every machine of the cluster must be able to import.

    Raises:
        UsageError: No cluster answers there.
        FeatherweightError: Ray cannot be started, or gave up on what was to be done.
    """
    with _one_line():
        if ray.is_initialized():
            yield
            return
        # It writes to stdout of what it does anew after a failure, and shows its bar if that is a
        # terminal.
        with (
            Path(os.devnull).open("w") as nowhere,
            redirect_stdout(sys.stderr if sys.stderr.isatty() else nowhere),
        ):
            try:
                _begin(needed)
                yield
            finally:
                ray.shutdown()


def _begin(needed: str) -> None:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Its core calls the restart of an actor doubtful in every run, and says so as an error.
    os.environ["RAY_BACKEND_LOG_LEVEL"] = "fatal"
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    address = os.environ.get("RAY_ADDRESS") or "local"
    here: dict[str, Any] = {"num_cpus": cores(), "include_dashboard": False}
    if address != "local":
        _require_answer(address)
        logger.info("joining the Ray cluster at %s", address)
        here = {}
    try:
        with _nothing_on_stderr():
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **here)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise FeatherweightError(f"Ray ({address}): {first_line(error)}") from None
    if not here:
        _require_module(needed)


def _require_answer(address: str) -> None:
    """Makes sure that somebody listens; Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECTING_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise UsageError(f"RAY_ADDRESS: no cluster answers at {address} ({error})") from None


def _require_module(needed: str) -> None:
    """Makes sure that each machine of the cluster has what the tasks and actors import.

    Raises:
        FeatherweightError: One has not.
    """

    def missing() -> str:  # sent as it stands; a function of this module would need the package
        import importlib

        try:
            importlib.import_module(needed)
        except ModuleNotFoundError as error:
            return str(error.name)
        return ""

    task = ray.remote(num_cpus=0)(missing)
    nodes = [node for node in ray.nodes() if node["Alive"]]
    there = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes]
    answers = ray.get([task.options(scheduling_strategy=it).remote() for it in there])
    for node, name in zip(nodes, answers, strict=True):
        if name:
            raise FeatherweightError(
                f"{node['NodeManagerHostname']} in the Ray cluster has no {name}; get it there "
                "with: pip install 'featherweight[ray]'"
            )


@contextmanager
def _nothing_on_stderr() -> Iterator[None]:
    """Keeps from stderr what is written there past Python."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@contextmanager
def _one_line() -> Iterator[None]:
    try:
        yield
    except (RayError, ExecutionTimeoutError) as error:
        cause = getattr(error, "cause", None)  # what a task raised, on whichever machine
        if isinstance(cause, FeatherweightError):
            cause.args = (first_line(cause),)  # the next ones are advice on how to configure Ray
            raise cause from None
        reason = f"{type(cause or error).__name__}: {first_line(cause or error)}"
        if not cause and (raised := _RAISED.findall(str(error))):
            reason = raised[-1]  # that from which the others followed
        raise FeatherweightError(f"Ray gave up: {reason.partition(_ADVICE)[0]}") from None
