"""Clients that send half a request, do not read, or are too many: over raw sockets."""

import json
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest

from tests.helpers.service import MAIN, Server, running

BODY = b'{"text": "so happy"}'
HEAD = (
    b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n"
)
REQUEST = HEAD % len(BODY) + BODY
IMPATIENT = (
    "from edge.serving import connection as c; c.CLIENT_SECONDS = 1.5; c.STOP_SECONDS = 0.5\n"
)
PARTS = [b"", b"POST", REQUEST[:40], HEAD % 99, REQUEST[:-1], b"POST /predict HTTP/1.1\r\n" * 3]


@pytest.fixture(scope="module")
def server(exported: Path, environment: dict[str, str]) -> Iterator[Server]:
    code = IMPATIENT + MAIN
    with running(exported, environment, "--max_connections", "8", code=code) as started:
        yield started


def connect(server: Server) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def received(connection: socket.socket) -> bytes:
    """Returns what the service sends until it closes the connection."""
    return b"".join(iter(lambda: connection.recv(100_000), b""))


def is_answering(server: Server) -> bool:
    with suppress(ConnectionError), connect(server) as connection:
        connection.sendall(REQUEST)
        return connection.recv(10_000).startswith(b"HTTP/1.1 200")
    return False


def stall(server: Server, stack: ExitStack, count: int) -> None:
    """Opens connections that send half a request."""
    for _ in range(count):
        connection = stack.enter_context(connect(server))
        with suppress(ConnectionError):
            connection.sendall(REQUEST[:60])


def wait_until_answering(server: Server) -> None:
    for _ in range(600):
        if is_answering(server):
            return
        time.sleep(0.1)
    raise AssertionError("no answer for a minute")


@pytest.mark.parametrize("part", PARTS[:-1])
def test_a_connection_with_part_of_a_request_is_closed(server: Server, part: bytes) -> None:
    with connect(server) as connection:
        connection.sendall(part)
        response = received(connection)
    if part:
        assert response.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
        assert json.loads(response.partition(b"\r\n\r\n")[2]).keys() == {"error"}
    else:
        assert response == b""


@pytest.mark.parametrize("first", [REQUEST, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"])
def test_the_second_request_of_a_connection_has_the_same_limit(
    server: Server, first: bytes
) -> None:
    parts = PARTS[1:-1]
    with ExitStack() as stack:
        in_one_packet = [stack.enter_context(connect(server)) for _ in parts]
        after_the_answer = [stack.enter_context(connect(server)) for _ in parts]
        for connection, part in zip(in_one_packet, parts, strict=True):
            connection.sendall(first + part)
        for connection, part in zip(after_the_answer, parts, strict=True):
            connection.sendall(first)
            assert connection.recv(10_000).startswith(b"HTTP/1.1 200")
            connection.sendall(part)
        assert all(received(connection) for connection in in_one_packet)
        assert all(b"HTTP/1.1 408" in received(connection) for connection in after_the_answer)


def test_bytes_one_by_one_do_not_extend_the_limit(server: Server) -> None:
    with connect(server) as connection, pytest.raises(OSError, match=r"."):
        for byte in HEAD % 10**5 + b" " * 600:
            connection.sendall(bytes([byte]))
            time.sleep(0.1)


def test_a_client_that_does_not_read_is_disconnected(server: Server) -> None:
    request = HEAD % 60_000 + json.dumps({"texts": ["a"] * 990}).encode().ljust(60_000)
    with connect(server) as connection, pytest.raises(OSError, match=r"."):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        for _ in range(2_000):
            connection.sendall(request)
    wait_until_answering(server)


def test_connections_beyond_the_maximum_get_503_at_once_and_those_before_an_answer(
    exported: Path, environment: dict[str, str]
) -> None:
    with running(exported, environment, "--max_connections", "8") as server, ExitStack() as stack:
        kept = [stack.enter_context(connect(server)) for _ in range(8)]
        for connection in kept:
            connection.sendall(REQUEST)
            assert connection.recv(10_000).startswith(b"HTTP/1.1 200")
        with connect(server) as connection:
            connection.sendall(REQUEST)
            response = received(connection)
        assert response.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert b"\r\nretry-after: 1\r\n" in response
        with connect(server) as connection:  # whose body is not read
            connection.sendall(HEAD % 900_000 + b" " * 900_000)
            assert received(connection).startswith(b"HTTP/1.1 503")
        kept.pop().close()
        wait_until_answering(server)
        metrics = httpx.get(f"{server.url}/metrics", trust_env=False, timeout=60).text
        assert "featherweight_refused_connections_total" in metrics


def test_hundreds_of_half_requests_do_not_keep_others_out(server: Server) -> None:
    with ExitStack() as stack:
        stall(server, stack, 300)
        wait_until_answering(server)  # while the sockets of the others are still open


@pytest.mark.parametrize("close", [b"", b"Connection: close\r\n"])
def test_413_reaches_a_client_that_is_still_sending(server: Server, close: bytes) -> None:
    wait_until_answering(server)
    for size in (1_000_001, 8_000_000):
        head = (HEAD % size).replace(b"\r\n\r\n", b"\r\n" + close + b"\r\n")
        with connect(server) as connection:
            connection.sendall(head + b" " * size)
            assert received(connection).startswith(b"HTTP/1.1 413 ")


def test_few_file_handles_are_survived_quietly(exported: Path, environment: dict[str, str]) -> None:
    code = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n{IMPATIENT}"
    # The limit of connections is lowered to that of files, unless it cannot know that limit.
    unknowing = "import edge.serving.serve as s; s._max_connections = lambda wanted: wanted\n"
    for blind in ("", unknowing):
        running_service = running(exported, environment, code=code + blind + MAIN)
        with running_service as server, ExitStack() as stack:
            stall(server, stack, 200)
            wait_until_answering(server)
            server.process.send_signal(signal.SIGTERM)
            out, error = server.process.communicate(timeout=60)
            assert (server.process.returncode, out) == (0, "")
            assert len(error.splitlines()) <= 2
            assert "Traceback" not in error


@pytest.mark.parametrize("part", [*PARTS, HEAD % 10**5 + b" " * 50_000])
def test_a_stalled_client_does_not_delay_the_end(
    exported: Path, environment: dict[str, str], part: bytes
) -> None:
    with running(exported, environment) as server, connect(server) as connection:
        connection.sendall(part)
        assert is_answering(server)
        start = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        out, error = server.process.communicate(timeout=60)
        assert (server.process.returncode, out, error) == (0, "", "")
        assert time.monotonic() - start < 20  # without a limit the connection would stay for good


def test_a_client_that_does_not_read_does_not_delay_the_end(
    exported: Path, environment: dict[str, str]
) -> None:
    request = HEAD % 60_000 + json.dumps({"texts": ["a"] * 990}).encode().ljust(60_000)
    with running(exported, environment) as server, connect(server) as connection:
        connection.setblocking(False)
        sent = 0
        with pytest.raises(BlockingIOError):
            while True:
                sent += connection.send(request[sent % len(request) :])
        server.process.send_signal(signal.SIGTERM)
        out, error = server.process.communicate(timeout=60)
        assert (server.process.returncode, out, error) == (0, "", "")
