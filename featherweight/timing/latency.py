"""Measures latency: milliseconds per batch of several models, in interleaved rounds."""

import itertools
import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from featherweight.data.dataset import Split
from featherweight.device import environment, resolve_device
from featherweight.errors import DataError, UsageError
from featherweight.run import Run
from featherweight.timing.worker import Worker
from featherweight.weights import is_bundle

logger = logging.getLogger("featherweight")

PHASES = ("encode", "forward", "total")
PERCENTILES = (50, 90, 95, 99)
SPREAD_BOUND = 0.2
SLICE_SECONDS = 0.1
MAX_SAMPLES = 20_000  # end a measurement even before its minimum time

_SAMPLED = ("encode_ms", "forward_ms", "total_ms", "event_ms", "tokens", "rounds")


@dataclass(frozen=True)
class Contender:
    """A model to time, given by exactly one of `weights`, `baseline` and `factory`.

    Attributes:
        name: Name in tables.
        weights: A run directory or portable file, for `featherweight.load`.
        baseline: Name of one of `featherweight.baselines`, which is fitted in the worker.
        factory: "module:function" that creates the classifier; the function takes the device
            ("cpu" or "cuda") and returns a Classifier.
        arguments: Further keyword arguments of the factory, as JSON values.
        cuda_graphs: Replay CUDA graphs instead of launching kernels; on CUDA only.
    """

    name: str
    weights: str | Path | None = None
    baseline: str | None = None
    factory: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    cuda_graphs: bool = False

    def __post_init__(self) -> None:
        sources = (self.weights, self.baseline, self.factory)
        if sum(source is not None for source in sources) != 1:
            raise ValueError(f"{self.name}: give exactly one of weights, baseline and factory")

    def runs_on(self, device: str) -> bool:
        """Returns whether the model supports "cpu" or "cuda"."""
        if device == "cpu":
            return not self.cuda_graphs
        path = Path(self.weights) if self.weights is not None else None
        exported = path is not None and (Run(path).exported or is_bundle(path))
        return self.baseline is None and not exported


@dataclass(frozen=True)
class Latency:
    """Samples of one model on one device at one batch size.

    Sample n is for batch n of the texts, which is the same for all models. One worker process
    measures all batch sizes of a model, so load time, first batch and memory are per process.

    Attributes:
        model: Name of the contender.
        device: "cpu" or "cuda".
        device_name: Model name of the CPU or GPU.
        dtype: Number format of the computation.
        backend: Library that computes it: "torch", "sklearn", "numpy", ….
        threads: Number of CPU threads.
        batch_size: Texts per batch; every batch is full.
        encode_ms: Time from texts to batch, per sample.
        forward_ms: Time from batch to logits in host memory, per sample.
        total_ms: Both together, per sample.
        event_ms: Forward time by CUDA events, per sample; empty on a CPU.
        tokens: Tokens of each batch, padding not counted.
        rounds: Round of each sample, from 0.
        first_batch_ms: Time of the very first batch, at the first batch size.
        load_ms: Time to import libraries and load the model; for a baseline, to fit it.
        peak_memory_bytes: Peak resident memory of the process.
        gpu_memory_bytes: Peak memory of torch's allocator on the GPU.
        load_average: Load average of the machine in the minute before the measurement.
    """

    model: str
    device: str
    device_name: str
    dtype: str
    backend: str
    threads: int
    batch_size: int
    encode_ms: tuple[float, ...]
    forward_ms: tuple[float, ...]
    total_ms: tuple[float, ...]
    event_ms: tuple[float, ...]
    tokens: tuple[int, ...]
    rounds: tuple[int, ...]
    first_batch_ms: float
    load_ms: float
    peak_memory_bytes: int
    gpu_memory_bytes: int | None
    load_average: float

    @property
    def samples(self) -> int:
        """Number of timed batches."""
        return len(self.total_ms)

    def percentile(self, q: float, phase: str = "total") -> float:
        """Returns a percentile in milliseconds.

        Args:
            q: In [0, 100].
            phase: "encode", "forward", "total" or, on CUDA, "event".
        """
        return float(np.percentile(getattr(self, f"{phase}_ms"), q))

    @property
    def texts_per_second(self) -> float:
        """Texts per second at the median total time."""
        return 1000 * self.batch_size / self.percentile(50)

    @property
    def spread(self) -> float:
        """Interquartile range of the medians per round, divided by the median of these medians."""
        rounds, total = np.array(self.rounds), np.array(self.total_ms)
        medians = [np.median(total[rounds == index]) for index in np.unique(rounds)]
        low, middle, high = np.percentile(medians, [25, 50, 75])
        return float((high - low) / middle)

    @property
    def noisy(self) -> bool:
        """Whether timings varied too much between rounds to be reliable."""
        return self.spread > SPREAD_BOUND

    def to_json(self, raw: bool = True) -> dict[str, Any]:
        """Returns summary statistics, with all samples if `raw`."""
        values = asdict(self)
        samples = {name: values.pop(name) for name in _SAMPLED}
        phases = (*PHASES, "event") if self.event_ms else PHASES
        statistics = {
            "samples": self.samples,
            "texts_per_second": self.texts_per_second,
            "mean_tokens": float(np.mean(self.tokens)),
            "spread": self.spread,
            "noisy": self.noisy,
            **{
                f"{phase}_ms": {f"p{q}": self.percentile(q, phase) for q in PERCENTILES}
                for phase in phases
            },
        }
        return {**values, **statistics, **({"raw": samples} if raw else {})}


def measure(
    contenders: Sequence[Contender],
    texts: Sequence[str],
    *,
    batch_sizes: Sequence[int] = (1, 32),
    devices: Sequence[str] = ("cpu",),
    threads: int = 1,
    train: Split | None = None,
    min_iterations: int = 30,
    min_seconds: float = 2.0,
) -> list[Latency]:
    """Times models on the same texts, without padding to a fixed length.

    Each contender runs in its own process per device, so that libraries do not affect each other.
    In every round, each process in turn measures for about 0.1 s at each batch size while the
    others wait, so that load on the machine affects all of them equally.

    Args:
        contenders: Models to time; a model is skipped on devices that it does not support.
        texts: Texts to batch, in their order; repeated as needed.
        batch_sizes: Texts per batch.
        devices: "cpu", "cuda" or both.
        threads: Number of CPU threads per contender.
        train: The split to fit baselines on.
        min_iterations: Minimum number of batches per contender and batch size.
        min_seconds: Minimum time per contender and batch size.

    Returns:
        One record per device, contender and batch size, in this order.

    Raises:
        UsageError: A batch size or `threads` is below 1, or a device is not available.
        DataError: There are no texts, or no split to fit baselines on.
        WeightsError: Weights are not usable.
        FeatherweightError: A worker process died.
    """
    sizes = tuple(dict.fromkeys(batch_sizes))
    _check(contenders, texts, sizes, devices, train, threads)
    pairs = [(model, device) for device in devices for model in contenders if model.runs_on(device)]
    machine = environment()
    names = {"cpu": machine["cpu"]["model"], "cuda": machine.get("gpu")}
    series: list[_Series] = []
    with ExitStack() as workers:
        for contender, device in pairs:
            logger.info("latency: loading %s on %s", contender.name, device)
            worker = Worker(f"{contender.name} on {device}", threads)
            workers.callback(worker.stop)
            facts = worker.request(
                contender=asdict(contender),
                device=device,
                texts=[*texts],
                train=_train_data(train) if train and contender.baseline else None,
                threads=threads,
                batch_sizes=sizes,
            )
            facts |= {"model": contender.name, "device": device, "device_name": names[device]}
            facts |= {"threads": threads, "load_average": machine["load_average"][0]}
            series += [_Series(worker, facts, size) for size in sizes]
        _run_rounds(series, min_iterations, min_seconds)
    return [one.latency() for one in series]


def _run_rounds(series: Sequence["_Series"], min_iterations: int, min_seconds: float) -> None:
    for index in itertools.count():
        if all(one.has_enough(min_iterations, min_seconds) for one in series):
            return
        for one in series:
            one.time_slice(index)


def timed_devices(flag: str) -> list[str]:
    """Returns the CPU, and CUDA if available unless --device is "cpu"."""
    return ["cpu"] if resolve_device(flag) == "cpu" else ["cpu", "cuda"]


def _train_data(train: Split) -> dict[str, Any]:
    return {"texts": train.texts, "labels": train.labels.tolist(), "label_names": train.label_names}


def _check(
    contenders: Sequence[Contender],
    texts: Sequence[str],
    batch_sizes: Sequence[int],
    devices: Sequence[str],
    train: Split | None,
    threads: int,
) -> None:
    if min(batch_sizes, default=0) < 1:
        raise UsageError(f"--batch_sizes {[*batch_sizes]}: sizes must be at least 1")
    if threads < 1:
        raise UsageError(f"--threads {threads}: give at least 1")
    for device in devices:
        if device not in ("cpu", "cuda"):
            raise UsageError(f"--device {device}: choose cpu or cuda")
        if device == "cuda":
            resolve_device(device)
    if not texts:
        raise DataError("no texts to time: choose another split")
    if train is None and any(contender.baseline for contender in contenders):
        raise DataError("timing baselines requires a training split to fit them on")


@dataclass
class _Series:
    """Collects the samples of one contender on one device at one batch size."""

    worker: Worker
    facts: dict[str, Any]
    batch_size: int
    samples: dict[str, list[Any]] = field(default_factory=lambda: {name: [] for name in _SAMPLED})
    memory: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def time_slice(self, round_index: int) -> None:
        response = self.worker.request(batch_size=self.batch_size, seconds=SLICE_SECONDS)
        self.memory = response["memory"]
        self.seconds += response["seconds"]
        for name, values in response["samples"].items():
            self.samples[name] += values
        self.samples["rounds"] += [round_index] * len(response["samples"]["tokens"])

    def has_enough(self, iterations: int, seconds: float) -> bool:
        count = len(self.samples["tokens"])
        return count >= max(1, iterations) and (self.seconds >= seconds or count >= MAX_SAMPLES)

    def latency(self) -> Latency:
        samples: dict[str, Any] = {name: tuple(values) for name, values in self.samples.items()}
        return Latency(batch_size=self.batch_size, **self.facts, **self.memory, **samples)
