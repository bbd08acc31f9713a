"""`compress`: a run -> a smaller run inside it, judged on the same validation texts."""

import hashlib
import json
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from compress.config import CompressConfig, HalfConfig
from compress.half import halve
from compress.methods import METHODS
from featherweight.dataset import load_dataset
from featherweight.device import environment
from featherweight.errors import UsageError
from featherweight.evaluation import Evaluation, evaluate
from featherweight.experiment import as_json
from featherweight.loading import load
from featherweight.reporting import write_evaluation
from featherweight.run import (
    COMPRESSION,
    CONFIG,
    MODEL,
    TOKENIZER,
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
    if not isinstance(classifier, TextClassifier):
        raise UsageError(f"{origin.path} is no LSTM: --method {config.method} fits LSTM runs")
    dataset = load_dataset(trained_on(origin), classifier.labels)
    workspace = _workspace(origin, config)
    started = time.perf_counter()
    variant = METHODS[config.method].make(classifier, origin, config, dataset, workspace)
    seconds = time.perf_counter() - started
    evaluations = [evaluate(it, dataset.validation, dataset.name) for it in (variant, classifier)]
    records = {
        CONFIG: origin.read_json(CONFIG),
        TOKENIZER: json.loads(variant.tokenizer.to_str()),
        "labels.json": classifier.labels,
        "data.json": origin.read_json("data.json"),
        "environment.json": environment(),
        COMPRESSION: {
            "method": config.method,
            "flags": _flags(config),
            "touched": {"before": _kinds(classifier), "after": _kinds(variant)},
            "size_bytes": {"before": classifier.size_bytes(), "after": variant.size_bytes()},
            "ratio": variant.size_bytes() / classifier.size_bytes(),
            "gain": METHODS[config.method].gain,
            "seconds": seconds,
            "origin": {
                "name": origin.path.name,
                "sha256": hashlib.sha256(origin.file(MODEL).read_bytes()).hexdigest(),
            },
            "rejected": rejected(evaluations[0], evaluations[1], config.max_f1_drop),
        },
    }
    with atomic_directory(path) as folder:
        run = Run(folder)
        for name, value in records.items():
            run.write_json(name, value)
        variant.save(run.file(MODEL))
        write_evaluation(run, evaluations[0], dataset.validation.texts)
    shutil.rmtree(workspace)
    return Run(path), evaluations


def rejected(variant: Evaluation, origin: Evaluation, max_f1_drop: float) -> str:
    """Returns why a variant is not worth its loss, or "" if it is."""
    drop = origin.scores["macro_f1"] - variant.scores["macro_f1"]
    if drop <= max_f1_drop:
        return ""
    return f"it loses {drop:.4f} of validation macro-F1, {max_f1_drop:g} is allowed"


def _workspace(origin: Run, config: CompressConfig) -> Path:
    """Returns the folder that a method goes on from; what other flags left there is removed."""
    path = origin.file(FOLDER) / f".{config.method}"
    flags = _flags(replace(config, overwrite=False))
    if path.exists() and not ((path / CONFIG).is_file() and Run(path).read_json(CONFIG) == flags):
        shutil.rmtree(path)
    path.mkdir(parents=True, exist_ok=True)
    Run(path).write_json(CONFIG, flags)
    return path


def _flags(config: CompressConfig) -> dict[str, Any]:
    return {name: as_json(value) for name, value in asdict(config).items()}


def _kinds(classifier: TextClassifier) -> Mapping[str, Any]:
    """Returns numbers, numbers that are not zero, and formats, by kind of parameter."""
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
