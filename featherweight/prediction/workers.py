"""Predictions for batches in order, optionally by one process per core.

Processes instead of threads, which share one interpreter: of the 26 µs that a bundle of 290,000
parameters needs per text, 7 are spent in Python, so threads could not use four cores. They exchange
pickles over private pipes, as those of `multiprocessing` do.
"""

import os
import pickle
import tempfile
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

from featherweight.child_process import exit_reason, start
from featherweight.classifier import Classifier
from featherweight.data.files.formats import Values
from featherweight.errors import FeatherweightError
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
        FeatherweightError: A worker process has ended.
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

    with _worker_processes(predictor, bundle, processes) as idle:
        pool = ThreadPoolExecutor(processes)  # each thread waits for one process
        try:
            for batch in batches:
                queue.append(pool.submit(_call_worker, idle, batch))
                if len(queue) == _QUEUED * processes:
                    yield next_result()
            while queue:
                yield next_result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


class _Worker:
    """A process that predicts batches; see `worker_process`."""

    def __init__(self, predictor: BatchPredictor, bundle: Path) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `stop`)
        self._process = start("featherweight.prediction.worker_process", self._log, {})
        assert self._process.stdin and self._process.stdout
        self._requests, self._results = self._process.stdin, self._process.stdout
        options = predictor.output, predictor.min_confidence, predictor.known_words
        self._send((bundle.resolve(), *options))

    def __call__(self, batch: Batch) -> PredictedBatch:
        """Returns the predictions for a batch.

        Raises:
            FeatherweightError: The process has ended.
        """
        self._send(batch)
        try:
            result: PredictedBatch | Exception = pickle.load(self._results)
        except (EOFError, pickle.UnpicklingError):
            reason = exit_reason(self._process, self._log)
            raise FeatherweightError(f"a worker process ended with {reason}") from None
        if isinstance(result, Exception):
            raise result
        return result

    def _send(self, message: object) -> None:
        with suppress(BrokenPipeError):  # a dead process is detected by its missing result
            pickle.dump(message, self._requests)
            self._requests.flush()

    def stop(self) -> None:
        """Kills the process."""
        self._process.kill()
        self._process.communicate()
        self._log.close()


@contextmanager
def _worker_processes(
    predictor: BatchPredictor, bundle: Path, count: int
) -> Iterator[SimpleQueue[_Worker]]:
    """Starts processes and yields a queue of them, which are all idle.

    A pipe of its own for each process, unlike the shared one of `ProcessPoolExecutor`, ends when
    the process is killed, also in the middle of a result.
    """
    workers = [_Worker(predictor, bundle) for _ in range(count)]
    idle: SimpleQueue[_Worker] = SimpleQueue()
    try:
        for worker in workers:
            idle.put(worker)
        yield idle
    finally:
        for worker in workers:
            worker.stop()


def _call_worker(idle: SimpleQueue[_Worker], batch: Batch) -> PredictedBatch:
    worker = idle.get()
    try:
        return worker(batch)
    finally:
        idle.put(worker)
