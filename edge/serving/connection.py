"""HTTP connections that cannot stay open without progress, and a limit on their number.

uvicorn limits only the time between two requests. A client that sends half a request, or does not
read its response, would keep its connection for good.
"""

import asyncio
from dataclasses import dataclass
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from edge.serving.metrics import Metrics

RECEIVE_SECONDS = 10.0  # for a whole request
SEND_SECONDS = 20.0  # for the part of a response that the client does not read
STOP_SECONDS = 3.0  # for both, once the service is stopping
_REFUSED_SECONDS = 1.0  # for a refused connection
_RECEIVING = (h11.IDLE, h11.SEND_BODY)


def _last_response(status: str, line: str) -> bytes:
    """Returns a response after which the connection is closed."""
    body = b'{"error":"%s"}' % line.encode()
    return (
        b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
        b"retry-after: 1\r\nconnection: close\r\n\r\n%s" % (status.encode(), len(body), body)
    )


_BUSY = _last_response("503 Service Unavailable", "too many connections: try again later")
_TIMEOUT = _last_response("408 Request Timeout", "the request was not complete in time")


@dataclass
class Places:
    """How many connections a service may have.

    Attributes:
        max_connections: Maximum number of open connections, and of refused ones on top of it.
        metrics: Where refused connections are counted.
        num_refused: Refused connections that are still open, to send the response.
    """

    max_connections: int
    metrics: Metrics
    num_refused: int = 0


class Connection(H11Protocol):
    """One connection of a service."""

    def __init__(self, places: Places, **options: Any) -> None:
        """Creates a connection.

        Args:
            places: Shared by all connections of the service.
            options: Arguments of the base class.
        """
        super().__init__(**options)
        self._places = places
        self._timer: asyncio.TimerHandle | None = None
        self._is_refused = self._is_stopping = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Starts to wait for a request, or refuses the connection if there are too many."""
        super().connection_made(transport)
        self._limit(RECEIVE_SECONDS)
        if len(self.connections) > self._places.max_connections:
            self._refuse()

    def data_received(self, data: bytes) -> None:
        """Handles a part of a request."""
        if self._is_refused:
            if not self.transport.is_closing():
                self.transport.write(_BUSY)
                self.transport.close()
            return
        super().data_received(data)
        if self.conn.their_state not in _RECEIVING:
            self._unlimit()
        elif self._timer is None:
            self._limit(RECEIVE_SECONDS)

    def on_response_complete(self) -> None:
        """Waits for the next request, and for the client to read the response."""
        super().on_response_complete()
        if self.transport.get_write_buffer_size():
            self._limit(SEND_SECONDS)

    def pause_writing(self) -> None:
        """Waits for the client to read what was sent."""
        super().pause_writing()
        self._limit(SEND_SECONDS)

    def resume_writing(self) -> None:
        """Goes on sending."""
        super().resume_writing()
        self._unlimit()

    def shutdown(self) -> None:
        """Closes the connection, or lets its request finish if one is computed."""
        super().shutdown()
        self._is_stopping = True
        if self.conn.their_state in _RECEIVING or self.transport.get_write_buffer_size():
            self._limit(STOP_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets the connection."""
        self._unlimit()
        self._places.num_refused -= self._is_refused
        super().connection_lost(exc)

    def _refuse(self) -> None:
        """Answers the first bytes with 503, or closes at once if too many are refused already."""
        self.connections.discard(self)
        self._places.metrics.refused.inc()
        if self._places.num_refused >= self._places.max_connections:
            self.transport.abort()
            return
        self._is_refused = True
        self._places.num_refused += 1
        self._limit(_REFUSED_SECONDS)

    def _limit(self, seconds: float) -> None:
        """Closes the connection unless it makes progress in time."""
        self._unlimit()
        seconds = min(seconds, STOP_SECONDS) if self._is_stopping else seconds
        self._timer = self.loop.call_later(seconds, self._expire)

    def _unlimit(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        self._timer = None
        if self.transport.get_write_buffer_size():  # the client does not read
            self.transport.abort()
        elif self._is_refused or self.conn.their_state in _RECEIVING:
            if self._has_partial_request():
                self.transport.write(_TIMEOUT)
            self.transport.close()

    def _has_partial_request(self) -> bool:
        """Returns whether a part of a request has arrived that is not answered."""
        if self.conn.their_state is h11.SEND_BODY:
            return not self.cycle.response_started
        return bool(self.conn.trailing_data[0])
