"""`serve`: an HTTP service that classifies texts and never logs them."""

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
    'the body must be {"text": "..."} or {"texts": ["...", "..."]} '
    "with Content-Type: application/json"
)
_SHUTDOWN_SECONDS = 30  # after which requests in progress are canceled


class PredictRequest(BaseModel):
    """Either one text or a list of texts."""

    text: str | None = None
    texts: list[str] | None = None


class Prediction(BaseModel):
    """Prediction for one text; the label is empty below the minimum confidence."""

    label: str
    probabilities: list[float]


class PredictResponse(BaseModel):
    """One prediction per text; probabilities are in the order of the labels."""

    model: str
    labels: list[str]
    predictions: list[Prediction]


class Health(BaseModel):
    """Status and model of the service."""

    status: str
    model: str
    labels: list[str]


class Problem(BaseModel):
    """Why the request failed, in one line."""

    error: str


class BodyLimit:
    """Stops reading a request whose body is too large."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles a request, counting the bytes of its body."""
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
    """Serves until SIGINT or SIGTERM, then finishes the requests in progress.

    Raises:
        UsageError: There is no run, or the address cannot be opened.
        WeightsError: The weights cannot be used.
    """
    classifier = load(config.weights or newest_or_pretrained(config.output_dir), config.device)
    listener = _listen(config.host, config.port)
    server = uvicorn.Server(
        uvicorn.Config(
            application(classifier, config), lifespan="off", ws="none", log_config=None,
            log_level="critical", access_log=False, timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
        )
    )  # fmt: skip

    def stop(*_: Any) -> None:
        server.should_exit = True

    # For the time before and after uvicorn's own handlers, which raise the signal again.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    host = f"[{config.host}]" if ":" in config.host else config.host
    url = f"http://{host}:{listener.getsockname()[1]}"
    print(f"serving {classifier.name} at {url} (API: {url}/docs, stop: Ctrl-C)", flush=True)
    server.run([listener])


def application(classifier: Classifier, config: ServeConfig) -> FastAPI:
    """Returns the service as an ASGI application."""
    batcher = Batcher(classifier.predict_proba, config.batch_size)
    labels = list(classifier.labels)
    app = FastAPI(title="featherweight", description=f"Classifies texts with {classifier.name}.")
    app.add_middleware(BodyLimit, max_bytes=config.max_body_bytes)
    app.add_exception_handler(StarletteHTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(Exception, _internal_error)

    @app.post("/predict", responses=_problems(config))
    async def predict(request: PredictRequest) -> PredictResponse:
        """Returns the label and the class probabilities of one or several texts."""
        probabilities = await batcher.predict(_texts(request, config))
        predictions = [
            Prediction(
                label=labels[row.argmax()] if row.max() >= config.min_confidence else "",
                probabilities=row.tolist(),
            )
            for row in probabilities
        ]
        return PredictResponse(model=classifier.name, labels=labels, predictions=predictions)

    @app.get("/health")
    async def health() -> Health:
        """Returns that the service is running, and its model."""
        return Health(status="ok", model=classifier.name, labels=labels)

    return app


def _problems(config: ServeConfig) -> dict[int | str, dict[str, Any]]:
    """Returns the documentation of the error responses, by status code."""
    descriptions = {
        400: "The body is not valid JSON.",
        413: f"The body is larger than {config.max_body_bytes:,} bytes.",
        422: f"The body is neither one text nor a list of texts, has more than "
        f"{config.max_texts:,} texts or a text of more than {config.max_characters:,} characters.",
        500: "The model failed.",
    }
    return {
        status: {"model": Problem, "description": description}
        for status, description in descriptions.items()
    }


def _texts(request: PredictRequest, config: ServeConfig) -> list[str]:
    """Returns the texts of a request, or raises an HTTPException if they exceed a limit."""
    if (request.text is None) == (request.texts is None):
        raise HTTPException(422, 'give either "text" or "texts"')
    texts = [request.text] if request.text is not None else request.texts or []
    if len(texts) > config.max_texts:
        raise HTTPException(
            422, f"{len(texts):,} texts are too many: send at most {config.max_texts:,} at once"
        )
    for index, text in enumerate(texts):
        if len(text) > config.max_characters:
            raise HTTPException(
                422,
                f"text {index} has {len(text):,} characters: at most {config.max_characters:,} "
                "are allowed",
            )
    # A lone surrogate cannot be encoded, and would fail the other requests in its batch too.
    return [text.encode(errors="replace").decode() for text in texts]


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


def _problem(status: int, line: str) -> JSONResponse:
    return JSONResponse(Problem(error=line).model_dump(), status)


async def _http_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, StarletteHTTPException)
    return _problem(error.status_code, error.detail)


async def _invalid_request(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        reason, position = first["ctx"]["error"], first["loc"][1]
        return _problem(400, f"the body is not valid JSON: {reason} (at character {position})")
    field = ".".join(map(str, first["loc"][1:]))
    return _problem(422, f"{field}: {first['msg']}" if field else _BODY)


async def _internal_error(_: Request, error: Exception) -> JSONResponse:
    # Without the error's message, which may quote a text.
    stack = "".join(traceback.format_tb(error.__traceback__)).rstrip()
    logger.error("a request failed with %s:\n%s", type(error).__name__, stack)
    return _problem(500, "the model failed; see the log of the service")
