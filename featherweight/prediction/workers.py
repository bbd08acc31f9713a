"""Batches answered by a process on each core, in their order.

Processes, since threads have one interpreter between them: of 26 µs that a text takes a bundle of
290,000 parameters, 7 are spent in Python, so that threads could not use four cores.
"""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featherweight.classifier import Classifier
from featherweight.errors import FeatherweightError
from featherweight.loading import load
from featherweight.prediction.answer_formats import AnswerFormat, abstaining
from featherweight.prediction.cells import prediction_cells

Batch = Sequence[tuple[str, dict[str, object]]]  # texts, and the values of their rows by column

_QUEUED = 2  # batches a process, so that none waits for the next


@dataclass(frozen=True)
class AnsweredBatch:
    """An answered batch.

    Attributes:
        content: What is appended to the file of answers.
        labels: The most probable class id of each row.
        truncated_texts: How many texts were cut at the maximum length.
    """

    content: Any
    labels: list[int]
    truncated_texts: int


@dataclass(frozen=True)
class BatchPredictor:
    """Answers batches.

    Attributes:
        classifier: Who answers.
        answers: How the answers are written.
        min_confidence: Probability below which the label is empty.
    """

    classifier: Classifier
    answers: AnswerFormat
    min_confidence: float

    def __call__(self, batch: Batch) -> AnsweredBatch:
        """Answers one batch."""
        truncated = self.classifier.truncated_texts
        probabilities = self.classifier.predict_proba([text for text, _ in batch])
        cells = list(prediction_cells(self.classifier.labels, probabilities))
        answered = [
            (text, abstaining(cell, self.min_confidence), row)
            for (text, row), cell in zip(batch, cells, strict=True)
        ]
        return AnsweredBatch(
            self.answers.batch(answered),
            [label for label, _, _ in cells],
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


def on_all_cores(
    answerer: BatchPredictor, weights: Path, batches: Iterable[Batch]
) -> Iterator[AnsweredBatch]:
    """Yields the answered batches in their order, at most a few of them ahead.

    Args:
        answerer: Who answers.
        weights: Where its classifier is loaded from.
        batches: What to answer.

    Raises:
        FeatherweightError: A process was killed.
    """
    processes = cores()
    pool = ProcessPoolExecutor(
        processes,
        # A fork would copy the locks of libraries' threads as they happen to be.
        multiprocessing.get_context("spawn"),
        _begin,
        (weights, answerer.answers, answerer.min_confidence),
    )
    ahead: deque[Future[AnsweredBatch]] = deque()
    try:
        for batch in batches:
            ahead.append(pool.submit(_answer, batch))
            if len(ahead) == _QUEUED * processes:
                yield _counted(ahead.popleft().result(), answerer.classifier)
        while ahead:
            yield _counted(ahead.popleft().result(), answerer.classifier)
    except BrokenProcessPool:
        raise FeatherweightError(
            "a process that answers was killed: is there too little memory?"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _counted(written: AnsweredBatch, classifier: Classifier) -> AnsweredBatch:
    classifier.truncated_texts += written.truncated_texts
    return written


_answerer: BatchPredictor  # of a process that answers


def _begin(weights: Path, answers: AnswerFormat, min_confidence: float) -> None:
    global _answerer
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the first process ends them
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _answerer = BatchPredictor(load(weights, "cpu"), answers, min_confidence)


def _end_with_parent() -> None:
    # A parent that was killed told nobody, and its pipes stay open in the other processes.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _answer(batch: Batch) -> AnsweredBatch:
    return _answerer(batch)
