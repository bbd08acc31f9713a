"""Requests that arrive while a batch is computed become the next batch."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from featherweight.classifier import FloatArray


class _Request(NamedTuple):
    texts: Sequence[str]
    answer: asyncio.Future[FloatArray]


class Batcher:
    """Answers the requests of one event loop, one batch at a time.

    A request that finds nobody computing is computed at once, so a quiet service answers without
    delay and a busy one in batches that are as large as it is busy.
    """

    def __init__(self, compute: Callable[[Sequence[str]], FloatArray], batch_size: int) -> None:
        """Makes ready to answer.

        Args:
            compute: Returns a row for each of N texts; called in a thread, never twice at once.
            batch_size: Most texts computed together; a request of more is computed alone.
        """
        self._compute = compute
        self._batch_size = batch_size
        self._waiting: deque[_Request] = deque()
        self._computing: asyncio.Task[None] | None = None

    async def answer(self, texts: Sequence[str]) -> FloatArray:
        """Returns the rows (N, C) of N texts.

        Raises:
            Exception: What `compute` raised for the batch in which the texts were.
        """
        request = _Request(texts, asyncio.get_running_loop().create_future())
        self._waiting.append(request)
        if self._computing is None or self._computing.done():
            self._computing = asyncio.create_task(self._answer_all())
        return await request.answer

    async def _answer_all(self) -> None:
        """Computes batch after batch until nobody waits."""
        while self._waiting:
            batch = self._next_batch()
            if not batch:
                continue
            try:
                texts = [text for request in batch for text in request.texts]
                rows = await asyncio.to_thread(self._compute, texts)
            except Exception as error:
                for request in batch:
                    if not request.answer.done():
                        request.answer.set_exception(error)
                continue
            start = 0
            for request in batch:
                end = start + len(request.texts)
                if not request.answer.done():
                    request.answer.set_result(rows[start:end])
                start = end

    def _next_batch(self) -> list[_Request]:
        """Takes the requests that waited longest, but for those whose asker has gone."""
        batch: list[_Request] = []
        size = 0
        while self._waiting:
            request = self._waiting[0]
            if batch and size + len(request.texts) > self._batch_size:
                break
            self._waiting.popleft()
            if not request.answer.done():
                batch.append(request)
                size += len(request.texts)
        return batch
