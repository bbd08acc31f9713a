"""Classifier x texts x device -> Latency: milliseconds a batch, from raw samples kept in full."""

import itertools
import json
import logging
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, fields
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
MOST_SAMPLES = 20_000  # with so many, the seconds do not matter any more

_SAMPLED = ("encode_ms", "forward_ms", "total_ms", "event_ms", "tokens", "rounds")


@dataclass(frozen=True)
class Contender:
    """How the process that times a classifier gets it: by exactly one of three sources.

    Attributes:
        name: What tables call it.
        weights: A run directory or portable file, for `featherweight.load`.
        baseline: Name of one of `featherweight.baselines`, fitted anew.
        factory: "module:function" of your own classifier; the function takes the device
            ("cpu" or "cuda") and returns a Classifier.
        arguments: What the function of `factory` takes besides, by name; fit for JSON.
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
            raise ValueError(f"{self.name}: give one of weights, baseline and factory")

    def runs_on(self, device: str) -> bool:
        """Says whether there is anything to time on "cpu" or "cuda"."""
        if device == "cpu":
            return not self.cuda_graphs
        path = Path(self.weights) if self.weights is not None else None
        exported = path is not None and (Run(path).exported or is_bundle(path))
        return self.baseline is None and not exported


@dataclass(frozen=True)
class Latency:
    """One contender on one device at one batch size, sample by sample.

    The n-th sample is the n-th batch of the texts, for every contender alike. Load, first batch
    and memory are those of the process, which times all the batch sizes of a contender.

    Attributes:
        model: Name of the contender.
        device: "cpu" or "cuda".
        device_name: The CPU or GPU as its maker calls it.
        dtype: Number format it computes in.
        backend: What computes it: "torch", "sklearn", "numpy", ….
        threads: CPU threads that it may use.
        batch_size: Texts a batch; every batch is full.
        encode_ms: Texts to batch.
        forward_ms: Batch to logits, back in the memory of the host.
        total_ms: Both together, in the same iteration.
        event_ms: Forward by the GPU's own clock; empty on a CPU.
        tokens: Tokens of each batch, padding not counted.
        rounds: The round in which each sample was taken, from 0.
        first_batch_ms: The first batch that the process answered, at the first batch size asked.
        load_ms: From nothing to a classifier, its libraries' imports included; a baseline is
            fitted instead of loaded.
        peak_memory_bytes: Most resident memory of the process.
        gpu_memory_bytes: Most memory that torch's allocator handed out on the GPU.
        load_average: Processes that wanted a CPU in the minute before the measurement.
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
        """Returns milliseconds that q % of the batches did not exceed.

        Args:
            q: In [0, 100].
            phase: "encode", "forward", "total" or, on CUDA, "event".
        """
        return float(np.percentile(getattr(self, f"{phase}_ms"), q))

    @property
    def texts_per_second(self) -> float:
        """Texts a second at the median of the total."""
        return 1000 * self.batch_size / self.percentile(50)

    @property
    def spread(self) -> float:
        """Interquartile range of the rounds' medians of the total, over the median of those."""
        rounds, total = np.array(self.rounds), np.array(self.total_ms)
        medians = [np.median(total[rounds == number]) for number in np.unique(rounds)]
        low, middle, high = np.percentile(medians, [25, 50, 75])
        return float((high - low) / middle)

    @property
    def noisy(self) -> bool:
        """Whether the machine was too restless for the figures to be relied on."""
        return self.spread > SPREAD_BOUND

    def to_json(self, raw: bool = True) -> dict[str, Any]:
        """Returns the figures, and the samples they follow from if `raw`."""
        values = asdict(self)
        samples = {name: values.pop(name) for name in _SAMPLED}
        phases = (*PHASES, "event") if self.event_ms else PHASES
        figures = {
            "samples": self.samples,
            "texts_per_second": self.texts_per_second,
            "mean_tokens": float(np.mean(self.tokens)),
            "spread": self.spread,
            "noisy": self.noisy,
            **{f"{p}_ms": {f"p{q}": self.percentile(q, p) for q in PERCENTILES} for p in phases},
        }
        return {**values, **figures, **({"raw": samples} if raw else {})}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "Latency":
        """Reads what `to_json` wrote.

        Raises:
            KeyError: It was written without its raw samples.
        """
        samples = {name: tuple(record["raw"][name]) for name in _SAMPLED}
        return cls(**{item.name: (record | samples)[item.name] for item in fields(cls)})


def measure(
    contenders: Sequence[Contender],
    texts: Sequence[str],
    *,
    batch_sizes: Sequence[int] = (1, 32),
    devices: Sequence[str] = ("cpu",),
    threads: int = 1,
    train: Split | None = None,
    labels: Sequence[str] = (),
    min_iterations: int = 30,
    min_seconds: float = 2.0,
) -> list[Latency]:
    """Times contenders on the same texts at their natural lengths.

    Each contender on each device has a process of its own, because libraries disturb each other.
    They take turns: in every round each times a slice of about 0.1 s at each batch size and then
    waits, so that a drift of the machine hits all alike. Rounds go on until all have enough.

    Args:
        contenders: What to time; one that a device has no use for is left out there.
        texts: Batched in their order, and from the start again at their end.
        batch_sizes: Texts a batch.
        devices: "cpu", "cuda" or both.
        threads: CPU threads a contender may use.
        train: What baselines are fitted on.
        labels: The C label names, for baselines.
        min_iterations: Batches that each must have timed at least, at each batch size.
        min_seconds: Time that each must have spent on them at least.

    Returns:
        A record for each device, contender and batch size, in this order.

    Raises:
        UsageError: A batch size or the threads are below 1, or a device is not there.
        DataError: There are no texts, or baselines have nothing to be fitted on.
        WeightsError: Weights cannot be used.
        FeatherweightError: A contender died while it was timed.
    """
    sizes = tuple(dict.fromkeys(batch_sizes))
    _check(contenders, texts, sizes, devices, train, threads)
    pairs = [(one, device) for device in devices for one in contenders if one.runs_on(device)]
    machine = environment()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as started:
        _write_texts(Path(folder), texts, train, labels)
        common = {"folder": folder, "threads": threads, "batch_sizes": sizes}
        series: list[_Series] = []
        for contender, device in pairs:
            logger.info("latency: loading %s on %s", contender.name, device)
            worker = Worker(
                f"{contender.name} on {device}", threads, Path(folder) / f"{len(series)}.stderr"
            )
            started.callback(worker.stop)
            facts = {
                "model": contender.name,
                "device": device,
                "device_name": machine["cpu"]["model"] if device == "cpu" else machine["gpu"],
                "threads": threads,
                "load_average": machine["load_average"][0],
                **worker.ask(contender=asdict(contender), device=device, **common),
            }
            series += [_Series(worker, facts, size) for size in sizes]
        rounds = itertools.count()
        while not all(one.has_enough(min_iterations, min_seconds) for one in series):
            number = next(rounds)
            for one in series:
                one.time_slice(number)
    return [one.latency() for one in series]


def timed_devices(flag: str) -> list[str]:
    """Returns the CPU, and CUDA unless --device says "cpu" or there is none."""
    return ["cpu"] if resolve_device(flag) == "cpu" else ["cpu", "cuda"]


def _check(
    contenders: Sequence[Contender],
    texts: Sequence[str],
    batch_sizes: Sequence[int],
    devices: Sequence[str],
    train: Split | None,
    threads: int,
) -> None:
    if min(batch_sizes, default=0) < 1:
        raise UsageError(f"--batch_sizes {[*batch_sizes]}: give sizes of 1 or more")
    if threads < 1:
        raise UsageError(f"--threads {threads}: give 1 or more")
    for device in devices:
        if device not in ("cpu", "cuda"):
            raise UsageError(f"--device {device}: choose cpu or cuda")
        if device == "cuda":
            resolve_device(device)
    if not texts:
        raise DataError("no texts to time: choose a split that has some")
    if train is None and any(contender.baseline for contender in contenders):
        raise DataError("baselines cannot be timed without a training split to fit them on")


def _write_texts(
    folder: Path, texts: Sequence[str], train: Split | None, labels: Sequence[str]
) -> None:
    """Writes what the processes read; the training texts apart, for only baselines need them."""
    (folder / "texts.json").write_text(json.dumps([*texts]))
    if train is not None:
        content = {
            "texts": train.texts,
            "labels": train.labels.tolist(),
            "label_names": [*labels] or train.label_names,
        }
        (folder / "train.json").write_text(json.dumps(content))


@dataclass
class _Series:
    """The samples of one contender on one device at one batch size, while they grow."""

    worker: Worker
    facts: dict[str, Any]
    batch_size: int
    samples: dict[str, list[Any]] = field(default_factory=lambda: {name: [] for name in _SAMPLED})
    memory: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def time_slice(self, number: int) -> None:
        answer = self.worker.ask(batch_size=self.batch_size, seconds=SLICE_SECONDS)
        self.memory = answer["memory"]
        self.seconds += answer["seconds"]
        for name, values in answer["samples"].items():
            self.samples[name] += values
        self.samples["rounds"] += [number] * len(answer["samples"]["tokens"])

    def has_enough(self, iterations: int, seconds: float) -> bool:
        taken = len(self.samples["tokens"])
        return taken >= max(1, iterations) and (self.seconds >= seconds or taken >= MOST_SAMPLES)

    def latency(self) -> Latency:
        samples: dict[str, Any] = {name: tuple(values) for name, values in self.samples.items()}
        return Latency(batch_size=self.batch_size, **self.facts, **self.memory, **samples)
