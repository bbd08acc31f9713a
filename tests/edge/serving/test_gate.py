"""Hosts, origins, the queue, and what the pages and the metrics say."""

import asyncio
import json
import re
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from edge.classifier import BundleClassifier
from edge.config import ServeConfig
from edge.serving import serve as serve_module
from edge.serving.application import application
from featherweight.classifier import FloatArray
from tests.helpers.service import Server, running

ORIGIN = "https://app.example.org"


@pytest.fixture(scope="module")
def server(exported: Path, environment: dict[str, str]) -> Iterator[Server]:
    with running(exported, environment, "--cors_origin", ORIGIN, "http://[::1]:3000") as started:
        yield started


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=120, trust_env=False) as opened:
        yield opened


def raw_status(server: Server, head: str) -> int:
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(f"{head}\r\n\r\n".encode())
        return int(connection.recv(10_000).split()[1])


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:80", "127.0.0.1", "127.0.0.1:8000", "[::1]", "[::1]:8000"]
)
def test_the_loopback_hosts_are_answered(client: httpx.Client, host: str) -> None:
    assert client.get("/health", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil.example", "evil.example:8000", "127.0.0.1.nip.io", "0.0.0.0",
     "user@localhost", "localhost:x", "::1", "[::2]", ""],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/", "/health", "/docs", "/nothing"])
def test_other_hosts_are_refused(client: httpx.Client, host: str, path: str) -> None:
    response = client.get(path, headers={"host": host})
    assert response.status_code == 421
    assert response.json().keys() == {"error"}


def test_other_hosts_are_refused_before_the_body_is_read(client: httpx.Client) -> None:
    headers = {"host": "evil.example", "content-type": "application/json"}
    response = client.post("/predict", content=b"[" * 900_000, headers=headers)
    assert response.status_code == 421


def test_a_request_without_a_host_is_refused(server: Server) -> None:
    assert raw_status(server, "GET /health HTTP/1.0") == 421
    assert raw_status(server, "GET /health HTTP/1.1") == 400
    assert raw_status(server, "GET /health HTTP/1.1\r\nHost: localhost\r\nHost: evil") == 400


@pytest.mark.parametrize(
    ("host", "address", "expected"),
    [
        ("127.0.0.1", "127.0.0.1", {"localhost", "127.0.0.1", "[::1]"}),
        ("127.0.0.7", "127.0.0.7", {"localhost", "127.0.0.1", "[::1]", "127.0.0.7"}),
        ("::1", "::1", {"localhost", "127.0.0.1", "[::1]"}),
        ("My-Name", "127.0.0.1", {"localhost", "127.0.0.1", "[::1]", "my-name"}),
        ("0.0.0.0", "0.0.0.0", set()),
        ("::", "::", set()),
        ("192.0.2.1", "192.0.2.1", set()),
    ],
)
def test_all_hosts_are_answered_unless_only_this_machine_can_connect(
    host: str, address: str, expected: set[str]
) -> None:
    class Listener:
        def getsockname(self) -> tuple[str, int]:
            return address, 8000

    assert serve_module._hosts(host, Listener()) == expected  # type: ignore[arg-type]


def test_pages_of_the_given_origins_may_send_requests(client: httpx.Client) -> None:
    asked = {
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type",
    }
    for origin in (ORIGIN, "http://[::1]:3000"):
        preflight = client.options("/predict", headers={"origin": origin} | asked)
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == origin
        response = client.post("/predict", json={"text": "a"}, headers={"origin": origin})
        assert response.headers["access-control-allow-origin"] == origin
        refused = client.post("/predict", content=b" " * 1_000_001, headers={"origin": origin})
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (
            413,
            origin,
        )
    for origin in ("https://evil.example", "null", ORIGIN.replace("https", "http")):
        preflight = client.options("/predict", headers={"origin": origin} | asked)
        assert "access-control-allow-origin" not in preflight.headers


def test_no_origin_is_allowed_by_default(exported: Path) -> None:
    (response,) = in_process(BundleClassifier.load(exported), ServeConfig(), lambda client: [
        client.options("/predict", headers={
            "origin": ORIGIN, "access-control-request-method": "POST",
        })
    ])  # fmt: skip
    assert response.status_code == 405
    assert "access-control-allow-origin" not in response.headers


def in_process(classifier: Any, config: ServeConfig, send: Callable[..., Any]) -> Any:
    async def run() -> list[httpx.Response]:
        transport = httpx.ASGITransport(application(classifier, config), False)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            return await asyncio.gather(*send(client))

    return asyncio.run(asyncio.wait_for(run(), 120))


class Blocked:
    """A classifier that computes nothing until `permit` is set."""

    name, labels = "blocked", ("a", "b")

    def __init__(self) -> None:
        self.permit = threading.Event()
        self.started = threading.Event()

    def predict_proba(self, texts: Sequence[str]) -> FloatArray:
        self.started.set()
        assert self.permit.wait(120)
        return np.full((len(texts), 2), 0.5)


def test_requests_beyond_the_queue_get_503_at_once_and_status_is_answered() -> None:
    classifier = Blocked()

    async def scenario(client: httpx.AsyncClient) -> None:
        requests = [
            asyncio.create_task(client.post("/predict", json={"text": "a"})) for _ in range(3)
        ]
        await asyncio.to_thread(classifier.started.wait, 120)
        assert (await client.get("/ready")).status_code == 503
        assert (await client.get("/health")).status_code == 200
        assert "featherweight_queue 3.0" in (await client.get("/metrics")).text
        refused = await client.post("/predict", json={"text": "a"})
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert "3 requests are waiting" in refused.json()["error"]
        classifier.permit.set()
        assert [response.status_code for response in await asyncio.gather(*requests)] == [200] * 3
        assert (await client.get("/ready")).json()["status"] == "ready"
        assert (await client.post("/predict", json={"text": "a"})).status_code == 200
        metrics = (await client.get("/metrics")).text
        assert 'featherweight_requests_total{status="200"} 7.0' in metrics
        assert 'featherweight_requests_total{status="503"} 2.0' in metrics
        assert "featherweight_texts_total 4.0" in metrics
        assert "featherweight_queue 0.0" in metrics

    in_process(classifier, ServeConfig(max_queue=3), lambda client: [scenario(client)])


CODE = """
import threading, numpy, sys
from featherweight import cli, loading

class Blocked:
    name, labels = "blocked", ("a", "b")
    def predict_proba(self, texts):
        if "wait" in texts:
            assert released.wait(60)
        return numpy.full((len(texts), 2), 0.5)

released = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(1), released.set()), daemon=True).start()
loading.load = lambda *_: Blocked()
sys.exit(cli.main(sys.argv[1:]))
"""


def test_a_full_queue_refuses_each_request_of_a_connection(
    exported: Path, environment: dict[str, str]
) -> None:
    body = b'{"text": "so happy"}'
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    request = head + b"content-LENGTH: %d\r\n\r\n" % len(body) + body

    def answer(connection: socket.socket, *parts: bytes) -> bytes:
        for part in parts:
            connection.sendall(part)
        response = b""
        while b"}" not in response:
            response += connection.recv(10_000)
        return response

    with running(exported, environment, "--max_queue", "1", code=CODE, stdin=subprocess.PIPE) as (
        server
    ), socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:  # fmt: skip
        assert answer(connection, request).startswith(b"HTTP/1.1 200")
        waiting = socket.create_connection(("127.0.0.1", server.port), timeout=60)
        waiting.sendall(request.replace(b'"so happy"', b'"wait"    '))
        ready = httpx.Client(base_url=server.url, trust_env=False, timeout=60)
        while ready.get("/ready").status_code == 200:
            pass
        for parts in ([request], [request], [request[:50], request[50:]], [request]):
            response = answer(connection, *parts)
            assert response.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
            assert b"\r\nretry-after: 1\r\n" in response
            assert json.loads(response.partition(b"\r\n\r\n")[2]).keys() == {"error"}
        assert server.process.stdin
        server.process.stdin.write("\n")
        server.process.stdin.flush()
        assert answer(waiting).startswith(b"HTTP/1.1 200")
        assert answer(connection, request).startswith(b"HTTP/1.1 200")
        waiting.close()


def test_each_of_many_requests_at_once_is_answered_or_refused(
    exported: Path, environment: dict[str, str]
) -> None:
    async def burst(url: str) -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=url, timeout=120, trust_env=False) as client:
            return await asyncio.gather(
                *(client.post("/predict", json={"texts": ["a"] * 50}) for _ in range(90))
            )

    with running(exported, environment, "--max_queue", "2") as server:
        responses = asyncio.run(burst(server.url))
        assert {response.status_code for response in responses} == {200, 503}
        for response in responses:
            if response.status_code == 503:
                assert response.headers["retry-after"] == "1"
            else:
                assert len(response.json()["predictions"]) == 50
        assert httpx.get(f"{server.url}/ready", trust_env=False, timeout=60).status_code == 200


def test_metrics_are_in_the_text_format_of_prometheus(client: httpx.Client) -> None:
    client.post("/predict", json={"texts": ["a", "b"]})
    response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = [line for line in response.text.splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"featherweight_\w+(\{[^}]*\})? [-+.\w]+", line) for line in lines)
    assert any(line.startswith("featherweight_connections ") for line in lines)
    assert any(line.startswith("featherweight_predict_seconds_bucket") for line in lines)


class References(HTMLParser):
    """Collects what a page loads or links to."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in ("src", "href", "action")]


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages_need_nothing_from_elsewhere(client: httpx.Client, path: str) -> None:
    response = client.get(path)
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    page = response.text
    assert "default-src 'none'" in page
    assert "prefers-color-scheme: dark" in page
    for reference in References(page).found:
        assert not re.match(r"\w+:(?!,)|//", reference), reference
        if reference[:1] not in ("#", "d") or reference == "docs":
            assert client.get(f"/{reference.removeprefix('./')}").status_code == 200
    assert not re.search(r"url\(|@import|https?://(?!127)", page.partition("<h1>")[0])


def test_the_documentation_describes_each_path_and_object(
    client: httpx.Client, server: Server
) -> None:
    page = client.get("/docs").text
    schema = client.get("/openapi.json").json()
    for path, operations in schema["paths"].items():
        assert f"<code>{next(iter(operations)).upper()} {path}</code>" in page
    for name in schema["components"]["schemas"]:
        assert f'id="{name}"' in page
    assert f"{server.url}/predict" in page
    assert "Retry-After" in page
