"""Starts or joins a Ray cluster, and turns its failures into one-line errors."""

import logging
import os
import re
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ray
from ray.data.exceptions import ExecutionTimeoutError
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from featherweight.errors import FeatherweightError, UsageError, first_line
from featherweight.prediction.workers import cores

logger = logging.getLogger("featherweight")

_CONNECT_SECONDS = 5
_EXCEPTION_LINE = re.compile(r"^[\w.]*(?:Error|Exception): .*", re.MULTILINE)


@contextmanager
def cluster(required_module: str) -> Iterator[None]:
    """Joins the cluster at RAY_ADDRESS, or starts Ray on this machine; disconnects at the end.

    If the process has already initialized Ray, that is used and left running.

    Args:
        required_module: Module that every node of a joined cluster must be able to import.

    Raises:
        UsageError: There is no cluster at RAY_ADDRESS.
        FeatherweightError: Ray cannot be started, or the work inside failed.
    """
    with _one_line_errors():
        if ray.is_initialized():
            yield
            return
        # Ray reports retries on stdout, and shows a progress bar there if it is a terminal.
        with (
            Path(os.devnull).open("w") as null,
            redirect_stdout(sys.stderr if sys.stderr.isatty() else null),
            TemporaryDirectory() as empty,
        ):
            try:
                with _current_folder(empty):
                    _connect(required_module)
                yield
            finally:
                ray.shutdown()


@contextmanager
def _current_folder(folder: str) -> Iterator[None]:
    """Changes the current folder, which Ray puts on the import path of its workers."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _connect(required_module: str) -> None:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # At lower levels, Ray's core logs an error about restarting actors in every run.
    os.environ["RAY_BACKEND_LOG_LEVEL"] = "fatal"
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    address = os.environ.get("RAY_ADDRESS") or "local"
    options: dict[str, Any] = {"num_cpus": cores(), "include_dashboard": False}
    if address != "local":
        _require_listener(address)
        logger.info("joining the Ray cluster at %s", address)
        options = {}
    try:
        with _silent_stderr():
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise FeatherweightError(f"Ray ({address}): {first_line(error)}") from None
    if address != "local":
        _require_on_nodes(required_module)


def _require_listener(address: str) -> None:
    """Raises UsageError if nothing listens at an address; Ray would retry for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise UsageError(f"RAY_ADDRESS: no cluster at {address} ({error})") from None


def _require_on_nodes(module: str) -> None:
    """Raises FeatherweightError if a node of the cluster cannot import a module."""

    # Nested, since Ray pickles such a function by value: the node may not have this package.
    def missing() -> str:
        import importlib

        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            return str(error.name)
        return ""

    task = ray.remote(num_cpus=0)(missing)
    nodes = [node for node in ray.nodes() if node["Alive"]]
    strategies = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes]
    results = ray.get([task.options(scheduling_strategy=each).remote() for each in strategies])
    for node, name in zip(nodes, results, strict=True):
        if name:
            raise FeatherweightError(
                f"{node['NodeManagerHostname']} in the Ray cluster has no {name}; install it there "
                "with: pip install 'featherweight[ray]'"
            )


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Discards what native code and child processes write to stderr."""
    sys.stderr.flush()
    saved = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as null:
            os.dup2(null.fileno(), 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


@contextmanager
def _one_line_errors() -> Iterator[None]:
    try:
        yield
    except (RayError, ExecutionTimeoutError) as error:
        cause = getattr(error, "cause", None)  # the exception in the task or actor
        if isinstance(cause, FeatherweightError):
            cause.args = (first_line(cause),)  # Ray appends advice on its configuration
            raise cause from None
        reason = f"{type(error).__name__}: {first_line(error)}"
        if cause:
            # To an OSError, Ray appends its advice as the file name.
            line = getattr(cause, "strerror", None) or first_line(cause)
            reason = f"{type(cause).__name__}: {line}"
        elif exceptions := _EXCEPTION_LINE.findall(str(error)):
            reason = exceptions[-1]  # in a printed traceback, the root cause
        raise FeatherweightError(f"Ray failed: {reason}") from None
