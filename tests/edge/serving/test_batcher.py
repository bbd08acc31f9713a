"""Requests that arrive during a computation form the next batch and get their own results."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence

import numpy as np
import pytest

from edge.serving.batcher import Batcher
from featherweight.classifier import FloatArray


class BlockingCompute:
    """Returns the length of each text, once `permits` is released."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.started = threading.Semaphore(0)
        self.permits = threading.Semaphore(0)

    def __call__(self, texts: Sequence[str]) -> FloatArray:
        self.batches.append(list(texts))
        self.started.release()
        assert self.permits.acquire(timeout=120)
        if "bad" in texts:
            raise ValueError("bad")
        return np.array([[len(text)] for text in texts], float).reshape(-1, 1)


Send = Callable[..., asyncio.Task[FloatArray]]


def batches_of(
    scenario: Callable[[BlockingCompute, Send], Awaitable[None]], batch_size: int = 100
) -> list[list[str]]:
    """Runs a scenario while a first request is computed; returns the batches after that one."""

    async def run() -> list[list[str]]:
        compute = BlockingCompute()
        batcher = Batcher(compute, batch_size)

        def send(*texts: str) -> asyncio.Task[FloatArray]:
            return asyncio.create_task(batcher.predict(texts))

        first = send("first")
        await asyncio.to_thread(compute.started.acquire)
        await scenario(compute, send)
        assert (await first).tolist() == [[5]]
        return compute.batches[1:]

    return asyncio.run(asyncio.wait_for(run(), 120))


async def all_queued() -> None:
    """Lets the created tasks queue their requests."""
    await asyncio.sleep(0)


def test_requests_during_a_computation_share_a_batch() -> None:
    async def scenario(compute: BlockingCompute, send: Send) -> None:
        requests = [send("a"), send("bb", "ccc"), send(), send("dddd")]
        await all_queued()
        compute.permits.release(2)
        results = [rows.tolist() for rows in await asyncio.gather(*requests)]
        assert results == [[[1]], [[2], [3]], [], [[4]]]

    assert batches_of(scenario) == [["a", "bb", "ccc", "dddd"]]


def test_batches_keep_the_maximum_size_and_the_order() -> None:
    async def scenario(compute: BlockingCompute, send: Send) -> None:
        requests = [send("a", "b"), send("c"), send("d"), send("e", "f", "g", "h"), send("i")]
        await all_queued()
        compute.permits.release(9)
        await asyncio.gather(*requests)

    batches = [["a", "b", "c"], ["d"], ["e", "f", "g", "h"], ["i"]]
    assert batches_of(scenario, batch_size=3) == batches


def test_an_error_fails_only_the_requests_of_its_batch() -> None:
    async def scenario(compute: BlockingCompute, send: Send) -> None:
        requests = [send("a"), send("bad"), send("cc"), send("ddd")]
        await all_queued()
        compute.permits.release(9)
        *failed, third, fourth = await asyncio.gather(*requests, return_exceptions=True)
        assert [type(error) for error in failed] == [ValueError, ValueError]
        assert isinstance(third, np.ndarray)
        assert isinstance(fourth, np.ndarray)
        assert (third.tolist(), fourth.tolist()) == ([[2]], [[3]])

    assert batches_of(scenario, batch_size=2) == [["a", "bad"], ["cc", "ddd"]]


def test_a_request_canceled_in_the_queue_is_not_computed() -> None:
    async def scenario(compute: BlockingCompute, send: Send) -> None:
        canceled, other = send("canceled"), send("other")
        await all_queued()
        canceled.cancel()
        compute.permits.release(2)
        assert (await other).tolist() == [[5]]
        assert canceled.cancelled()

    assert batches_of(scenario) == [["other"]]


def test_a_request_canceled_during_its_batch_does_not_affect_the_others() -> None:
    async def scenario(compute: BlockingCompute, send: Send) -> None:
        canceled, other = send("canceled"), send("another")
        await all_queued()
        compute.permits.release()
        await asyncio.to_thread(compute.started.acquire)  # both are in the batch
        canceled.cancel()
        await asyncio.gather(canceled, return_exceptions=True)
        compute.permits.release()
        assert (await other).tolist() == [[7]]

    assert batches_of(scenario) == [["canceled", "another"]]


def test_new_requests_are_computed_after_all_others_were_canceled() -> None:
    async def scenario(compute: BlockingCompute, send: Send) -> None:
        requests = [send("a"), send("b")]
        await all_queued()
        for request in requests:
            request.cancel()
        compute.permits.release()
        await asyncio.gather(*requests, return_exceptions=True)
        compute.permits.release()
        assert (await send("later")).tolist() == [[5]]

    assert batches_of(scenario) == [["later"]]


@pytest.mark.parametrize("count", [1, 7])
def test_a_request_without_concurrent_ones_is_computed_at_once(count: int) -> None:
    async def scenario() -> list[list[str]]:
        compute = BlockingCompute()
        compute.permits.release(count)
        batcher = Batcher(compute, 100)
        for number in range(count):
            await batcher.predict([str(number)])
        return compute.batches

    batches = asyncio.run(asyncio.wait_for(scenario(), 120))
    assert batches == [[str(number)] for number in range(count)]


class Panic(BaseException):
    """Like the exception of a panic in a library, not a subclass of Exception."""


@pytest.mark.parametrize(
    "kind", [Panic, StopIteration, SystemExit, KeyboardInterrupt, GeneratorExit, MemoryError]
)
def test_an_error_of_any_kind_fails_all_requests_of_its_batch_and_no_later_one(
    kind: type[BaseException],
) -> None:
    class Failing(BlockingCompute):
        def __call__(self, texts: Sequence[str]) -> FloatArray:
            rows = super().__call__(texts)
            if "worse" in texts:
                raise kind
            return rows

    async def run() -> None:
        compute = Failing()
        batcher = Batcher(compute, 100)
        first = asyncio.create_task(batcher.predict(["first"]))
        await asyncio.to_thread(compute.started.acquire)
        requests = [asyncio.create_task(batcher.predict([text])) for text in ("worse", "other")]
        await all_queued()
        compute.permits.release(3)
        assert (await first).tolist() == [[5]]
        failures = await asyncio.gather(*requests, return_exceptions=True)
        expected = kind if kind is MemoryError else RuntimeError
        assert [type(failure) for failure in failures] == [expected] * 2
        assert (await batcher.predict(["later"])).tolist() == [[5]]

    asyncio.run(asyncio.wait_for(run(), 120))


def test_rows_that_do_not_belong_to_the_texts_are_an_error() -> None:
    async def run() -> None:
        batcher = Batcher(lambda texts: np.zeros((len(texts) - 1, 2)), 100)
        with pytest.raises(ValueError, match="1 rows for 2 texts"):
            await batcher.predict(["a", "b"])

    asyncio.run(asyncio.wait_for(run(), 120))
