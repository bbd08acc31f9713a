"""Who asks while a batch is computed waits for the next one, and gets the own answer."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence

import numpy as np
import pytest

from edge.serving.batcher import Batcher
from featherweight.classifier import FloatArray


class Computer:
    """Answers the length of each text, once it is let."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.begun = threading.Semaphore(0)
        self.allowed = threading.Semaphore(0)

    def __call__(self, texts: Sequence[str]) -> FloatArray:
        self.batches.append(list(texts))
        self.begun.release()
        assert self.allowed.acquire(timeout=120)
        if "bad" in texts:
            raise ValueError("bad")
        return np.array([[len(text)] for text in texts], float).reshape(-1, 1)


Asked = Callable[..., asyncio.Task[FloatArray]]


def scene(
    play: Callable[[Computer, Asked], Awaitable[None]], batch_size: int = 100
) -> list[list[str]]:
    """Lets a play go on while a first request is computed; returns the batches after that one."""

    async def run() -> list[list[str]]:
        computer = Computer()
        batcher = Batcher(computer, batch_size)

        def ask(*texts: str) -> asyncio.Task[FloatArray]:
            return asyncio.create_task(batcher.answer(texts))

        first = ask("first")
        await asyncio.to_thread(computer.begun.acquire)
        await play(computer, ask)
        assert (await first).tolist() == [[5]]
        return computer.batches[1:]

    return asyncio.run(asyncio.wait_for(run(), 120))


async def queued() -> None:
    """Lets the tasks that were made put their requests in."""
    await asyncio.sleep(0)


def test_what_arrives_meanwhile_goes_together() -> None:
    async def play(computer: Computer, ask: Asked) -> None:
        asked = [ask("a"), ask("bb", "ccc"), ask(), ask("dddd")]
        await queued()
        computer.allowed.release(2)
        answers = [answer.tolist() for answer in await asyncio.gather(*asked)]
        assert answers == [[[1]], [[2], [3]], [], [[4]]]

    assert scene(play) == [["a", "bb", "ccc", "dddd"]]


def test_a_batch_has_its_maximum_and_keeps_the_order() -> None:
    async def play(computer: Computer, ask: Asked) -> None:
        asked = [ask("a", "b"), ask("c"), ask("d"), ask("e", "f", "g", "h"), ask("i")]
        await queued()
        computer.allowed.release(9)
        await asyncio.gather(*asked)

    assert scene(play, batch_size=3) == [["a", "b", "c"], ["d"], ["e", "f", "g", "h"], ["i"]]


def test_an_error_answers_the_requests_of_its_batch_only() -> None:
    async def play(computer: Computer, ask: Asked) -> None:
        asked = [ask("a"), ask("bad"), ask("cc"), ask("ddd")]
        await queued()
        computer.allowed.release(9)
        one, two, three, four = await asyncio.gather(*asked, return_exceptions=True)
        assert isinstance(one, ValueError)
        assert isinstance(two, ValueError)
        assert isinstance(three, np.ndarray)
        assert isinstance(four, np.ndarray)
        assert (three.tolist(), four.tolist()) == ([[2]], [[3]])

    assert scene(play, batch_size=2) == [["a", "bad"], ["cc", "ddd"]]


def test_who_has_gone_before_is_not_computed() -> None:
    async def play(computer: Computer, ask: Asked) -> None:
        gone, stays = ask("gone"), ask("stays")
        await queued()
        gone.cancel()
        computer.allowed.release(2)
        assert (await stays).tolist() == [[5]]
        assert gone.canceled()

    assert scene(play) == [["stays"]]


def test_who_goes_meanwhile_leaves_the_others_their_answers() -> None:
    async def play(computer: Computer, ask: Asked) -> None:
        gone, stays = ask("gone"), ask("it stays")
        await queued()
        computer.allowed.release()
        await asyncio.to_thread(computer.begun.acquire)  # both are under way
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        computer.allowed.release()
        assert (await stays).tolist() == [[8]]

    assert scene(play) == [["gone", "it stays"]]


def test_all_may_go_and_it_answers_who_comes_next() -> None:
    async def play(computer: Computer, ask: Asked) -> None:
        asked = [ask("a"), ask("b")]
        await queued()
        for request in asked:
            request.cancel()
        computer.allowed.release()
        await asyncio.gather(*asked, return_exceptions=True)
        computer.allowed.release()
        assert (await ask("later")).tolist() == [[5]]

    assert scene(play) == [["later"]]


@pytest.mark.parametrize("count", [1, 7])
def test_nobody_waits_for_company(count: int) -> None:
    async def play() -> list[list[str]]:
        computer = Computer()
        computer.allowed.release(count)
        batcher = Batcher(computer, 100)
        for number in range(count):
            await batcher.answer([str(number)])
        return computer.batches

    assert asyncio.run(asyncio.wait_for(play(), 120)) == [[str(number)] for number in range(count)]
