"""Dynamic batching: requests that arrive while a batch is computed form the next batch."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from featherweight.classifier import FloatArray


class _Request(NamedTuple):
    texts: Sequence[str]
    result: asyncio.Future[FloatArray]


class Batcher:
    """Computes the requests of one event loop, one batch at a time.

    A request that arrives while nothing is computed is computed at once, so there is no delay under
    low load, and under high load batches grow with it.
    """

    def __init__(self, compute: Callable[[Sequence[str]], FloatArray], batch_size: int) -> None:
        """Creates an idle batcher.

        Args:
            compute: Returns a row for each of N texts; called in a thread, one call at a time.
            batch_size: Maximum number of texts per batch; a larger request is computed alone.
        """
        self._compute = compute
        self._batch_size = batch_size
        self._waiting: deque[_Request] = deque()
        self._worker: asyncio.Task[None] | None = None

    async def predict(self, texts: Sequence[str]) -> FloatArray:
        """Returns the rows (N, C) of N texts.

        Raises:
            Exception: Whatever `compute` raised for the batch with these texts; a RuntimeError for
                errors that are not Exceptions, such as a panic of a library.
        """
        request = _Request(texts, asyncio.get_running_loop().create_future())
        self._waiting.append(request)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._compute_waiting())
        return await request.result

    async def _compute_waiting(self) -> None:
        """Computes batch after batch until no request is waiting."""
        while self._waiting:
            batch = self._next_batch()
            if not batch:
                continue
            texts = [text for request in batch for text in request.texts]
            outcome = await asyncio.to_thread(self._outcome, texts)
            start = 0
            for request in batch:
                end = start + len(request.texts)
                if request.result.done():
                    pass  # canceled
                elif isinstance(outcome, Exception):
                    request.result.set_exception(outcome)
                else:
                    request.result.set_result(outcome[start:end])
                start = end

    def _outcome(self, texts: Sequence[str]) -> FloatArray | Exception:
        """Returns the rows, or the error as a value: not every kind can pass through a future."""
        try:
            rows = self._compute(texts)
            if len(rows) != len(texts):
                raise ValueError(f"{len(rows)} rows for {len(texts)} texts")
            return rows
        except BaseException as error:
            if isinstance(error, Exception) and not isinstance(error, StopIteration):
                return error
            return RuntimeError(type(error).__name__).with_traceback(error.__traceback__)

    def _next_batch(self) -> list[_Request]:
        """Removes the oldest requests that fit into a batch, and all canceled ones before them."""
        batch: list[_Request] = []
        size = 0
        while self._waiting:
            request = self._waiting[0]
            if batch and size + len(request.texts) > self._batch_size:
                break
            self._waiting.popleft()
            if not request.result.done():
                batch.append(request)
                size += len(request.texts)
        return batch
