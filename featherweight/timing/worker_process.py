"""The worker process that times one model: reads JSON lines from stdin, writes JSON to stdout.

The first request names the model to load; each further request times batches for a while. The
process ends when its stdin is closed, so it never outlives its parent.
"""

import gc
import importlib
import itertools
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import IO, Any, NamedTuple

import numpy as np

from featherweight.classifier import Classifier
from featherweight.data.dataset import Split
from featherweight.errors import FeatherweightError, UsageError, quoted
from featherweight.loading import load, load_with_cuda_graphs
from featherweight.timing.latency import Contender

# Both are minimums. A few batches are enough for caches and allocators, but an idle CPU needs time
# to reach its full clock rate, and a GPU needs many batches to see texts of all lengths.
WARM_UP_BATCHES = 3
WARM_UP_SECONDS = 0.2

MAX_BATCHES = 1_000  # per slice; keeps the results of very fast models small


class Sample(NamedTuple):
    """One timed batch; `event_ms` is None on a CPU."""

    encode_ms: float
    forward_ms: float
    total_ms: float
    event_ms: float | None
    tokens: int


def main() -> None:
    """Writes one response line to stdout for each request line on stdin."""
    with _reserved_stdout() as stdout:
        for response in responses(map(json.loads, sys.stdin)):
            print(json.dumps(response), file=stdout, flush=True)


@contextmanager
def _reserved_stdout() -> Iterator[IO[str]]:
    """Reserves stdout for responses; all other output, also from C code, goes to stderr."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as stdout:
        os.dup2(2, 1)
        yield stdout


def responses(requests: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yields a response to each request; the last one is an error if something fails."""
    try:
        setup = next(requests)
        texts, sizes = setup["texts"], setup["batch_sizes"]
        start = perf_counter()
        classifier = _classifier(Contender(**setup["contender"]), setup["device"], setup["train"])
        load_ms = _milliseconds(start, perf_counter())
        torch = sys.modules.get("torch")
        if torch:
            torch.set_num_threads(setup["threads"])
        cuda = torch.cuda if torch and classifier.device == "cuda" else None
        yield {
            "dtype": classifier.dtype,
            "backend": classifier.backend,
            "load_ms": load_ms,
            "first_batch_ms": _warm_up(classifier, texts, sizes, cuda),
        }
        streams = {size: batches(texts, size) for size in sizes}
        for request in requests:
            stream = streams[request["batch_size"]]
            start = perf_counter()
            samples = time_slice(classifier, stream, cuda, request["seconds"])
            yield {
                "samples": _columns(samples),
                "seconds": perf_counter() - start,
                "memory": {
                    "peak_memory_bytes": _peak_memory_bytes(),
                    "gpu_memory_bytes": int(cuda.max_memory_allocated()) if cuda else None,
                },
            }
    except FeatherweightError as error:
        yield {"error": type(error).__name__, "message": str(error)}


def _classifier(contender: Contender, device: str, train: dict[str, Any] | None) -> Classifier:
    if contender.baseline is not None and train:
        return _fitted_baseline(contender.baseline, train)
    if contender.factory is not None:
        module, _, name = contender.factory.partition(":")
        function = getattr(importlib.import_module(module), name)
        classifier: Classifier = function(device, **contender.arguments)
    elif contender.cuda_graphs:
        classifier = load_with_cuda_graphs(contender.weights or "")
    else:
        classifier = load(contender.weights or "", device)
    if classifier.device != device:
        raise UsageError(f"{contender.name} runs on {classifier.device}, not on {device}")
    return classifier


def _fitted_baseline(name: str, train: dict[str, Any]) -> Classifier:
    from featherweight.baselines import MostFrequentClass, TfidfSVM

    by_name = {baseline.name: baseline for baseline in (MostFrequentClass, TfidfSVM)}
    if name not in by_name:
        raise UsageError(
            f"unknown baseline {quoted(name)}: choose {' or '.join(map(repr, by_name))}"
        )
    labels = tuple(train["label_names"])
    split = Split("train", tuple(train["texts"]), np.array(train["labels"], np.int64), labels)
    return by_name[name](split, labels)


def batches(texts: Sequence[str], batch_size: int) -> Iterator[list[str]]:
    """Yields full batches of the texts in their order, endlessly."""
    endless = itertools.cycle(texts)
    while True:
        yield list(itertools.islice(endless, batch_size))


def _warm_up(
    classifier: Classifier, texts: Sequence[str], batch_sizes: Sequence[int], cuda: Any
) -> float:
    """Runs some batches of every size; returns the milliseconds of the very first batch."""
    first = time_batch(classifier, next(batches(texts, batch_sizes[0])), cuda)
    for size in batch_sizes:
        end = perf_counter() + WARM_UP_SECONDS
        for count, batch in enumerate(batches(texts, size), start=1):
            time_batch(classifier, batch, cuda)
            if count >= WARM_UP_BATCHES and perf_counter() >= end:
                break
    gc.collect()
    gc.freeze()  # makes the garbage collection before each slice fast
    gc.disable()
    return first.total_ms


def time_slice(
    classifier: Classifier, stream: Iterator[list[str]], cuda: Any, seconds: float
) -> list[Sample]:
    """Times batches for `seconds`, at least 1 and at most 1,000 batches."""
    gc.collect()  # garbage collection is off while batches are timed
    end = perf_counter() + seconds
    texts = next(stream)
    samples = [time_batch(classifier, texts, cuda)]
    if perf_counter() < end:
        # Other workers have used the CPU caches meanwhile, which slows down a short batch.
        samples = [time_batch(classifier, texts, cuda)]
    while perf_counter() < end and len(samples) < MAX_BATCHES:
        samples.append(time_batch(classifier, next(stream), cuda))
    return samples


def time_batch(classifier: Classifier, texts: Sequence[str], cuda: Any = None) -> Sample:
    """Times encode and forward of one batch.

    Args:
        classifier: The model.
        texts: The batch.
        cuda: The module `torch.cuda` for a model on a GPU, which runs asynchronously.
    """
    begin, end = (cuda.Event(enable_timing=True) for _ in range(2)) if cuda else (None, None)
    _synchronize(cuda)
    start = perf_counter()
    batch = classifier.encode(texts)
    _synchronize(cuda)
    encoded = perf_counter()
    if begin:
        begin.record()
    classifier.forward(batch)
    if end:
        end.record()
    _synchronize(cuda)
    done = perf_counter()
    return Sample(
        encode_ms=_milliseconds(start, encoded),
        forward_ms=_milliseconds(encoded, done),
        total_ms=_milliseconds(start, done),
        event_ms=round(begin.elapsed_time(end), 5) if begin else None,
        tokens=classifier.num_tokens(batch),
    )


def _synchronize(cuda: Any) -> None:
    if cuda:
        cuda.synchronize()


def _milliseconds(start: float, end: float) -> float:
    return round(1000 * (end - start), 5)


def _columns(samples: Sequence[Sample]) -> dict[str, list[float]]:
    columns = zip(Sample._fields, zip(*samples, strict=True), strict=True)
    return {name: [value for value in column if value is not None] for name, column in columns}


def _peak_memory_bytes() -> int:
    """Returns the peak resident memory of this process."""
    status = Path("/proc/self/status")
    if status.exists():
        # On Linux, getrusage would start from the memory of the parent process.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()
