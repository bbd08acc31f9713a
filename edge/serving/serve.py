"""`serve`: a classifier that answers over HTTP, with texts in no log."""

import errno
import logging
import signal
import socket
import traceback
from typing import Any

import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edge.config import ServeConfig
from edge.serving.batcher import Batcher
from featherweight.classifier import Classifier
from featherweight.errors import UsageError
from featherweight.loading import load, newest_or_pretrained

logger = logging.getLogger("featherweight")

_BODY = (
    'the body must be {"text": "..."} or {"texts": ["...", "..."]}, '
    "sent with Content-Type: application/json"
)
_LAST_SECONDS = 30  # that requests under way have at the end before they are given up


class Question(BaseModel):
    """Either one text or several."""

    text: str | None = None
    texts: list[str] | None = None


class Prediction(BaseModel):
    """What one text is; the label is empty where the service is not sure enough."""

    label: str
    probabilities: list[float]


class Answer(BaseModel):
    """A prediction for each text, with probabilities in the order of the labels."""

    model: str
    labels: list[str]
    predictions: list[Prediction]


class Health(BaseModel):
    """Who answers."""

    status: str
    model: str
    labels: list[str]


class Problem(BaseModel):
    """Why there is no answer, in one line."""

    error: str


class BodyLimit:
    """Stops reading a request whose body is too large."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves a request, counting the bytes that it brings."""
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.max_bytes:
                raise HTTPException(413, f"the body is larger than {self.max_bytes:,} bytes")
            return message

        await self.app(scope, counted, send)


def serve(config: ServeConfig) -> None:
    """Answers until SIGINT or SIGTERM, and then what is under way.

    Raises:
        UsageError: There is no run, or no listening there.
        WeightsError: The weights cannot be used.
    """
    classifier = load(config.weights or newest_or_pretrained(config.output_dir), config.device)
    listener = _listen(config.host, config.port)
    server = uvicorn.Server(
        uvicorn.Config(
            application(classifier, config), lifespan="off", ws="none", log_config=None,
            log_level="critical", access_log=False, timeout_graceful_shutdown=_LAST_SECONDS,
        )
    )  # fmt: skip

    def stop(*_: Any) -> None:
        server.should_exit = True

    # The server has its own handlers while it runs, and raises the signal again when it is done.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    host = f"[{config.host}]" if ":" in config.host else config.host
    url = f"http://{host}:{listener.getsockname()[1]}"
    print(f"{classifier.name} answers at {url} (try {url}/docs; Ctrl-C ends it)", flush=True)
    server.run([listener])


def application(classifier: Classifier, config: ServeConfig) -> FastAPI:
    """Returns the service as an ASGI application."""
    batcher = Batcher(classifier.predict_proba, config.batch_size)
    labels = list(classifier.labels)
    app = FastAPI(title="featherweight", description=f"Classifies texts with {classifier.name}.")
    app.add_middleware(BodyLimit, max_bytes=config.max_body_bytes)
    app.add_exception_handler(StarletteHTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _failed)
    problems: dict[int | str, dict[str, Any]] = {
        status: {"model": Problem, "description": description}
        for status, description in {
            400: "The body is no JSON.",
            413: f"The body is larger than {config.max_body_bytes:,} bytes.",
            422: f"Not one text or a list of them, more than {config.max_texts:,} texts, or one of "
            f"more than {config.max_characters:,} characters.",
            500: "The model failed.",
        }.items()
    }

    @app.post("/predict", responses=problems)
    async def predict(question: Question) -> Answer:
        """Returns the label of one text or of each of several, and its probabilities."""
        texts = _texts(question, config)
        probabilities = await batcher.answer(texts)
        predictions = [
            Prediction(
                label=labels[row.argmax()] if row.max() >= config.min_confidence else "",
                probabilities=row.tolist(),
            )
            for row in probabilities
        ]
        return Answer(model=classifier.name, labels=labels, predictions=predictions)

    @app.get("/health")
    async def health() -> Health:
        """Says that the service is up, and who answers."""
        return Health(status="ok", model=classifier.name, labels=labels)

    return app


def _texts(question: Question, config: ServeConfig) -> list[str]:
    """Returns the texts of a request that keeps to the limits.

    Raises:
        HTTPException: It does not.
    """
    if (question.text is None) == (question.texts is None):
        raise HTTPException(422, 'give either "text" or "texts"')
    texts = [question.text] if question.text is not None else question.texts or []
    if len(texts) > config.max_texts:
        raise HTTPException(
            422, f"{len(texts):,} texts are too many: send at most {config.max_texts:,} at once"
        )
    for index, text in enumerate(texts):
        if len(text) > config.max_characters:
            raise HTTPException(
                422,
                f"text {index} has {len(text):,} characters: at most {config.max_characters:,} "
                "are read",
            )
    # Half a surrogate pair is no character, and would fail the batch of others too.
    return [text.encode(errors="replace").decode() for text in texts]


def _listen(host: str, port: int) -> socket.socket:
    """Opens the port.

    Raises:
        UsageError: It is taken, or not ours to open.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
        # asyncio sets it for sockets it opens itself; without it an answer waits 40 ms for an ACK.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UsageError(f"--port {port} is taken on {host}: give another") from None
        reason = error.strerror or error
        raise UsageError(f"--host {host} --port {port} cannot be opened ({reason})") from None


def _problem(status: int, line: str) -> JSONResponse:
    return JSONResponse(Problem(error=line).model_dump(), status)


async def _refused(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, StarletteHTTPException)
    return _problem(error.status_code, error.detail)


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        reason, position = first["ctx"]["error"], first["loc"][1]
        return _problem(400, f"the body is no JSON: {reason} (at character {position})")
    where = ".".join(map(str, first["loc"][1:]))
    return _problem(422, f"{where}: {first['msg']}" if where else _BODY)


async def _failed(_: Request, error: Exception) -> JSONResponse:
    # Without its message, which may quote a text.
    where = "".join(traceback.format_tb(error.__traceback__)).rstrip()
    logger.error("a request failed with %s:\n%s", type(error).__name__, where)
    return _problem(500, "the model failed; the log of the service says where")
