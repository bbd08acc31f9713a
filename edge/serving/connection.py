"""HTTP connections that cannot stay open without progress, and cheap refusals under overload.

uvicorn limits only the time between two requests. A client that sends half a request, or does not
read its response, would keep its connection for good. And if a refusal took as long as an answer,
an overloaded service would have no time left for answers.
"""

import asyncio
import re
from dataclasses import dataclass
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from edge.serving.metrics import Metrics

CLIENT_SECONDS = 10.0  # for a client to send a whole request, and to read the response
STOP_SECONDS = 3.0  # for the same, once the service is stopping
_REFUSED_SECONDS = 1.0  # for a refused connection
_PAUSE_SECONDS = 0.02  # before the next request is read from a client that does not wait
_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,9})[ \t]*(?:\r\n|$)", re.IGNORECASE)


def _response(status: str, line: str, *headers: str) -> bytes:
    body = f'{{"error":"{line}"}}'
    length = f"content-length: {len(body)}"
    return "\r\n".join(
        [f"HTTP/1.1 {status}", "content-type: application/json", length, *headers, "", body]
    ).encode()


_RETRY, _CLOSE = "retry-after: 1", "connection: close"
_BUSY = "503 Service Unavailable"
_QUEUE_FULL = _response(_BUSY, "too many requests are waiting: try again later", _RETRY)
_NO_PLACE = _response(_BUSY, "too many connections: try again later", _RETRY, _CLOSE)
_TIMEOUT = _response("408 Request Timeout", "the request was not complete in time", _CLOSE)


@dataclass
class Limits:
    """What the connections of a service share.

    Attributes:
        max_connections: Maximum number of open connections, and of refused ones on top of it.
        max_queue: Maximum number of requests that are computed or wait.
        metrics: Where refusals are counted.
        num_refused: Refused connections that are still open, to send the response.
        num_entering: Requests that have just arrived and will be in the queue in the next
            iteration of the event loop.
    """

    max_connections: int
    max_queue: int
    metrics: Metrics
    num_refused: int = 0
    num_entering: int = 0

    def enter(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Returns whether the queue has a place for a request that has just arrived."""
        if self.metrics.in_queue + self.num_entering >= self.max_queue:
            return False
        if not self.num_entering:
            loop.call_soon(self._reset)
        self.num_entering += 1
        return True

    def _reset(self) -> None:
        self.num_entering = 0


class Connection(H11Protocol):
    """One connection of a service."""

    def __init__(self, limits: Limits, **options: Any) -> None:
        """Creates a connection.

        Args:
            limits: Shared by all connections of the service.
            options: Arguments of the base class.
        """
        super().__init__(**options)
        self._limits = limits
        self._timer: asyncio.TimerHandle | None = None
        self._is_refused = self._is_answered = self._is_stopping = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Starts to wait for a request, or refuses the connection if there are too many."""
        super().connection_made(transport)
        self._start_timer(CLIENT_SECONDS)
        if len(self.connections) > self._limits.max_connections:
            self._refuse()

    def data_received(self, data: bytes) -> None:
        """Handles a part of a request."""
        if self._is_refused:
            if not self._is_answered:  # not closed yet, so that the client can read the answer
                self._is_answered = True
                self.transport.write(_NO_PLACE)
                self.transport.write_eof()
        elif self._is_whole_post(data) and not self._limits.enter(self.loop):
            self._unset_keepalive_if_required()
            self._start_timer(CLIENT_SECONDS)
            self._limits.metrics.requests.labels(503).inc()
            self.transport.write(_QUEUE_FULL)
            self.flow.pause_reading()
            self.loop.call_later(_PAUSE_SECONDS, self.flow.resume_reading)
        else:
            super().data_received(data)
            self._watch()

    def on_response_complete(self) -> None:
        """Waits for the next request, and for the client to read the response."""
        super().on_response_complete()
        self._watch()

    def pause_writing(self) -> None:
        """Waits for the client to read what was sent."""
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        """Goes on sending."""
        super().resume_writing()
        self._watch()

    def shutdown(self) -> None:
        """Closes the connection, or lets its request finish if one is computed."""
        super().shutdown()
        self._is_stopping = True
        self._stop_timer()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets the connection."""
        self._stop_timer()
        self._limits.num_refused -= self._is_refused
        super().connection_lost(exc)

    def _is_whole_post(self, data: bytes) -> bool:
        """Returns whether the data is one whole POST request.

        Requests in several parts take the normal way, on which `Gate` may refuse them.
        """
        if not data.startswith(b"POST ") or self.conn.their_state is not h11.IDLE:
            return False
        head, _, body = data.partition(b"\r\n\r\n")
        length = _CONTENT_LENGTH.search(head)
        return (
            length is not None
            and int(length[1]) == len(body)
            and b"\r\nconnection:" not in head.lower()
            and not self._is_receiving()
        )

    def _refuse(self) -> None:
        """Answers the first bytes with 503, or closes at once if too many are refused already."""
        self.connections.discard(self)
        self._limits.metrics.refused.inc()
        if self._limits.num_refused >= self._limits.max_connections:
            self.transport.abort()
            return
        self._is_refused = True
        self._limits.num_refused += 1
        self._start_timer(_REFUSED_SECONDS)

    def _watch(self) -> None:
        """Limits the time of the client if the connection waits for it."""
        if not self.transport.get_write_buffer_size() and not self._is_receiving():
            self._stop_timer()
        elif self._timer is None:
            self._start_timer(STOP_SECONDS if self._is_stopping else CLIENT_SECONDS)

    def _is_receiving(self) -> bool:
        """Returns whether a part of a request has arrived, and the rest has not."""
        if self.conn.their_state is h11.IDLE:
            return bool(self.conn.trailing_data[0])
        return self.conn.their_state is h11.SEND_BODY

    def _start_timer(self, seconds: float) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(seconds, self._expire)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        self._timer = None
        if self.transport.get_write_buffer_size():  # the client does not read
            self.transport.abort()
            return
        has_response = self.cycle is not None and self.cycle.response_started
        if self._is_receiving() and (self.conn.their_state is h11.IDLE or not has_response):
            self.transport.write(_TIMEOUT)
        self.transport.close()
