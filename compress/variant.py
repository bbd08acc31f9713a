"""`compress`: a run -> a smaller run inside it, judged on the same validation texts."""

import hashlib
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from compress import lstm_methods
from compress.config import CompressConfig, HalfConfig, Name
from compress.half import halve
from compress.method import FASTER, Method
from compress.onnx_classifier import OnnxClassifier
from featherweight.checks import drop_leaks
from featherweight.classifier import Classifier
from featherweight.dataset import Dataset, load_dataset
from featherweight.device import environment
from featherweight.errors import UsageError
from featherweight.evaluation import Evaluation, evaluate
from featherweight.experiment import as_json
from featherweight.latency import Contender, measure
from featherweight.loading import load
from featherweight.reporting import write_evaluation
from featherweight.run import (
    COMPRESSION,
    CONFIG,
    TRANSFORMER,
    Run,
    atomic_directory,
    newest_run,
)
from featherweight.testing import trained_on
from lstm.classifier import TextClassifier

FOLDER = "compressed"


def compress_run(config: CompressConfig) -> tuple[Run, list[Evaluation]]:
    """Writes `compressed/METHOD` inside a run, a run itself.

    A method that trains keeps its state in a hidden folder beside it, and the same command goes on
    from there.

    Returns:
        The variant's run, and the evaluations of variant and origin on validation.

    Raises:
        UsageError: No run, the method does not fit it, or the variant is there already.
        WeightsError: The run or a teacher cannot be loaded.
        DataError: The run's data has gone, or a file of texts cannot be used.
    """
    origin = Run(config.weights) if config.weights else newest_run(config.output_dir)
    if not origin.file(CONFIG).is_file():
        raise UsageError(f"{origin.path} is not a run directory: a variant is written into its run")
    if origin.file(COMPRESSION).is_file():
        raise UsageError(f"{origin.path} is compressed already: compress the run it was made from")
    path = origin.file(FOLDER) / config.method
    if path.exists() and not config.overwrite:
        raise UsageError(f"{path} is there already: give --overwrite to replace it")
    if path.exists() and not (path / COMPRESSION).is_file():
        raise UsageError(f"{path} is not a variant: not overwritten")
    classifier = load(origin.path, config.device)
    methods = methods_for(classifier, origin)
    if config.method not in methods:
        raise UsageError(
            f"--method {config.method} does not fit {origin.path}: take {', '.join(methods)}"
        )
    data = trained_on(origin)
    dataset = load_dataset(data, classifier.labels)
    if data.drop_leaks:
        dataset = drop_leaks(dataset)[0]
    with _workspace(origin, config) as workspace:
        evaluations = _make(methods[config.method], classifier, origin, config, dataset, workspace)
    return Run(path), evaluations


def methods_for(classifier: Classifier, origin: Run) -> Mapping[Name, Method]:
    """Returns the methods that fit a run's model, by name.

    Raises:
        UsageError: None fits it.
        MissingExtraError: A library that they need is not installed.
    """
    if isinstance(classifier, TextClassifier):
        return lstm_methods.METHODS
    if not origin.file(TRANSFORMER).is_dir():
        raise UsageError(f"{origin.path} is no LSTM and no fine-tuned transformer: not compressed")
    from compress import transformer_methods

    return transformer_methods.METHODS


def _make(
    method: Method,
    classifier: Classifier,
    origin: Run,
    config: CompressConfig,
    dataset: Dataset,
    workspace: Path,
) -> list[Evaluation]:
    """Makes the variant, judges it beside its origin, and writes its run."""
    started = time.perf_counter()
    variant = method.make(classifier, origin, config, dataset, workspace)
    seconds = time.perf_counter() - started
    evaluations = [evaluate(it, dataset.validation, dataset.name) for it in (variant, classifier)]
    with atomic_directory(origin.file(FOLDER) / config.method) as folder:
        run = Run(folder)
        variant.save_in(run)
        latency_ms = {}
        if FASTER in method.gain:
            latency_ms = _latency_ms(origin.path, folder, dataset.validation.texts)
        before, after = classifier.size_bytes(), variant.size_bytes()
        records = {
            CONFIG: origin.read_json(CONFIG),
            "labels.json": classifier.labels,
            "data.json": origin.read_json("data.json"),
            "environment.json": environment(),
            COMPRESSION: {
                "method": config.method,
                "flags": _flags(config),
                "touched": {"before": _kinds(classifier), "after": _kinds(variant)},
                "size_bytes": {"before": before, "after": after},
                "ratio": after / before,
                "gain": method.gain,
                **({"latency_ms": latency_ms} if latency_ms else {}),
                "seconds": seconds,
                "origin": {"name": origin.path.name, "sha256": _sha256(origin)},
                "rejected": rejected(evaluations[0], evaluations[1], config.max_f1_drop)
                or slower(latency_ms),
            },
        }
        for name, value in records.items():
            run.write_json(name, value)
        write_evaluation(run, evaluations[0], dataset.validation.texts)
    return evaluations


def _sha256(origin: Run) -> str:
    assert origin.weights  # it was loaded
    return hashlib.sha256(origin.weights.read_bytes()).hexdigest()


def _latency_ms(origin: Path, variant: Path, texts: Sequence[str]) -> dict[str, dict[str, float]]:
    """Returns the median milliseconds before and after, by batch size, on one thread."""
    contenders = [Contender("before", weights=origin), Contender("after", weights=variant)]
    medians: dict[str, dict[str, float]] = {}
    for latency in measure(contenders, texts, min_seconds=1):
        medians.setdefault(str(latency.batch_size), {})[latency.model] = latency.percentile(50)
    return medians


def rejected(variant: Evaluation, origin: Evaluation, max_f1_drop: float) -> str:
    """Returns why a variant is not worth its loss, or "" if it is."""
    drop = origin.scores["macro_f1"] - variant.scores["macro_f1"]
    if drop <= max_f1_drop:
        return ""
    return f"it loses {drop:.4f} of validation macro-F1, {max_f1_drop:g} is allowed"


def slower(latency_ms: Mapping[str, Mapping[str, float]]) -> str:
    """Returns why a variant made for speed misses its point, or "" if it is faster somewhere.

    Args:
        latency_ms: Median milliseconds "before" and "after", by batch size; empty: not timed.
    """
    if not latency_ms or any(it["after"] <= it["before"] for it in latency_ms.values()):
        return ""
    figures = ", ".join(
        f"{it['after']:.3g} ms after {it['before']:.3g} at batch size {size}"
        for size, it in latency_ms.items()
    )
    return f"it is slower on the CPU: {figures}"


@contextmanager
def _workspace(origin: Run, config: CompressConfig) -> Iterator[Path]:
    """Yields the folder that a method goes on from; what other flags left there is removed.

    Afterwards it stays only if it holds a training that was cut off.
    """
    path = origin.file(FOLDER) / f".{config.method}"
    flags = _flags(replace(config, overwrite=False))
    if path.exists() and not ((path / CONFIG).is_file() and Run(path).read_json(CONFIG) == flags):
        shutil.rmtree(path)
    path.mkdir(parents=True, exist_ok=True)
    Run(path).write_json(CONFIG, flags)
    try:
        yield path
    except BaseException:
        if not Run(path).cut_off:
            shutil.rmtree(path)
        raise
    shutil.rmtree(path)


def _flags(config: CompressConfig) -> dict[str, Any]:
    return {name: as_json(value) for name, value in asdict(config).items()}


def _kinds(classifier: Classifier) -> Mapping[str, Any]:
    """Returns numbers and formats by kind of parameter; for an LSTM also numbers not zero."""
    if not isinstance(classifier, TextClassifier):
        is_lstm = isinstance(classifier, OnnxClassifier) and classifier.kind == "lstm"
        numbers = {"parameters": classifier.num_parameters(), "formats": [classifier.dtype]}
        return {"LSTM" if is_lstm else "transformer": numbers}
    kinds: dict[str, dict[str, Any]] = {}
    for name, parameter in classifier.module.named_parameters():
        module = name.split(".")[0]
        kind = kinds.setdefault(
            {"embedding": "embedding", "encoder": "LSTM"}.get(module, "linear"),
            {"parameters": 0, "not_zero": 0, "formats": []},
        )
        kind["parameters"] += parameter.numel()
        kind["not_zero"] += int(parameter.count_nonzero())
        kind["formats"] = sorted({*kind["formats"], classifier.storage[name]})
    return kinds


@contextmanager
def halved(weights: Path) -> Iterator[list[Path]]:
    """Yields a temporary fp16 copy of an LSTM in fp32, or nothing for other weights."""
    classifier = load(weights, "cpu")
    if not isinstance(classifier, TextClassifier) or classifier.stored_dtype != "fp32":
        yield []
        return
    with TemporaryDirectory() as folder:
        path = Path(folder) / "fp16.safetensors"
        halve(classifier, HalfConfig("fp16")).save(path)
        yield [path]
