import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from featherweight import load
from featherweight.classifier import Batch, Classifier, FloatArray
from featherweight.data.dataset import DataConfig, Dataset, load_dataset
from featherweight.errors import DataError, FeatherweightError, UsageError, WeightsError
from featherweight.timing import latency, worker_process
from featherweight.timing.latency import Contender, Latency, measure
from featherweight.timing.worker_process import batches, time_batch

TEXTS = ["one", "one two", "one two three", "a b c d", "a b c d e"]
THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS",
)  # fmt: skip


class Fake(Classifier):
    """Counts words; its process holds a lock on the file LOCK until it ends."""

    name = "fake"
    labels = ("a", "b")
    device = "cpu"
    backend = "pencil"

    def __init__(self, encode_seconds: float = 0, forward_seconds: float = 0) -> None:
        self.seconds = encode_seconds, forward_seconds
        self.batches = 0
        if "LOCK" in os.environ:
            self.lock = Path(os.environ["LOCK"]).open("a")  # noqa: SIM115
            fcntl.flock(self.lock, fcntl.LOCK_SH)
            print(os.getpid(), file=self.lock, flush=True)

    def encode(self, texts: Sequence[str]) -> Batch:
        print("this is not an answer")
        time.sleep(self.seconds[0])
        return texts

    def forward(self, batch: Batch) -> FloatArray:
        self.batches += 1
        time.sleep(self.seconds[1])
        return np.zeros((len(batch), 2))

    def num_tokens(self, batch: Batch) -> int:
        return sum(len(text.split()) for text in batch)

    def num_parameters(self) -> int:
        return 0

    def size_bytes(self) -> int:
        return 0


class Told(Fake):
    """Reports its argument times the threads it was given, in place of tokens."""

    def __init__(self, factor: int) -> None:
        super().__init__(forward_seconds=0.002)
        (threads,) = {int(os.environ[name]) for name in THREAD_VARIABLES}
        self.tokens = factor * threads

    def num_tokens(self, batch: Batch) -> int:
        return self.tokens


class Kills(Fake):
    """Sends a signal to a process after 50 batches, and continues."""

    def __init__(self, process: int, number: int) -> None:
        super().__init__(forward_seconds=0.001)
        self.target = process, number

    def forward(self, batch: Batch) -> FloatArray:
        if self.batches == 50:
            os.kill(*self.target)
        return super().forward(batch)


class Breaks(Fake):
    def forward(self, batch: Batch) -> FloatArray:
        print("a warning\n", file=sys.stderr)
        raise MemoryError("the model\ndoes not fit")


def quick(device: str) -> Classifier:
    return Fake(forward_seconds=0.002)


def slow(device: str) -> Classifier:
    return Fake(forward_seconds=0.06)


def five_milliseconds(device: str) -> Classifier:
    return Fake(encode_seconds=0.002, forward_seconds=0.003)


def told(device: str, factor: int) -> Classifier:
    return Told(factor)


def dies(device: str) -> Classifier:
    return Kills(os.getpid(), signal.SIGKILL)


def interrupts(device: str) -> Classifier:
    return Kills(os.getppid(), signal.SIGINT)


def orphans(device: str) -> Classifier:
    return Kills(os.getppid(), signal.SIGKILL)


def breaks(device: str) -> Classifier:
    return Breaks()


def elsewhere(device: str) -> Classifier:
    fake = Fake()
    fake.device = "cuda"
    return fake


def fake(function: Any) -> Contender:
    name: str = function.__name__
    return Contender(name, factory=f"{Path(__file__).stem}:{name}")


@pytest.fixture(autouse=True)
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets workers import the fakes from this file."""
    monkeypatch.syspath_prepend(Path(__file__).parent)


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "lock"
    monkeypatch.setenv("LOCK", str(path))
    return path


def started_processes(lock: Path, wait: bool = False) -> int:
    """Returns how many worker processes there were; fails if one is still running."""
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        return len(file.readlines())


def record(**changes: Any) -> Latency:
    """Four batches of two texts, by hand."""
    values: dict[str, Any] = {
        "model": "tiny",
        "device": "cpu",
        "device_name": "a processor",
        "dtype": "fp32",
        "backend": "torch",
        "threads": 1,
        "batch_size": 2,
        "encode_ms": (1.0, 1.0, 2.0, 1.0),
        "forward_ms": (3.0, 1.0, 6.0, 4.0),
        "total_ms": (4.0, 2.0, 8.0, 5.0),
        "event_ms": (),
        "tokens": (7, 5, 9, 8),
        "rounds": (0, 0, 1, 1),
        "first_batch_ms": 20.0,
        "load_ms": 300.0,
        "peak_memory_bytes": 1_000_000,
        "gpu_memory_bytes": None,
        "load_average": 0.5,
    }
    return Latency(**values | changes)


def test_percentiles_of_each_phase() -> None:
    # The sorted totals are 2, 4, 5, 8; percentiles are linearly interpolated.
    assert record().percentile(50) == 4.5
    assert record().percentile(100) == 8
    assert record().percentile(90) == pytest.approx(5 + 0.7 * 3)
    assert record().percentile(50, "forward") == 3.5
    assert record().percentile(50, "encode") == 1
    assert record(event_ms=(1.0, 2.0)).percentile(50, "event") == 1.5


def test_texts_per_second_at_the_median() -> None:
    assert record().texts_per_second == pytest.approx(2 * 1000 / 4.5)


def test_spread_is_the_interquartile_range_of_the_medians_of_the_rounds() -> None:
    # Medians 3, 6.5 and 10: quartiles 4.75 and 8.25 about 6.5.
    total = (4.0, 2.0, 8.0, 5.0, 10.0)
    assert record(total_ms=total, rounds=(0, 0, 1, 1, 2)).spread == pytest.approx(3.5 / 6.5)
    assert record(rounds=(0, 0, 0, 0)).spread == 0


@pytest.mark.parametrize(("slowest", "noisy"), [(13.9, False), (14.1, True)])
def test_a_spread_above_a_fifth_is_noisy(slowest: float, noisy: bool) -> None:
    # Medians 10, 10 and x: quartiles 10 and (10 + x) / 2 about 10, so the bound is at x = 14.
    measured = record(total_ms=(10.0, 10.0, slowest), rounds=(0, 1, 2))
    assert measured.noisy is noisy
    assert measured.to_json()["noisy"] is noisy


def test_json_has_all_fields_and_samples() -> None:
    before = record(event_ms=(2.0, 1.0, 5.0, 3.0), gpu_memory_bytes=5)
    after = json.loads(json.dumps(before.to_json()))
    for name, value in asdict(before).items():
        expected = list(value) if isinstance(value, tuple) else value
        actual = after["raw"][name] if isinstance(value, tuple) else after[name]
        assert actual == expected


def test_json_without_samples() -> None:
    figures = record().to_json(raw=False)
    assert "raw" not in figures
    assert figures["samples"] == 4
    assert figures["mean_tokens"] == 7.25
    assert figures["total_ms"] == pytest.approx({"p50": 4.5, "p90": 7.1, "p95": 7.55, "p99": 7.91})
    assert "event_ms" not in figures
    assert record(event_ms=(2.0, 4.0)).to_json(raw=False)["event_ms"]["p50"] == 3


def test_batches_are_full_and_texts_are_repeated() -> None:
    stream = batches(["a", "b", "c"], 2)
    assert [next(stream) for _ in range(3)] == [["a", "b"], ["c", "a"], ["b", "c"]]
    assert next(batches(["a", "b"], 5)) == ["a", "b", "a", "b", "a"]


def test_gpu_is_synchronized_around_each_phase() -> None:
    calls: list[str] = []

    class Recorded(Fake):
        def encode(self, texts: Sequence[str]) -> Batch:
            calls.append("encode")
            return texts

        def forward(self, batch: Batch) -> FloatArray:
            calls.append("forward")
            return np.zeros((len(batch), 2))

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            calls.append("event")
            self.position = len(calls)

        def elapsed_time(self, end: "Event") -> float:
            return end.position - self.position

    cuda = SimpleNamespace(synchronize=lambda: calls.append("synchronize"), Event=Event)
    sample = time_batch(Recorded(), ["a b"], cuda)
    expected = "synchronize encode synchronize event forward event synchronize"
    assert calls == expected.split()
    assert (sample.event_ms, sample.tokens) == (2, 2)
    assert time_batch(Recorded(), ["a b"]).event_ms is None


@pytest.fixture(scope="module")
def dataset(tiny_data: Path) -> Dataset:
    return load_dataset(DataConfig(data=str(tiny_data)))


@pytest.fixture(scope="module")
def measured(tiny_run: Path, dataset: Dataset) -> list[Latency]:
    """Latencies of an LSTM and a baseline."""
    return measure(
        [
            Contender("run", weights=tiny_run),
            Contender("svm", baseline="TF-IDF + linear SVM"),
        ],
        dataset.split("test").texts,
        train=dataset.train,
        batch_sizes=(1, 5),
        min_iterations=3,
        min_seconds=0,
    )


def test_one_record_per_contender_and_batch_size(measured: list[Latency]) -> None:
    models, backends = ["run", "svm"], ["torch", "sklearn"]
    assert [(one.model, one.batch_size) for one in measured] == [
        (model, size) for model in models for size in (1, 5)
    ]
    assert [one.backend for one in measured[::2]] == backends
    assert {(one.device, one.dtype, one.threads) for one in measured} == {("cpu", "fp32", 1)}


def test_samples_of_a_record_are_consistent(measured: list[Latency]) -> None:
    for one in measured:
        columns = (one.encode_ms, one.forward_ms, one.total_ms, one.tokens, one.rounds)
        assert {len(column) for column in columns} == {one.samples}
        np.testing.assert_allclose(np.add(one.encode_ms, one.forward_ms), one.total_ms, atol=1e-4)
        assert min(one.encode_ms) >= 0 < min(one.total_ms)
        assert min(one.first_batch_ms, one.load_ms, one.peak_memory_bytes) > 0
        assert (one.event_ms, one.gpu_memory_bytes) == ((), None)
        assert one.device_name


def test_all_contenders_see_the_same_batches(
    measured: list[Latency], tiny_run: Path, dataset: Dataset
) -> None:
    classifier = load(tiny_run, "cpu")
    for one in measured[:2]:
        stream = batches(dataset.split("test").texts, one.batch_size)
        expected = [
            classifier.num_tokens(classifier.encode(next(stream))) for _ in range(one.samples)
        ]
        assert list(one.tokens) == expected
    assert len(set(measured[0].tokens)) > 1


def test_minimums_are_respected_and_all_contenders_run_in_every_round(lock: Path) -> None:
    one, other = measure([fake(quick), fake(slow)], TEXTS, min_iterations=4, min_seconds=0)[::2]
    assert other.samples >= 4
    assert sum(other.total_ms) >= 4 * 60
    assert set(one.rounds) == set(other.rounds) == set(range(max(other.rounds) + 1))
    assert list(one.rounds) == sorted(one.rounds)
    assert started_processes(lock) == 2


class Scripted:
    """Replaces `Worker`: each slice has two batches and takes 0.2 s."""

    def __init__(self, *_: Any) -> None:
        """Starts nothing."""

    def request(self, **request: Any) -> dict[str, Any]:
        if "contender" in request:
            return {"dtype": "fp32", "backend": "pencil", "load_ms": 1.0, "first_batch_ms": 1.0}
        samples = {"encode_ms": [1.0, 1.0], "forward_ms": [2.0, 2.0], "total_ms": [3.0, 3.0]}
        return {
            "samples": {**samples, "event_ms": [], "tokens": [4, 5]},
            "seconds": 0.2,
            "memory": {"peak_memory_bytes": 1, "gpu_memory_bytes": None},
        }

    def stop(self) -> None:
        """Nothing was started."""


@pytest.mark.parametrize(
    ("iterations", "seconds", "rounds"), [(1, 0.5, 3), (7, 0.0, 4), (7, 0.9, 5), (0, 0.0, 1)]
)
def test_rounds_are_repeated_until_both_minimums_are_reached(
    monkeypatch: pytest.MonkeyPatch, iterations: int, seconds: float, rounds: int
) -> None:
    monkeypatch.setattr(latency, "Worker", Scripted)
    for one in measure(
        [fake(quick), fake(slow)], TEXTS, min_iterations=iterations, min_seconds=seconds
    ):
        assert one.rounds == tuple(number for number in range(rounds) for _ in range(2))
        assert one.total_ms == (3.0,) * 2 * rounds


def test_workers_get_texts_threads_and_arguments() -> None:
    contenders = [fake(quick), replace(fake(told), arguments={"factor": 7})]
    one, other = measure(contenders, ["a b", "c"], batch_sizes=[5, 5], threads=3, min_seconds=0)
    assert (one.batch_size, one.threads) == (5, 3)
    # a b, c, a b, c, a b has eight words, the next batch seven, and so on.
    assert one.tokens[:4] == (8, 7, 8, 7)
    assert set(other.tokens) == {7 * 3}


def test_contenders_are_skipped_on_unsupported_devices() -> None:
    baseline = Contender("svm", baseline="TF-IDF + linear SVM")
    network = Contender("run", weights="run")
    graphs = Contender("run (graphs)", weights="run", cuda_graphs=True)
    contenders = baseline, network, graphs
    assert [one for one in contenders if one.runs_on("cpu")] == [baseline, network]
    assert [one for one in contenders if one.runs_on("cuda")] == [network, graphs]
    assert measure([graphs], TEXTS) == []


@pytest.mark.parametrize(
    "sources", [{}, {"weights": "run", "baseline": "svm"}, {"weights": "run", "factory": "a:b"}]
)
def test_a_contender_has_exactly_one_source(sources: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="one of"):
        Contender("mine", **sources)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("texts", "changes", "error", "message"),
    [
        (TEXTS, {"batch_sizes": (1, 0)}, UsageError, "--batch_sizes"),
        (TEXTS, {"batch_sizes": (-4,)}, UsageError, "--batch_sizes"),
        (TEXTS, {"batch_sizes": ()}, UsageError, "--batch_sizes"),
        (TEXTS, {"threads": 0}, UsageError, "--threads"),
        (TEXTS, {"devices": ("tpu",)}, UsageError, "--device tpu"),
        (TEXTS, {"devices": ("cpu", "cuda")}, UsageError, "--device cuda"),
        ([], {}, DataError, "no texts"),
        (TEXTS, {"contenders": [Contender("x", baseline="y")]}, DataError, "training split"),
    ],
)
def test_invalid_arguments_are_refused_before_workers_start(
    monkeypatch: pytest.MonkeyPatch,
    texts: list[str],
    changes: dict[str, Any],
    error: type[FeatherweightError],
    message: str,
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(latency, "Worker", None)
    arguments: dict[str, Any] = {"contenders": [fake(quick)], "texts": texts} | changes
    with pytest.raises(error, match=message) as caught:
        measure(**arguments)
    assert "\n" not in str(caught.value)


def test_weights_that_cannot_be_loaded_give_the_error_of_load(tmp_path: Path, lock: Path) -> None:
    weights = tmp_path / "nowhere"
    with pytest.raises(WeightsError) as expected:
        load(weights)
    with pytest.raises(WeightsError) as caught:
        measure([fake(quick), Contender("mine", weights=weights)], TEXTS)
    assert str(caught.value) == str(expected.value)
    assert started_processes(lock) == 1


def test_wrong_device_is_refused() -> None:
    with pytest.raises(UsageError, match="elsewhere runs on cuda, not on cpu"):
        measure([fake(elsewhere)], TEXTS)


def test_unknown_baseline_is_refused() -> None:
    train = {"texts": ["a", "b"], "labels": [0, 1], "label_names": ["x", "y"]}
    contender = asdict(Contender("mine", baseline="a guess"))
    setup = {"contender": contender, "texts": [], "batch_sizes": [], "device": "cpu"}
    # In this process, where the libraries of the baselines are loaded already.
    (response,) = worker_process.responses(iter([setup | {"train": train}]))
    assert response["error"] == "UsageError"
    assert "TF-IDF" in response["message"]


@pytest.mark.parametrize(
    ("contender", "message"),
    [
        (fake(dies), "timing dies on cpu failed with SIGKILL"),
        (fake(breaks), "timing breaks on cpu failed with exit code 1: does not fit"),
        (Contender("mine", factory="nowhere:mine"), "No module named 'nowhere'"),
    ],
)
def test_dead_worker_is_a_one_line_error(lock: Path, contender: Contender, message: str) -> None:
    with pytest.raises(FeatherweightError, match=message) as caught:
        measure([fake(quick), contender], TEXTS, min_seconds=60)
    assert "\n" not in str(caught.value)
    assert started_processes(lock) >= 1


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Enables SIGINT, which background jobs of a shell ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_leaves_no_process_behind(lock: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        measure([fake(quick), fake(interrupts)], TEXTS, min_seconds=60)
    assert started_processes(lock) == 2


def test_workers_end_when_their_parent_is_killed(lock: Path) -> None:
    program = (
        "from featherweight.timing.latency import Contender, measure\n"
        f"contenders = [Contender(f, factory='{Path(__file__).stem}:' + f)\n"
        "              for f in ('quick', 'orphans')]\n"
        "measure(contenders, ['a'], min_seconds=60)\n"
    )
    path = {"PYTHONPATH": os.pathsep.join(sys.path)}
    killed = subprocess.run([sys.executable, "-c", program], env=os.environ | path, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert started_processes(lock, wait=True) == 2


@pytest.mark.timing
def test_five_milliseconds_are_five_milliseconds() -> None:
    (one,) = measure([fake(five_milliseconds)], TEXTS, batch_sizes=[4])
    assert one.percentile(50) == pytest.approx(5, rel=0.1)
    assert one.percentile(50, "encode") == pytest.approx(2, rel=0.1)
    assert one.percentile(50, "forward") == pytest.approx(3, rel=0.1)
    assert one.texts_per_second == pytest.approx(800, rel=0.1)
