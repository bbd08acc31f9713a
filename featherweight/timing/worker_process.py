"""The process that times one contender: JSON lines in, JSON lines out, idle in between.

The first line on stdin says what to load, every further one asks for a slice of batches. It ends
with its stdin, so it outlives nobody.
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
from featherweight.errors import FeatherweightError, UsageError
from featherweight.loading import load
from featherweight.timing.latency import Contender

# Both at least: few batches are enough for caches and allocators, but a processor that has slept
# takes a while to reach its speed, and a GPU meets many lengths only in many batches.
WARM_UP_BATCHES = 3
WARM_UP_SECONDS = 0.2

MOST_BATCHES = 1_000  # of one slice: what takes microseconds needs no more, and files stay small


class Sample(NamedTuple):
    """One timed batch; `event_ms` is None where the device has no clock of its own."""

    encode_ms: float
    forward_ms: float
    total_ms: float
    event_ms: float | None
    tokens: int


class Cpu:
    """Has done its work when the call returns; its memory is that of the process."""

    def wait(self) -> None:
        """Nothing is pending."""

    def mark(self) -> Any:
        """It has no clock of its own."""

    def between_ms(self, begin: Any, end: Any) -> float | None:
        """Returns None: there are no marks to look between."""
        return None

    def peak_bytes(self) -> int | None:
        """Returns None: it has no memory of its own."""
        return None


class Gpu(Cpu):
    """Works on after a call has returned, and stamps its own time on marks in its queue."""

    def __init__(self) -> None:
        import torch

        self._cuda: Any = torch.cuda

    def wait(self) -> None:
        """Waits until its queue is empty."""
        self._cuda.synchronize()

    def mark(self) -> Any:
        """Puts a mark into its queue."""
        event = self._cuda.Event(enable_timing=True)
        event.record()
        return event

    def between_ms(self, begin: Any, end: Any) -> float | None:
        """Returns milliseconds between two marks that it has passed."""
        return round(begin.elapsed_time(end), 5)

    def peak_bytes(self) -> int | None:
        """Returns the most memory that torch's allocator has handed out."""
        return int(self._cuda.max_memory_allocated())


def main() -> None:
    """Answers every line on stdin by one on stdout."""
    with _claimed_stdout() as stdout:
        for answer in _answers(map(json.loads, sys.stdin)):
            print(json.dumps(answer), file=stdout, flush=True)


@contextmanager
def _claimed_stdout() -> Iterator[IO[str]]:
    """Keeps stdout for the answers: whatever else is printed, by C code too, goes to stderr."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as stdout:
        os.dup2(2, 1)
        yield stdout


def _answers(requests: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    try:
        setup = next(requests)
        folder = Path(setup["folder"])
        texts = json.loads((folder / "texts.json").read_text())
        start = perf_counter()
        classifier = _classifier(Contender(**setup["contender"]), setup["device"], folder)
        load_ms = _milliseconds(start, perf_counter())
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(setup["threads"])
        device = Gpu() if classifier.device == "cuda" else Cpu()
        yield {
            "dtype": classifier.dtype,
            "backend": classifier.backend,
            "load_ms": load_ms,
            "first_batch_ms": _warm_up(classifier, texts, setup["batch_sizes"], device),
        }
        streams = {size: batches(texts, size) for size in setup["batch_sizes"]}
        for request in requests:
            stream = streams[request["batch_size"]]
            start = perf_counter()
            samples = time_slice(classifier, stream, device, request["seconds"])
            yield {
                "samples": _columns(samples),
                "seconds": perf_counter() - start,
                "memory": {
                    "peak_memory_bytes": _peak_memory_bytes(),
                    "gpu_memory_bytes": device.peak_bytes(),
                },
            }
    except FeatherweightError as error:
        yield {"error": type(error).__name__, "message": str(error)}


def _classifier(contender: Contender, device: str, folder: Path) -> Classifier:
    if contender.baseline is not None:
        return _fitted(contender.baseline, folder / "train.json")
    if contender.factory is not None:
        module, _, name = contender.factory.partition(":")
        function = getattr(importlib.import_module(module), name)
        classifier: Classifier = function(device, **contender.arguments)
    else:
        classifier = load(contender.weights or "", device)
    if contender.cuda_graphs:
        classifier = importlib.import_module("lstm.cuda_graphs").graphed(classifier)
    if classifier.device != device:
        raise UsageError(f"{contender.name} computes on {classifier.device}, not on {device}")
    return classifier


def _fitted(name: str, train: Path) -> Classifier:
    from featherweight.baselines import MostFrequentClass, TfidfSVM

    known = {baseline.name: baseline for baseline in (MostFrequentClass, TfidfSVM)}
    if name not in known:
        raise UsageError(f"no baseline {name!r}: choose {' or '.join(map(repr, known))}")
    data = json.loads(train.read_text())
    labels = tuple(data["label_names"])
    split = Split("train", tuple(data["texts"]), np.array(data["labels"], np.int64), labels)
    return known[name](split, labels)


def batches(texts: Sequence[str], batch_size: int) -> Iterator[list[str]]:
    """Yields full batches of the texts in their order, from the start again at their end."""
    endless = itertools.cycle(texts)
    while True:
        yield list(itertools.islice(endless, batch_size))


def _warm_up(
    classifier: Classifier, texts: Sequence[str], batch_sizes: Sequence[int], device: Cpu
) -> float:
    """Answers some batches of every size; returns the milliseconds of the very first."""
    first = time_batch(classifier, next(batches(texts, batch_sizes[0])), device)
    for size in batch_sizes:
        end = perf_counter() + WARM_UP_SECONDS
        for count, batch in enumerate(batches(texts, size), start=1):
            time_batch(classifier, batch, device)
            if count >= WARM_UP_BATCHES and perf_counter() >= end:
                break
    gc.collect()
    gc.freeze()  # what is here stays, so collecting before every slice costs little
    gc.disable()
    return first.total_ms


def time_slice(
    classifier: Classifier, stream: Iterator[list[str]], device: Cpu, seconds: float
) -> list[Sample]:
    """Times batch after batch for that long, one batch at least and 1,000 at most."""
    gc.collect()  # now, for it is off while batches are timed
    end = perf_counter() + seconds
    texts = next(stream)
    samples = [time_batch(classifier, texts, device)]
    if perf_counter() < end:
        # While it waited others used the caches: a batch short enough to feel it is timed anew.
        samples = [time_batch(classifier, texts, device)]
    while perf_counter() < end and len(samples) < MOST_BATCHES:
        samples.append(time_batch(classifier, next(stream), device))
    return samples


def time_batch(classifier: Classifier, texts: Sequence[str], device: Cpu) -> Sample:
    """Times encode and forward of one batch, apart and together."""
    device.wait()
    start = perf_counter()
    batch = classifier.encode(texts)
    device.wait()
    encoded = perf_counter()
    begin = device.mark()
    classifier.forward(batch)
    end = device.mark()
    device.wait()
    done = perf_counter()
    return Sample(
        encode_ms=_milliseconds(start, encoded),
        forward_ms=_milliseconds(encoded, done),
        total_ms=_milliseconds(start, done),
        event_ms=device.between_ms(begin, end),
        tokens=classifier.num_tokens(batch),
    )


def _milliseconds(start: float, end: float) -> float:
    return round(1000 * (end - start), 5)


def _columns(samples: Sequence[Sample]) -> dict[str, list[float]]:
    columns = zip(Sample._fields, zip(*samples, strict=True), strict=True)
    return {name: [value for value in column if value is not None] for name, column in columns}


def _peak_memory_bytes() -> int:
    """Returns the most resident memory that this process has had."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not getrusage, which on Linux starts from what the parent had when it made this process.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()
