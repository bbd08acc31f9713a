"""Predictions for batches in order, optionally by one process per core.

Processes instead of threads, which share one interpreter: of the 26 µs that a bundle of 290,000
parameters needs per text, 7 are spent in Python, so threads could not use four cores.
"""

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

from featherweight.classifier import Classifier
from featherweight.data.files.formats import Values
from featherweight.errors import FeatherweightError
from featherweight.loading import load
from featherweight.prediction.answers import answers
from featherweight.prediction.output_formats import OutputFormat

_QUEUED = 2  # batches per process, so that none has to wait for the next


class Batch(NamedTuple):
    """Consecutive rows of the input."""

    rows: Sequence[tuple[str | None, Values]]  # text, if there is one, and values by column
    num_read: int  # including rows that are left out


@dataclass(frozen=True)
class PredictedBatch:
    """The predictions for a batch."""

    content: Any  # to append to the output file
    labels: list[int | None]  # the most probable class id of each row, None without a text
    num_read: int
    truncated_texts: int  # number of texts cut at the maximum length


@dataclass(frozen=True)
class BatchPredictor:
    """Predicts one batch at a time."""

    classifier: Classifier
    output: OutputFormat
    min_confidence: float
    known_words: bool

    def __call__(self, batch: Batch) -> PredictedBatch:
        """Returns the predictions for one batch."""
        truncated = self.classifier.truncated_texts
        texts = [text for text, _ in batch.rows]
        found = answers(self.classifier, self.classifier.labels, texts, self.known_words)
        rows = [
            (answer.if_confident(self.min_confidence), values)
            for answer, (_, values) in zip(found, batch.rows, strict=True)
        ]
        return PredictedBatch(
            self.output.batch(rows),
            [answer.label for answer in found],
            batch.num_read,
            self.classifier.truncated_texts - truncated,
        )


def cores() -> int:
    """Returns how many processes can compute at once, each with OMP_NUM_THREADS threads or one."""
    if hasattr(os, "sched_getaffinity"):
        available = len(os.sched_getaffinity(0))
    else:
        available = os.cpu_count() or 1
    threads = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, available // max(1, int(threads) if threads.isdecimal() else 1))


def predict_batches(
    predictor: BatchPredictor, batches: Iterable[Batch], bundle: Path | None = None
) -> Generator[PredictedBatch, None, None]:
    """Yields the predictions for batches in order, computed at most a few batches ahead.

    Args:
        predictor: The model and output format.
        batches: The input.
        bundle: Load the model from here in a process on each core; None: use this process.

    Raises:
        FeatherweightError: A worker process was killed.
    """
    processes = cores()
    if bundle is None or processes == 1:
        yield from map(predictor, batches)
        return
    queue: deque[Future[PredictedBatch]] = deque()

    def next_result() -> PredictedBatch:
        batch = queue.popleft().result()
        predictor.classifier.truncated_texts += batch.truncated_texts
        return batch

    with _worker_processes(predictor, bundle, processes) as connections:
        pool = ThreadPoolExecutor(processes)  # each thread waits for one process
        try:
            for batch in batches:
                queue.append(pool.submit(_call_worker, connections, batch))
                if len(queue) == _QUEUED * processes:
                    yield next_result()
            while queue:
                yield next_result()
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def _worker_processes(
    predictor: BatchPredictor, bundle: Path, count: int
) -> Iterator[SimpleQueue[Connection]]:
    """Starts processes and yields the connections to them, which are all idle.

    A pipe of its own for each process, unlike the shared one of `ProcessPoolExecutor`, ends when
    the process is killed, also in the middle of a result.
    """
    # A fork would copy locks that other threads of the libraries happen to hold.
    context = multiprocessing.get_context("spawn")
    connections: SimpleQueue[Connection] = SimpleQueue()
    workers = []
    try:
        for _ in range(count):
            connection, end = context.Pipe()
            options = predictor.output, predictor.min_confidence, predictor.known_words
            arguments = end, bundle, *options
            workers.append(context.Process(target=_serve, args=arguments, daemon=True))
            workers[-1].start()
            end.close()
            connections.put(connection)
        yield connections
    finally:
        while not connections.empty():
            connections.get().close()
        for worker in workers:
            worker.join()


def _call_worker(connections: SimpleQueue[Connection], batch: Batch) -> PredictedBatch:
    connection = connections.get()
    try:
        connection.send(batch)
        result: PredictedBatch | Exception = connection.recv()
    except (EOFError, OSError):
        raise FeatherweightError("a worker process was killed: is there enough memory?") from None
    finally:
        connections.put(connection)
    if isinstance(result, Exception):
        raise result
    return result


def _serve(
    connection: Connection,
    bundle: Path,
    output: OutputFormat,
    min_confidence: float,
    known_words: bool,
) -> None:
    """Predicts batches until the connection ends, which it also does if the parent is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent ends the workers
    predictor = BatchPredictor(load(bundle, "cpu"), output, min_confidence, known_words)
    with suppress(EOFError, OSError):
        while True:
            batch = connection.recv()
            result: PredictedBatch | Exception
            try:
                result = predictor(batch)
            except Exception as error:
                result = error
            connection.send(result)
