"""The service over real HTTP: predictions, limits, error responses and shutdown."""

import asyncio
import json
import logging
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from edge.classifier import BundleClassifier
from edge.config import ServeConfig
from edge.export import EDGE_CASES
from edge.runtime import Bundle, load
from edge.serving.application import application
from featherweight import load as load_run
from featherweight.classifier import FloatArray
from tests.helpers.command_line import Capture, call, error_line
from tests.helpers.service import MAIN, NO_TORCH, Server, running

TEXTS = [*EDGE_CASES, "i am so happy today", "i miss my dog", "stop it, i hate this", "😀" * 500]
MAX_TEXTS, MAX_CHARACTERS, MAX_BYTES = 100, 2_000, 300_000
LIMITS = [
    "--max_texts", str(MAX_TEXTS), "--max_characters", str(MAX_CHARACTERS),
    "--max_body_bytes", str(MAX_BYTES), "--batch_size", "16", "--max_queue", "50",
]  # fmt: skip
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def server(exported: Path, environment: dict[str, str]) -> Iterator[Server]:
    with running(exported, environment, *LIMITS) as started:
        yield started


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=120, trust_env=False) as opened:
        yield opened


@pytest.fixture(scope="module")
def bundle(exported: Path) -> Bundle:
    return load(exported)


def probabilities_of(response: httpx.Response) -> FloatArray:
    """Returns the probabilities (N, C), after checking that the labels are the most probable."""
    assert response.status_code == 200, response.text
    content = response.json()
    predictions = content["predictions"]
    probabilities = np.array([each["probabilities"] for each in predictions])
    for prediction, row in zip(predictions, probabilities, strict=True):
        assert prediction["label"] == content["labels"][row.argmax()]
    return probabilities.reshape(len(predictions), -1)


def error_of(response: httpx.Response) -> str:
    assert response.headers["content-type"] == "application/json"
    (line,) = response.json().values()
    assert response.json().keys() == {"error"}
    assert "\n" not in line
    return str(line)


def test_prints_its_address_and_listens_on_the_loopback_interface_only(server: Server) -> None:
    assert server.line.startswith(f"serving tiny (bundle) at http://127.0.0.1:{server.port} ")
    with pytest.raises(OSError, match=r"."):
        socket.create_connection(("127.0.0.2", server.port), timeout=2)


def test_one_text(client: httpx.Client, bundle: Bundle) -> None:
    text = "i am so happy today"
    response = client.post("/predict", json={"text": text})
    assert probabilities_of(response) == pytest.approx(bundle.predict_proba([text]), abs=1e-5)
    assert response.json()["model"] == "tiny (bundle)"
    assert response.json()["labels"] == bundle.classes_.tolist()


def test_many_texts_of_any_characters(client: httpx.Client, bundle: Bundle) -> None:
    texts = [*TEXTS, "lone \ud800 surrogate", "\x00", ""]
    # As ASCII with escapes, which can represent a lone surrogate.
    response = client.post("/predict", content=json.dumps({"texts": texts}), headers=JSON)
    assert probabilities_of(response) == pytest.approx(bundle.predict_proba(texts), abs=1e-5)
    assert client.post("/predict", json={"texts": []}).json()["predictions"] == []


def test_fifty_concurrent_requests_get_their_own_predictions(
    server: Server, bundle: Bundle
) -> None:
    requests = [TEXTS[index % len(TEXTS) :][: 1 + index % 5] for index in range(50)]

    async def send() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=server.url, timeout=120, trust_env=False) as client:
            return await asyncio.gather(
                *(client.post("/predict", json={"texts": texts}) for texts in requests)
            )

    for texts, response in zip(requests, asyncio.run(send()), strict=True):
        assert probabilities_of(response) == pytest.approx(bundle.predict_proba(texts), abs=1e-5)


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ('{"text": "a', 400, "the body is not valid JSON: Unterminated string"),
        (b'{"text": "\xff"}', 400, "parsing the body"),
        ("[" * 100_000, 400, "parsing the body"),
        ("", 422, "the body must be"),
        ("null", 422, "the body must be"),
        ('["a"]', 422, "the body must be"),
        ("{}", 422, 'either "text" or "texts"'),
        ('{"txt": "a"}', 422, 'either "text" or "texts"'),
        ('{"text": "a", "texts": ["a"]}', 422, 'either "text" or "texts"'),
        ('{"text": 5}', 422, "text: "),
        ('{"texts": "a"}', 422, "texts: "),
        ('{"texts": ["a", null]}', 422, "texts.1: "),
        (json.dumps({"texts": ["a"] * (MAX_TEXTS + 1)}), 422, "101 texts are too many"),
        (json.dumps({"texts": ["a", "a" * (MAX_CHARACTERS + 1)]}), 422, "text 1 has 2,001"),
    ],
)
def test_invalid_requests_get_a_one_line_error(
    client: httpx.Client, body: str | bytes, status: int, message: str
) -> None:
    response = client.post("/predict", content=body, headers=JSON)
    assert response.status_code == status
    assert message in error_of(response)


def test_requests_at_the_limits_are_accepted(client: httpx.Client) -> None:
    texts = ["a" * MAX_CHARACTERS] * MAX_TEXTS
    assert len(probabilities_of(client.post("/predict", json={"texts": texts}))) == MAX_TEXTS


@pytest.mark.parametrize("size", [MAX_BYTES + 1, 20 * MAX_BYTES])
@pytest.mark.parametrize("chunked", [True, False])
def test_too_large_bodies_are_refused(client: httpx.Client, size: int, chunked: bool) -> None:
    body = b'{"text": "a"' + b" " * (size - 13) + b"}"
    content = iter([body[:1_000], body[1_000:]]) if chunked else body
    response = client.post("/predict", content=content, headers=JSON)
    assert response.status_code == 413
    assert "300,000 bytes" in error_of(response)
    assert len(probabilities_of(client.post("/predict", json={"text": "a"}))) == 1


def test_wrong_content_types_paths_and_methods_are_refused(client: httpx.Client) -> None:
    response = client.post("/predict", data={"text": "a"})
    assert response.status_code == 422
    assert "application/json" in error_of(response)
    response = client.get("/nothing")
    assert (response.status_code, error_of(response)) == (404, "Not Found")
    assert client.get("/predict").status_code == 405


def test_health_and_api_documentation(client: httpx.Client, bundle: Bundle) -> None:
    assert client.get("/health").json() == {
        "status": "ok", "model": "tiny (bundle)", "labels": bundle.classes_.tolist(),
    }  # fmt: skip
    schema = client.get("/openapi.json").json()
    assert schema["paths"].keys() == {"/predict", "/health", "/ready", "/metrics"}
    responses = schema["paths"]["/predict"]["post"]["responses"]
    assert responses.keys() == {"200", "400", "413", "422", "500", "503"}
    for status in ("400", "413", "422", "500", "503"):
        assert responses[status]["content"]["application/json"]["schema"]["$ref"].endswith(
            "/Problem"
        )


@pytest.mark.parametrize(
    ("weights", "flags", "code", "number"),
    [
        ("exported_zip", [], NO_TORCH, signal.SIGTERM),
        ("tiny_run", ["--device", "cpu"], MAIN, signal.SIGINT),
    ],
    ids=["bundle-SIGTERM", "run-SIGINT"],
)
def test_bundles_and_runs_are_served_until_a_signal_and_the_last_response(
    request: pytest.FixtureRequest, environment: dict[str, str],
    weights: str, flags: list[str], code: str, number: int,
) -> None:  # fmt: skip
    path = request.getfixturevalue(weights)
    body = b'{"text": "a secret of mine"}'
    head = (
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body)
    )
    with running(path, environment, *flags, code=code) as server:
        response = httpx.post(
            f"{server.url}/predict", json={"texts": TEXTS}, timeout=120, trust_env=False
        )
        expected = load_run(path, "cpu").predict_proba(TEXTS)
        assert probabilities_of(response) == pytest.approx(expected, abs=1e-5)
        address = ("127.0.0.1", server.port)
        with socket.create_connection(address, timeout=120) as connection:
            connection.sendall(head)
            assert connection.recv(1_000).startswith(b"HTTP/1.1 100")  # it waits for the body
            server.process.send_signal(number)
            with suppress(ConnectionError):
                while True:  # until it stops listening
                    socket.create_connection(address, timeout=120).close()
            connection.sendall(body)
            raw = b"".join(iter(lambda: connection.recv(10_000), b""))
        assert raw.startswith(b"HTTP/1.1 200")
        assert b'"predictions":[{"label":"' in raw
        out, error = server.process.communicate(timeout=120)
        assert (server.process.returncode, out, error) == (0, "", "")


def post_in_process(app: Any, *bodies: dict[str, Any]) -> list[httpx.Response]:
    async def send() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            return [await client.post("/predict", json=body) for body in bodies]

    return asyncio.run(send())


def test_labels_below_the_minimum_confidence_are_empty(exported: Path, bundle: Bundle) -> None:
    threshold = float(np.median(bundle.predict_proba(TEXTS).max(axis=1))) + 1e-7
    app = application(BundleClassifier.load(exported), ServeConfig(min_confidence=threshold))
    (response,) = post_in_process(app, {"texts": TEXTS})
    assert response.status_code == 200
    labels = set()
    for prediction in response.json()["predictions"]:
        labels.add(prediction["label"])
        assert (prediction["label"] == "") == (max(prediction["probabilities"]) < threshold)
        assert min(prediction["probabilities"]) > 0
    assert labels > {""}


def test_a_failure_of_the_model_is_reported_and_logged_without_the_text(
    exported: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    classifier = BundleClassifier.load(exported)
    encode = classifier.encode

    def encode_or_fail(texts: list[str]) -> list[bytes]:
        if max(map(len, texts)) > 10:
            raise MemoryError(*texts)
        return encode(texts)

    monkeypatch.setattr(classifier, "encode", encode_or_fail)
    app = application(classifier, ServeConfig())
    with caplog.at_level(logging.DEBUG):
        failed, fine = post_in_process(app, {"text": "my long secret"}, {"text": "fine"})
    assert failed.status_code == 500
    assert error_of(failed) == "the model failed; see the log of the service"
    assert fine.status_code == 200
    assert "failed with MemoryError" in caplog.text
    assert "secret" not in caplog.text


def test_a_port_in_use(exported: Path, capsys: Capture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert call("serve", "--weights", exported, "--port", str(port)) == 2
    assert f"--port {port} is in use on 127.0.0.1" in error_line(capsys)


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--port", "65536"), ("--port", "-1"), ("--max_texts", "0"), ("--max_characters", "0"),
        ("--max_body_bytes", "0"), ("--batch_size", "0"), ("--max_queue", "0"),
        ("--max_connections", "0"), ("--cors_origin", "example.org"),
        ("--cors_origin", "https://example.org/page"), ("--cors_origin", "*"),
        ("--min_confidence", "1.1"), ("--min_confidence", "-0.1"), ("--weights", "nowhere"),
        ("--host", "300.1.1.1"),
    ],
)  # fmt: skip
def test_errors_name_the_invalid_flag(
    exported: Path, capsys: Capture, flag: str, value: str
) -> None:
    assert call("serve", "--weights", exported, flag, value) == 2
    assert flag.removeprefix("--") in error_line(capsys)


@pytest.mark.parametrize("library", ["fastapi", "prometheus_client", "uvicorn"])
def test_a_missing_library_is_named_with_its_extra(
    exported: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    for module in [name for name in sys.modules if name.startswith("edge.serving.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.delattr("edge.serving.serve")
    assert call("serve", "--weights", exported) == 1
    line = error_line(capsys)
    assert f"{library} is not installed" in line
    assert "featherweight[serve]" in line
