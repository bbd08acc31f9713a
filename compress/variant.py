"""`compress`: a run -> a smaller run inside it, judged on the same validation texts."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from compress.config import CompressConfig, Name
from compress.contents import contents
from compress.lstm import methods as lstm_methods
from compress.method import FASTER, Method, Variant
from compress.origin import Origin, origin_of
from compress.workspace import FOLDER, flags_of, workspace_of
from featherweight.classifier import Classifier
from featherweight.device import environment
from featherweight.errors import UsageError
from featherweight.quality.evaluation import Evaluation, evaluate
from featherweight.reports.reporting import write_evaluation
from featherweight.run import COMPRESSION, CONFIG, TRANSFORMER, Run, atomic_directory
from featherweight.timing.latency import Contender, measure
from lstm.classifier import TextClassifier


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
    run = origin_of(config)
    refuse_existing(run.file(FOLDER) / config.method, config.overwrite)
    return make_variant(Origin.load(run, config.device), config)


def make_variant(origin: Origin, config: CompressConfig) -> tuple[Run, list[Evaluation]]:
    """Makes and writes the variant of one method; what is there is replaced.

    Returns:
        The variant's run, and the evaluations of variant and origin on validation.

    Raises:
        FeatherweightError: The method does not fit, or cannot do it; the message says why.
    """
    methods = methods_for(origin)
    if config.method not in methods:
        raise UsageError(
            f"--method {config.method} does not fit {origin.run.path}: take {', '.join(methods)}"
        )
    method = methods[config.method]
    # Neither changes what a training learns.
    flags = flags_of(replace(config, weights=None, overwrite=False))
    with workspace_of(origin, config.method, flags) as workspace:
        started = time.perf_counter()
        variant = method.make(origin.classifier, origin.run, config, origin.dataset, workspace)
        facts = {"gain": method.gain_with(config), "seconds": time.perf_counter() - started}
        return write_variant(config.method, variant, origin, config, facts)


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Refuses a place for a variant that is taken.

    Raises:
        UsageError: A variant is there and is not to be replaced, or something else is.
    """
    if path.exists() and not overwrite:
        raise UsageError(f"{path} is there already: give --overwrite to replace it")
    if path.exists() and not (path / COMPRESSION).is_file():
        raise UsageError(f"{path} is not a variant: not overwritten")


def methods_for(origin: Origin) -> Mapping[Name, Method]:
    """Returns the methods that fit a run's model, by name.

    Raises:
        UsageError: None fits it.
        MissingExtraError: A library that they need is not installed.
    """
    if isinstance(origin.classifier, TextClassifier):
        return lstm_methods.METHODS
    run = origin.run
    if not run.file(TRANSFORMER).is_dir():
        raise UsageError(f"{run.path} is no LSTM and no fine-tuned transformer: not compressed")
    from compress.transformer import methods as transformer_methods

    return transformer_methods.METHODS


def write_variant(
    name: str, variant: Variant, origin: Origin, config: CompressConfig, facts: Mapping[str, Any]
) -> tuple[Run, list[Evaluation]]:
    """Judges a variant beside its origin, and writes its run.

    Args:
        name: Of the method, and of the folder in `compressed`.
        variant: What was made.
        origin: What it was made from.
        config: The flags.
        facts: For its `compression.json`: the gain, the seconds it took, and what else there is.

    Returns:
        Its run, and the evaluations of variant and origin on validation.
    """
    path = origin.run.file(FOLDER) / name
    validation = origin.dataset.validation
    ours, theirs = evaluate(variant, validation, origin.dataset.name), origin.evaluation
    with atomic_directory(path) as folder:
        run = Run(folder)
        variant.save_in(run)
        latency_ms = {}
        if FASTER in facts["gain"]:
            latency_ms = _latency_ms(origin.run.path, folder, validation.texts)
        # A student may be of another kind than its origin, and was trained with other flags.
        config_of_run = getattr(variant, "run_config", None) or origin.run.read_json(CONFIG)
        before, after = origin.classifier.size_bytes(), variant.size_bytes()
        records = {
            CONFIG: config_of_run | _shape(variant, origin.classifier),
            "labels.json": origin.classifier.labels,
            "data.json": origin.run.read_json("data.json"),
            "environment.json": environment(),
            COMPRESSION: {
                "method": name,
                "flags": flags_of(config),
                "touched": {"before": contents(origin.classifier), "after": contents(variant)},
                "size_bytes": {"before": before, "after": after},
                "ratio": after / before,
                **facts,
                **({"latency_ms": latency_ms} if latency_ms else {}),
                "origin": {"name": origin.run.path.name, "sha256": origin.sha256},
                "rejected": rejected(ours, theirs, config.max_f1_drop) or slower(latency_ms),
            },
        }
        for file, value in records.items():
            run.write_json(file, value)
        write_evaluation(run, ours, validation.texts)
    return Run(path), [ours, theirs]


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


def _shape(variant: Classifier, origin: Classifier) -> dict[str, Any]:
    """Returns the flags that say the dimensions of an LSTM, where they differ from its origin's."""
    if not isinstance(variant, TextClassifier):
        return {}
    words = variant.tokenizer.get_vocab_size()
    same = isinstance(origin, TextClassifier) and origin.tokenizer.get_vocab_size() == words
    return asdict(variant.config) | ({} if same else {"vocab_size": words})
