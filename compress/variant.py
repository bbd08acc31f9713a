"""`compress`: a run -> a smaller run beside it, measured on the same validation texts."""

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from compress.config import CompressConfig, HalfConfig
from compress.half import halve
from featherweight.dataset import load_dataset
from featherweight.device import environment
from featherweight.errors import UsageError
from featherweight.evaluation import Evaluation, evaluate
from featherweight.loading import load
from featherweight.reporting import write_evaluation
from featherweight.run import CONFIG, MODEL, TOKENIZER, Run, atomic_directory, newest_run
from featherweight.testing import trained_on
from lstm.classifier import TextClassifier


def compress_run(config: CompressConfig) -> tuple[Run, list[Evaluation]]:
    """Writes `compressed/METHOD` inside a run, a run itself.

    Returns:
        The variant's run, and the evaluations of variant and origin on validation.

    Raises:
        UsageError: No run, the method does not fit it, or the variant is there already.
        WeightsError: The run cannot be loaded.
        DataError: The run's data has gone.
    """
    origin = Run(config.weights) if config.weights else newest_run(config.output_dir)
    if not origin.file(CONFIG).is_file():
        raise UsageError(f"{origin.path} is not a run directory: a variant is written into its run")
    classifier = load(origin.path, config.device)
    started = time.perf_counter()
    variant = halve(classifier, HalfConfig(config.method))
    seconds = time.perf_counter() - started
    dataset = load_dataset(trained_on(origin), classifier.labels)
    path = origin.path / "compressed" / config.method
    if path.exists() and not config.overwrite:
        raise UsageError(f"{path} is there already: give --overwrite to replace it")
    if path.exists() and not (path / "compression.json").is_file():
        raise UsageError(f"{path} is not a variant: not overwritten")
    evaluations = [evaluate(it, dataset.validation, dataset.name) for it in (variant, classifier)]
    records = {
        CONFIG: origin.read_json(CONFIG),
        TOKENIZER: origin.read_json(TOKENIZER),
        "labels.json": classifier.labels,
        "data.json": origin.read_json("data.json"),
        "environment.json": environment(),
        "compression.json": _record(classifier, variant, origin, config.method, seconds),
    }
    with atomic_directory(path) as folder:
        run = Run(folder)
        for name, value in records.items():
            run.write_json(name, value)
        variant.save(run.file(MODEL))
        write_evaluation(run, evaluations[0], dataset.validation.texts)
    return Run(path), evaluations


@contextmanager
def halved(weights: Path) -> Iterator[list[Path]]:
    """Yields a temporary fp16 copy of an LSTM, or nothing for weights in half precision."""
    classifier = load(weights, "cpu")
    if not isinstance(classifier, TextClassifier) or classifier.stored_dtype != "fp32":
        yield []
        return
    with TemporaryDirectory() as folder:
        path = Path(folder) / "fp16.safetensors"
        halve(classifier, HalfConfig("fp16")).save(path)
        yield [path]


def _record(
    before: Any, after: TextClassifier, origin: Run, method: str, seconds: float
) -> dict[str, Any]:
    bytes_before, bytes_after = before.size_bytes(), after.size_bytes()
    return {
        "method": method,
        "touched": {"parameters": after.num_parameters(), "before": "fp32", "after": method},
        "size_bytes": {"before": bytes_before, "after": bytes_after},
        "ratio": bytes_after / bytes_before,
        "gain": "size everywhere, speed on CUDA only",
        "seconds": seconds,
        "origin": {
            "name": origin.path.name,
            "sha256": hashlib.sha256(origin.file(MODEL).read_bytes()).hexdigest(),
        },
    }
