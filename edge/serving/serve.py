"""`serve`: an HTTP service that classifies texts and never logs them."""

import asyncio
import errno
import ipaddress
import logging
import signal
import socket
import sys
from functools import partial
from typing import Any, cast

import uvicorn

from edge.config import ServeConfig
from edge.serving.application import application
from edge.serving.connection import Connection, Limits
from edge.serving.metrics import Metrics
from featherweight.classifier import Classifier
from featherweight.errors import UsageError
from featherweight.loading import load, newest_or_pretrained

logger = logging.getLogger("featherweight")

_SHUTDOWN_SECONDS = 30  # after which requests in progress are canceled
_BACKLOG = 128  # connections that the system accepts before the service does
_OTHER_HANDLES = 40  # of files and sockets, besides connections
_NO_HANDLE = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


def serve(config: ServeConfig) -> None:
    """Serves until SIGINT or SIGTERM, then finishes the requests in progress.

    Raises:
        UsageError: There is no run, or the address cannot be opened.
        WeightsError: The weights cannot be used.
    """
    classifier = load(config.weights or newest_or_pretrained(config.output_dir), config.device)
    listener = _listen(config.host, config.port)
    server = _server(classifier, config, listener)

    def stop(*_: Any) -> None:
        server.should_exit = True

    # For the time before and after uvicorn's own handlers, which raise the signal again.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    url = f"http://{_in_url(config.host)}:{listener.getsockname()[1]}"
    print(f"serving {classifier.name} at {url} (API: {url}/docs, stop: Ctrl-C)", flush=True)
    # Under load the computing thread waits less often for the one that handles connections.
    sys.setswitchinterval(0.001)
    asyncio.run(_serve(server, listener))


def _server(classifier: Classifier, config: ServeConfig, listener: socket.socket) -> uvicorn.Server:
    metrics = Metrics()
    app = application(classifier, config, metrics, _hosts(config.host, listener))
    limits = Limits(_max_connections(config.max_connections), config.max_queue, metrics)
    server = uvicorn.Server(
        uvicorn.Config(
            app, lifespan="off", ws="none", log_config=None, log_level="critical",
            access_log=False, timeout_graceful_shutdown=_SHUTDOWN_SECONDS, backlog=_BACKLOG,
            http=cast(type[asyncio.Protocol], partial(Connection, limits)),
        )
    )  # fmt: skip
    metrics.connections.set_function(lambda: len(server.server_state.connections))
    return server


async def _serve(server: uvicorn.Server, listener: socket.socket) -> None:
    has_warned = False

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Logs one line if no file handle is left for connections; asyncio tries again itself."""
        nonlocal has_warned
        error = context.get("exception")
        if not isinstance(error, OSError) or error.errno not in _NO_HANDLE:
            loop.default_exception_handler(context)
        elif not has_warned:
            has_warned = True
            logger.warning("some connections have to wait: %s", error.strerror)

    asyncio.get_running_loop().set_exception_handler(handle)
    await server.serve([listener])


def _max_connections(wanted: int) -> int:
    """Returns the number of connections that the limit of open files allows, at most `wanted`."""
    try:
        import resource
    except ModuleNotFoundError:  # on Windows, which has no such limit
        return wanted
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return wanted
    # Each place may also have a refused connection, which is open until it has its answer.
    allowed = max(1, (limit - _OTHER_HANDLES) // 2)
    if allowed < wanted:
        logger.warning("at most %d connections: only %d files may be open", allowed, limit)
    return min(wanted, allowed)


def _hosts(host: str, listener: socket.socket) -> frozenset[str]:
    """Returns the hosts that requests may name: any, unless only this machine can connect.

    A web page may make its own name point to this machine and then send requests to the service;
    the name in such a request is that of the page.
    """
    if not ipaddress.ip_address(listener.getsockname()[0]).is_loopback:
        return frozenset()
    return frozenset({"localhost", "127.0.0.1", "[::1]", _in_url(host).lower()})


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _listen(host: str, port: int) -> socket.socket:
    """Opens the port, or raises a UsageError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
        # asyncio sets this only on sockets it creates; without it responses wait 40 ms for an ACK.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UsageError(f"--port {port} is in use on {host}: choose another") from None
        reason = error.strerror or error
        raise UsageError(f"--host {host} --port {port} cannot be opened ({reason})") from None
