"""The service over real HTTP: what the runtime answers, within limits, until a signal ends it."""

import asyncio
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
import pytest

import edge
from edge.classifier import BundleClassifier
from edge.config import ServeConfig
from edge.golden import EDGE_CASES
from edge.runtime import Bundle, load
from edge.serving.serve import application
from featherweight import load as load_run
from featherweight.classifier import FloatArray
from tests.helpers.command_line import Capture, call, error_line

TEXTS = [*EDGE_CASES, "i am so happy today", "i miss my dog", "stop it, i hate this", "😀" * 500]
MOST_TEXTS, MOST_CHARACTERS, MOST_BYTES = 100, 2_000, 300_000
LIMITS = [
    "--max_texts", str(MOST_TEXTS), "--max_characters", str(MOST_CHARACTERS),
    "--max_body_bytes", str(MOST_BYTES), "--batch_size", "16",
]  # fmt: skip
MAIN = "import sys; from featherweight.cli import main; sys.exit(main(sys.argv[1:]))"
NO_TORCH = f"import sys; sys.modules['torch'] = None\n{MAIN}"


class Server(NamedTuple):
    process: subprocess.Popen[str]
    line: str
    url: str

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str, str]:
        """Returns the exit code, and what was printed and logged after the first line."""
        self.process.send_signal(number)
        out, error = self.process.communicate(timeout=120)
        return self.process.returncode, out, error


@contextmanager
def serving(
    weights: Path, environment: dict[str, str], *flags: str, code: str = NO_TORCH
) -> Iterator[Server]:
    command = [sys.executable, "-c", code, "serve", "--weights", str(weights), "--port", "0"]
    process = subprocess.Popen(
        [*command, *flags], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=environment | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        assert process.stdout
        line = process.stdout.readline()
        found = re.search(r"http://[\d.]+:\d+", line)
        assert found, process.communicate()[1]
        yield Server(process, line, found[0])
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def server(exported: Path) -> Iterator[Server]:
    environment = {**os.environ, "PYTHONPATH": ":".join(filter(None, sys.path))}
    with serving(exported, environment, *LIMITS) as started:
        yield started


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=120, trust_env=False) as opened:
        yield opened


@pytest.fixture(scope="module")
def bundle(exported: Path) -> Bundle:
    return load(exported)


def answered(response: httpx.Response) -> tuple[list[str], FloatArray]:
    assert response.status_code == 200, response.text
    predictions = response.json()["predictions"]
    probabilities = np.array([it["probabilities"] for it in predictions])
    return [it["label"] for it in predictions], probabilities.reshape(len(predictions), -1)


def refusal(response: httpx.Response) -> str:
    assert response.headers["content-type"] == "application/json"
    (line,) = response.json().values()
    assert response.json().keys() == {"error"}
    assert "\n" not in line
    return str(line)


def test_the_first_line_says_where_it_is_and_it_is_for_this_machine_only(server: Server) -> None:
    port = int(server.url.rpartition(":")[2])
    assert server.line.startswith(f"tiny (bundle) answers at http://127.0.0.1:{port} ")
    with pytest.raises(OSError, match=r"."):
        socket.create_connection(("127.0.0.2", port), timeout=2)


def test_one_text(client: httpx.Client, bundle: Bundle) -> None:
    text = "i am so happy today"
    response = client.post("/predict", json={"text": text})
    labels, probabilities = answered(response)
    assert labels == bundle.predict([text])
    assert probabilities == pytest.approx(bundle.predict_proba([text]), abs=1e-6)
    assert response.json()["model"] == "tiny (bundle)"
    assert response.json()["labels"] == bundle.classes_.tolist()


def test_many_texts_of_any_characters(client: httpx.Client, bundle: Bundle) -> None:
    texts = [*TEXTS, "half \ud800 a pair", "\x00", ""]
    # As ASCII, in which half a pair can be said.
    response = client.post(
        "/predict", content=json.dumps({"texts": texts}),
        headers={"content-type": "application/json"},
    )  # fmt: skip
    labels, probabilities = answered(response)
    assert labels == bundle.predict(texts)
    assert probabilities == pytest.approx(bundle.predict_proba(texts), abs=1e-6)


def test_no_text_is_no_answer(client: httpx.Client) -> None:
    assert client.post("/predict", json={"texts": []}).json()["predictions"] == []


def test_fifty_at_once_get_what_the_runtime_answers(server: Server, bundle: Bundle) -> None:
    questions = [TEXTS[index % len(TEXTS) :][: 1 + index % 5] for index in range(50)]

    async def ask() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=server.url, timeout=120, trust_env=False) as client:
            return await asyncio.gather(
                *(client.post("/predict", json={"texts": texts}) for texts in questions)
            )

    for texts, response in zip(questions, asyncio.run(ask()), strict=True):
        labels, probabilities = answered(response)
        assert labels == bundle.predict(texts)
        assert probabilities == pytest.approx(bundle.predict_proba(texts), abs=1e-6)


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ('{"text": "a', 400, "the body is no JSON: Unterminated string"),
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
        (json.dumps({"texts": ["a"] * (MOST_TEXTS + 1)}), 422, "101 texts are too many"),
        (json.dumps({"texts": ["a", "a" * (MOST_CHARACTERS + 1)]}), 422, "text 1 has 2,001"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_one_line(
    client: httpx.Client, body: str | bytes, status: int, said: str
) -> None:
    headers = {"content-type": "application/json"}
    response = client.post("/predict", content=body, headers=headers)
    assert response.status_code == status
    assert said in refusal(response)


def test_what_is_at_the_limits_is_answered(client: httpx.Client) -> None:
    texts = ["a" * MOST_CHARACTERS] * MOST_TEXTS
    assert len(answered(client.post("/predict", json={"texts": texts}))[0]) == MOST_TEXTS


@pytest.mark.parametrize("size", [MOST_BYTES + 1, 20 * MOST_BYTES])
@pytest.mark.parametrize("said_before", [True, False])
def test_a_body_too_large_is_refused(client: httpx.Client, size: int, said_before: bool) -> None:
    body = b'{"text": "a"' + b" " * (size - 13) + b"}"
    response = client.post(
        "/predict", content=body if said_before else iter([body[:1_000], body[1_000:]]),
        headers={"content-type": "application/json"},
    )  # fmt: skip
    assert response.status_code == 413
    assert "300,000 bytes" in refusal(response)
    assert answered(client.post("/predict", json={"text": "a"}))  # as ever


def test_another_content_type_is_told_which(client: httpx.Client) -> None:
    response = client.post("/predict", data={"text": "a"})
    assert response.status_code == 422
    assert "application/json" in refusal(response)


def test_what_is_not_there_is_refused_in_one_line(client: httpx.Client) -> None:
    assert client.get("/nothing").status_code == 404
    assert refusal(client.get("/nothing")) == "Not Found"
    assert client.get("/predict").status_code == 405


def test_health(client: httpx.Client, bundle: Bundle) -> None:
    labels = bundle.classes_.tolist()
    assert client.get("/health").json() == {
        "status": "ok", "model": "tiny (bundle)", "labels": labels,
    }  # fmt: skip


def test_it_describes_itself(client: httpx.Client) -> None:
    described = client.get("/openapi.json").json()
    assert described["paths"].keys() == {"/predict", "/health"}
    responses = described["paths"]["/predict"]["post"]["responses"]
    assert responses.keys() == {"200", "400", "413", "422", "500"}
    for status in ("400", "413", "422", "500"):
        schema = responses[status]["content"]["application/json"]["schema"]
        assert schema["$ref"].endswith("/Problem")
    assert "swagger" in client.get("/docs").text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_after_what_is_under_way(
    exported_zip: Path, elsewhere: dict[str, str], number: int
) -> None:
    body = b'{"text": "a secret of mine"}'
    head = (
        b"POST /predict HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n"
        b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body)
    )
    with serving(exported_zip, elsewhere) as server:
        address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
        with socket.create_connection(address, timeout=120) as asking:
            asking.sendall(head)
            assert asking.recv(1_000).startswith(b"HTTP/1.1 100")  # it waits for the body
            server.process.send_signal(number)
            with suppress(ConnectionError):
                while True:  # until nobody listens any more
                    socket.create_connection(address, timeout=120).close()
            asking.sendall(body)
            answer = b"".join(iter(lambda: asking.recv(10_000), b""))
        assert answer.startswith(b"HTTP/1.1 200")
        assert b'"predictions":[{"label":"' in answer
        out, error = server.process.communicate(timeout=120)
        assert (server.process.returncode, out, error) == (0, "", "")


def test_any_weights_can_answer(tiny_run: Path, elsewhere: dict[str, str]) -> None:
    with serving(tiny_run, elsewhere, "--device", "cpu", code=MAIN) as server:
        response = httpx.post(
            f"{server.url}/predict", json={"texts": TEXTS}, timeout=120, trust_env=False
        )
        expected = load_run(tiny_run, "cpu").predict_proba(TEXTS)
        assert answered(response)[1] == pytest.approx(expected, abs=1e-6)
        assert server.end() == (0, "", "")


def inside(app: Any, *questions: dict[str, Any]) -> list[httpx.Response]:
    """Asks without a server."""

    async def ask() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            return [await client.post("/predict", json=question) for question in questions]

    return asyncio.run(ask())


def test_the_label_is_empty_where_it_is_not_sure(exported: Path, bundle: Bundle) -> None:
    threshold = float(np.median(bundle.predict_proba(TEXTS).max(axis=1)))
    app = application(BundleClassifier.load(exported), ServeConfig(min_confidence=threshold))
    (response,) = inside(app, {"texts": TEXTS})
    labels, probabilities = answered(response)
    assert labels == bundle.predict(TEXTS, min_confidence=threshold)
    assert "" in labels
    assert set(labels) > {""}
    assert (probabilities > 0).all()


def test_a_failure_of_the_model_is_told_without_the_text(
    exported: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    classifier = BundleClassifier.load(exported)
    encode = classifier.encode

    def encode_or_fail(texts: list[str]) -> list[bytes]:
        if max(map(len, texts)) > 10:
            raise MemoryError(*texts)
        return encode(texts)

    monkeypatch.setattr(classifier, "encode", encode_or_fail)
    with caplog.at_level(logging.DEBUG):
        failed, fine = inside(
            application(classifier, ServeConfig()), {"text": "my long secret"}, {"text": "fine"}
        )
    assert failed.status_code == 500
    assert refusal(failed) == "the model failed; the log of the service says where"
    assert fine.status_code == 200
    assert "failed with MemoryError" in caplog.text
    assert "secret" not in caplog.text


def test_a_port_that_is_taken(exported: Path, capsys: Capture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert call("serve", "--weights", exported, "--port", str(port)) == 2
    assert f"--port {port} is taken on 127.0.0.1" in error_line(capsys)


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--port", "65536"), ("--port", "-1"), ("--max_texts", "0"), ("--max_characters", "0"),
        ("--max_body_bytes", "0"), ("--batch_size", "0"), ("--min_confidence", "1.1"),
        ("--min_confidence", "-0.1"), ("--weights", "nowhere"), ("--host", "300.1.1.1"),
    ],
)  # fmt: skip
def test_wrong_flags_are_refused_by_name(
    exported: Path, capsys: Capture, flag: str, value: str
) -> None:
    assert call("serve", "--weights", exported, flag, value) == 2
    assert flag.removeprefix("--") in error_line(capsys)


@pytest.mark.parametrize("library", ["fastapi", "uvicorn"])
def test_a_missing_library_is_named_with_its_extra(
    exported: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, "edge.serving.serve")
    monkeypatch.delattr(edge, "service")
    assert call("serve", "--weights", exported) == 1
    line = error_line(capsys)
    assert f"{library} is not installed" in line
    assert "featherweight[serve]" in line
