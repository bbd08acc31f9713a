"""What a request has to pass before the application: its host, its size and the queue."""

from collections.abc import Collection, Mapping

from pydantic import BaseModel
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edge.serving.metrics import Metrics

RETRY_AFTER = {"retry-after": "1"}  # seconds


class Problem(BaseModel):
    """Why the request failed, in one line."""

    error: str


def problem(status: int, line: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Returns the response to a request that failed."""
    return JSONResponse(Problem(error=line).model_dump(), status, headers)


class Gate:
    """Refuses requests for other hosts, with too large bodies, and beyond the queue.

    A body is read before the request enters the queue, so that a slow client takes no place in it.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        hosts: Collection[str],
        max_body_bytes: int,
        max_queue: int,
    ) -> None:
        """Wraps an application.

        Args:
            app: The application.
            metrics: Where requests are counted.
            hosts: The hosts that a request may name; any if it is empty.
            max_body_bytes: Maximum size of a body.
            max_queue: Maximum number of POST requests in the application at a time.
        """
        self._app = app
        self._metrics = metrics
        self._hosts = hosts
        self._max_body_bytes = max_body_bytes
        self._max_queue = max_queue

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or refuses it."""

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._metrics.requests.labels(message["status"]).inc()
            await send(message)

        host = _host(scope)
        if self._hosts and host not in self._hosts:
            refusal = problem(421, f"this service does not answer for the host {host!r:.80}")
            await _refuse(refusal, receive, counted)
        elif scope["method"] == "POST":
            await self._post(scope, receive, counted)
        else:
            await self._app(scope, receive, counted)

    async def _post(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Reads the body, then passes the request on if the queue has a place."""
        body, more_body = b"", True
        while more_body:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message["body"]
            more_body = message["more_body"]
            if len(body) > self._max_body_bytes:
                line = f"the body is larger than {self._max_body_bytes:,} bytes"
                await _refuse(problem(413, line), receive, send, more_body)
                return
        if self._metrics.in_queue >= self._max_queue:
            line = f"{self._metrics.in_queue:,} requests are waiting: try again later"
            await problem(503, line, RETRY_AFTER)(scope, receive, send)
            return
        pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replayed() -> Message:
            return pending.pop() if pending else await receive()

        self._metrics.in_queue += 1
        try:
            with self._metrics.seconds.time():
                await self._app(scope, replayed, send)
        finally:
            self._metrics.in_queue -= 1


async def _refuse(
    response: JSONResponse, receive: Receive, send: Send, more_body: bool = True
) -> None:
    """Sends a response, and reads the rest of the body before ending it.

    If the connection were closed while the client sends, the client could not read the response.
    The time that a client has for its body limits this.

    Args:
        response: The response.
        receive: Of the request.
        send: Of the request.
        more_body: Whether a part of the body has not been received.
    """
    response.headers["connection"] = "close"
    start = {"type": "http.response.start", "status": response.status_code}
    await send(start | {"headers": response.raw_headers})
    await send({"type": "http.response.body", "body": response.body, "more_body": True})
    while more_body:
        more_body = (await receive()).get("more_body", False)
    await send({"type": "http.response.body", "body": b""})


def _host(scope: Scope) -> str:
    """Returns the host that a request names, without port, or "" for none."""
    value = dict(scope["headers"]).get(b"host", b"").decode("latin-1").lower()
    host, separator, port = value.rpartition(":")
    return host if separator and port.isdecimal() else value
