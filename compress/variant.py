"""`compress`: run -> smaller run inside it, evaluated on the same validation texts."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from compress.config import CompressConfig, Name
from compress.lstm import methods as lstm_methods
from compress.method import Method, Variant
from compress.origin import Origin, origin_of
from compress.parameter_counts import parameter_counts
from compress.workspace import FOLDER, flags_of, workspace_of
from featherweight.classifier import Classifier
from featherweight.device import environment
from featherweight.disk.atomic import atomic_directory
from featherweight.errors import UsageError
from featherweight.quality.evaluation import Evaluation, evaluate
from featherweight.reports.reporting import draw_evaluation, write_evaluation
from featherweight.run import COMPRESSION, CONFIG, TRANSFORMER, Run
from featherweight.timing.latency import Contender, measure
from lstm.classifier import TextClassifier


def compress_run(config: CompressConfig) -> tuple[Run, list[Evaluation]]:
    """Writes `compressed/METHOD` inside a run; it is a run itself.

    A method that trains keeps its state in a hidden folder next to it, from which the same command
    resumes.

    Returns:
        The variant's run, and the evaluations of variant and origin on validation.

    Raises:
        UsageError: There is no run, the method does not fit it, or the variant exists already.
        WeightsError: The run or a teacher cannot be loaded.
        DataError: The run's data no longer exists, or a file of texts cannot be used.
    """
    run = origin_of(config)
    refuse_existing(run.file(FOLDER) / config.method, config.overwrite)
    return make_variant(Origin.load(run, config.device), config)


def make_variant(origin: Origin, config: CompressConfig) -> tuple[Run, list[Evaluation]]:
    """Makes and writes the variant of one method, and replaces an existing one.

    Returns and raises the same as `compress_run`.
    """
    methods = methods_for(origin)
    if config.method not in methods:
        raise UsageError(
            f"--method {config.method} does not fit {origin.run.path}: "
            f"choose one of {', '.join(methods)}"
        )
    method = methods[config.method].with_flags(config)
    # These two flags do not change what a training learns.
    flags = flags_of(replace(config, weights=None, overwrite=False))
    with workspace_of(origin, config.method, flags) as workspace:
        started = time.perf_counter()
        variant = method.make(origin, config, workspace)
        facts = {"gain": method.gain, "seconds": time.perf_counter() - started}
        run_config = method.run_config(origin, config) if method.run_config else None
        return write_variant(
            config.method, variant, origin, config, facts, run_config, method.faster_on_cpu
        )


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Checks that a variant can be written to a folder.

    Raises:
        UsageError: There is a variant that must not be replaced, or something else.
    """
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists already: give --overwrite to replace it")
    if path.exists() and not (path / COMPRESSION).is_file():
        raise UsageError(f"{path} is not a variant: not overwritten")


def methods_for(origin: Origin) -> Mapping[Name, Method]:
    """Returns the methods that fit a run's model, by name.

    Raises:
        UsageError: None fits it.
        MissingExtraError: A required library is not installed.
    """
    if isinstance(origin.classifier, TextClassifier):
        return lstm_methods.METHODS
    run = origin.run
    if not run.file(TRANSFORMER).is_dir():
        raise UsageError(
            f"{run.path} is neither an LSTM nor a fine-tuned transformer: it cannot be compressed"
        )
    from compress.transformer import methods as transformer_methods

    return transformer_methods.METHODS


def write_variant(
    name: str, variant: Variant, origin: Origin, config: CompressConfig, facts: Mapping[str, Any],
    run_config: Mapping[str, Any] | None = None, faster_on_cpu: bool = False,
) -> tuple[Run, list[Evaluation]]:  # fmt: skip
    """Evaluates a variant and writes its run.

    Args:
        name: Name of the method, and of the folder in `compressed`.
        variant: The compressed model.
        origin: The run it was made from.
        config: The flags.
        facts: Additional entries of `compression.json`, among them `gain` and `seconds`.
        run_config: Its `config.json`, except for the shape of an LSTM; None: that of the origin.
        faster_on_cpu: Whether to measure latency, and to reject a variant that is not faster.

    Returns:
        Its run, and the evaluations of variant and origin on validation.
    """
    path = origin.run.file(FOLDER) / name
    validation = origin.dataset.validation
    evaluation = evaluate(variant, validation, origin.dataset.name)
    with atomic_directory(path) as folder:
        run = Run(folder)
        variant.save_in(run)
        latency_ms = _latency_ms(origin.run.path, folder, validation.texts) if faster_on_cpu else {}
        reason = quality_loss(evaluation, origin.evaluation, config.max_f1_drop)
        record = {
            **_comparison(variant, origin),
            **facts,
            **({"latency_ms": latency_ms} if latency_ms else {}),
            "rejected": reason or slowdown(latency_ms),
        }
        run_config = run_config or origin.run.read_json(CONFIG)
        run.write_json(CONFIG, {**run_config, **_shape(variant, origin.classifier)})
        run.write_json("labels.json", origin.classifier.labels)
        run.write_json("data.json", origin.run.read_json("data.json"))
        run.write_json("environment.json", environment())
        run.write_json(COMPRESSION, {"method": name, "flags": flags_of(config), **record})
        write_evaluation(run, evaluation, validation.texts)
    draw_evaluation(Run(path), evaluation)
    return Run(path), [evaluation, origin.evaluation]


def _comparison(variant: Variant, origin: Origin) -> dict[str, Any]:
    """Returns the parameters and sizes before and after."""
    models = {"before": origin.classifier, "after": variant}
    sizes = {name: model.size_bytes() for name, model in models.items()}
    return {
        "origin": {"name": origin.run.path.name, "sha256": origin.sha256},
        "touched": {name: parameter_counts(model) for name, model in models.items()},
        "size_bytes": sizes,
        "ratio": sizes["after"] / sizes["before"],
    }


def _latency_ms(origin: Path, variant: Path, texts: Sequence[str]) -> dict[str, dict[str, float]]:
    """Returns the median milliseconds before and after, by batch size, on one thread."""
    contenders = [Contender("before", weights=origin), Contender("after", weights=variant)]
    medians: dict[str, dict[str, float]] = {}
    for latency in measure(contenders, texts, min_seconds=1):
        medians.setdefault(str(latency.batch_size), {})[latency.model] = latency.percentile(50)
    return medians


def quality_loss(variant: Evaluation, origin: Evaluation, max_f1_drop: float) -> str:
    """Returns why a variant is rejected for its quality, or "" if it is not."""
    drop = origin.scores["macro_f1"] - variant.scores["macro_f1"]
    if drop <= max_f1_drop:
        return ""
    return f"it loses {drop:.4f} of validation macro-F1, {max_f1_drop:g} is allowed"


def slowdown(latency_ms: Mapping[str, Mapping[str, float]]) -> str:
    """Returns why a variant is rejected for its speed, or "" if it is as fast at any batch size.

    Args:
        latency_ms: Median milliseconds "before" and "after", by batch size; empty: not measured.
    """
    if not latency_ms or any(ms["after"] <= ms["before"] for ms in latency_ms.values()):
        return ""
    figures = ", ".join(
        f"{ms['after']:.3g} ms instead of {ms['before']:.3g} at batch size {size}"
        for size, ms in latency_ms.items()
    )
    return f"it is slower on the CPU: {figures}"


def _shape(variant: Classifier, origin: Classifier) -> dict[str, Any]:
    """Returns the flags for the dimensions of an LSTM, the vocabulary if it has changed."""
    if not isinstance(variant, TextClassifier):
        return {}
    words = variant.tokenizer.get_vocab_size()
    same = isinstance(origin, TextClassifier) and origin.tokenizer.get_vocab_size() == words
    return asdict(variant.config) | ({} if same else {"vocab_size": words})
