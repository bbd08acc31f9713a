"""The routes of the service, as an ASGI application."""

import logging
import traceback
from collections.abc import Collection
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.middleware.cors import CORSMiddleware

from edge.config import ServeConfig
from edge.serving.batcher import Batcher
from edge.serving.gate import RETRY_AFTER, Gate, Problem, problem
from edge.serving.metrics import CONTENT_TYPE, Metrics
from edge.serving.pages import PAGE, documentation
from featherweight.classifier import Classifier

logger = logging.getLogger("featherweight")

_BODY = (
    'the body must be {"text": "..."} or {"texts": ["...", "..."]} '
    "with Content-Type: application/json"
)


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


def application(
    classifier: Classifier,
    config: ServeConfig,
    metrics: Metrics | None = None,
    hosts: Collection[str] = (),
) -> FastAPI:
    """Returns the service as an ASGI application.

    Args:
        classifier: The model.
        config: Options of serve.
        metrics: Where requests are counted.
        hosts: The hosts that a request may name; any if it is empty.
    """
    metrics = metrics or Metrics()
    app = FastAPI(
        title="featherweight", description=f"Classifies texts with {classifier.name}.",
        docs_url=None, redoc_url=None,
    )  # fmt: skip
    app.add_middleware(
        Gate, metrics=metrics, hosts=hosts, max_body_bytes=config.max_body_bytes,
        max_queue=config.max_queue,
    )  # fmt: skip
    if config.cors_origin:
        app.add_middleware(
            CORSMiddleware, allow_origins=config.cors_origin, allow_methods=["GET", "POST"],
            allow_headers=["content-type"],
        )  # fmt: skip
    app.add_exception_handler(StarletteHTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(Exception, _internal_error)
    _add_prediction(app, classifier, config, metrics)
    _add_status(app, classifier, config, metrics)
    _add_pages(app)
    return app


def _add_prediction(
    app: FastAPI, classifier: Classifier, config: ServeConfig, metrics: Metrics
) -> None:
    batcher = Batcher(classifier.predict_proba, config.batch_size)
    labels = list(classifier.labels)

    @app.post("/predict", response_description="The predictions.", responses=_problems(config))
    async def predict(request: PredictRequest) -> PredictResponse:
        """Returns the label and the class probabilities of one or several texts."""
        texts = _texts(request, config)
        probabilities = await batcher.predict(texts)
        predictions = [
            Prediction(
                label=labels[row.argmax()] if row.max() >= config.min_confidence else "",
                probabilities=row.tolist(),
            )
            for row in probabilities
        ]
        metrics.texts.inc(len(texts))
        return PredictResponse(model=classifier.name, labels=labels, predictions=predictions)


def _add_status(
    app: FastAPI, classifier: Classifier, config: ServeConfig, metrics: Metrics
) -> None:
    @app.get("/health", response_description="The service is running.")
    async def health() -> Health:
        """Returns that the service is running, and its model."""
        return Health(status="ok", model=classifier.name, labels=list(classifier.labels))

    @app.get(
        "/ready", response_description="The queue has a place.",
        responses={503: {"model": Problem, "description": "The queue is full."}},
    )  # fmt: skip
    async def ready() -> Health:
        """Returns whether the service would answer another prediction now."""
        if metrics.in_queue >= config.max_queue:
            raise HTTPException(503, "the queue is full: try again later", RETRY_AFTER)
        return Health(status="ready", model=classifier.name, labels=list(classifier.labels))

    @app.get("/metrics", response_class=Response, response_description="The metrics.")
    async def exposition() -> Response:
        """Returns counts and times in Prometheus' text format."""
        return Response(metrics.text(), headers={"content-type": CONTENT_TYPE})


def _add_pages(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(PAGE)

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> HTMLResponse:
        return HTMLResponse(documentation(app.openapi(), str(request.base_url)))


def _problems(config: ServeConfig) -> dict[int | str, dict[str, Any]]:
    """Returns the documentation of the error responses, by status code."""
    descriptions = {
        400: "The body is not valid JSON.",
        413: f"The body is larger than {config.max_body_bytes:,} bytes.",
        422: f"The body is neither one text nor a list of texts, has more than "
        f"{config.max_texts:,} texts or a text of more than {config.max_characters:,} characters.",
        500: "The model failed.",
        503: f"{config.max_queue:,} requests are waiting; the header Retry-After says when to try "
        "again.",
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


async def _http_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, StarletteHTTPException)
    return problem(error.status_code, error.detail, error.headers)


async def _invalid_request(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        reason, position = first["ctx"]["error"], first["loc"][1]
        return problem(400, f"the body is not valid JSON: {reason} (at character {position})")
    field = ".".join(map(str, first["loc"][1:]))
    return problem(422, f"{field}: {first['msg']}" if field else _BODY)


async def _internal_error(_: Request, error: Exception) -> JSONResponse:
    # Without the error's message, which may quote a text.
    stack = "".join(traceback.format_tb(error.__traceback__)).rstrip()
    logger.error("a request failed with %s:\n%s", type(error).__name__, stack)
    return problem(500, "the model failed; see the log of the service")
