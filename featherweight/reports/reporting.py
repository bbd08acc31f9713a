"""Tables of an evaluation, and the model card and files of a run."""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from tabulate import tabulate

from featherweight.classifier import IntArray
from featherweight.disk.atomic import atomic_open
from featherweight.errors import first_line
from featherweight.hub.card import LOCAL_USE
from featherweight.prediction.cells import prediction_cells, write_rows
from featherweight.prediction.columns import name_column, prediction_columns
from featherweight.quality.evaluation import Evaluation
from featherweight.reports.classes import MAX_CLASSES, hidden_classes, shown_classes
from featherweight.reports.markdown import code, code_block, escaped
from featherweight.reports.numbers import (
    DASH,
    interval,
    macro_limit,
    number_table,
    three_digits,
    with_interval,
)
from featherweight.reports.plots import confusion_matrix, training_curves
from featherweight.reports.terminal import printable
from featherweight.run import COMPRESSION, CONFUSION, EVALUATION, PREDICTIONS, Run, kind, of_split
from featherweight.timing.latency import Latency

logger = logging.getLogger("featherweight")

_MAX_CONFUSIONS = 10


def per_class_table(evaluation: Evaluation) -> str:
    """Returns precision, recall, F1 and support of each label, with the averages below.

    Of more than 30 labels, it has the ten with the lowest and the ten with the highest F1.
    """
    per_class = evaluation.per_class()
    rows: list[list[Any]] = [
        [printable(label), *per_class[label].values()] for label in shown_classes([per_class])
    ]
    scores, n = evaluation.scores, len(evaluation.targets)
    macro = [scores["macro_precision"], scores["macro_recall"], scores["macro_f1"]]
    rows += [["macro average", *macro, n], ["accuracy", None, None, scores["accuracy"], n]]
    headers = ["label", "precision", "recall", "F1", "support"]
    # A label that looks like a number stays as it is.
    table = tabulate(
        rows, headers, floatfmt=".4f", disable_numparse=[0], colalign=["left", *["right"] * 4]
    )
    return f"{table}\n\n{hidden_classes(len(per_class), EVALUATION)}".rstrip()


def confusion_table(evaluation: Evaluation) -> str:
    """Returns the confusion matrix, rows true and columns predicted.

    Of more than 30 labels, it returns the ten most frequent confusions instead.
    """
    labels = [printable(label) for label in evaluation.labels]
    if len(labels) > MAX_CLASSES:
        return _confusions(evaluation.confusion, labels)
    rows = [
        [label, *counts]
        for label, counts in zip(labels, evaluation.confusion.tolist(), strict=True)
    ]
    return number_table(["true \\ predicted", *labels], rows)


def _confusions(confusion: IntArray, labels: Sequence[str]) -> str:
    """Returns the pairs of labels with the most wrong predictions."""
    wrong = confusion - np.diag(confusion.diagonal())
    order = np.argsort(-wrong, axis=None, kind="stable")[:_MAX_CONFUSIONS]
    pairs = np.stack(np.divmod(order, len(labels)), axis=1).tolist()
    rows = [
        [labels[true], labels[predicted], f"{wrong[true, predicted]:,}"]
        for true, predicted in pairs
        if wrong[true, predicted]
    ]
    headers = ["true label", "predicted instead", "texts"]
    table = tabulate(rows, headers, colalign=["left", "left", "right"], disable_numparse=True)
    return (
        f"{table}\n\nThe {len(rows)} most frequent confusions of {len(labels)} labels; --json and "
        f"{EVALUATION} have the confusion matrix."
    )


def coverage_table(evaluation: Evaluation) -> str:
    """Returns one row per minimum confidence: texts answered, and the accuracy among them."""
    rows = [
        [
            f"{row.min_confidence:g}",
            f"{row.answered:,}",
            f"{row.share:.1%}",
            DASH if row.interval is None else f"{row.accuracy:.4f} {interval(row.interval)}",
        ]
        for row in evaluation.coverages()
    ]
    headers = ["min confidence", "answered", "share", "accuracy of these"]
    return tabulate(rows, headers, colalign=["right"] * 4, disable_numparse=True)


def quality_table(evaluations: Sequence[Evaluation], tablefmt: str = "simple") -> str:
    """Returns one row per classifier: size, and scores with their 95 % intervals."""
    headers = [
        "model", "parameters", "size KB", "accuracy", "macro F1", "macro precision",
        "macro recall", "ECE",
    ]  # fmt: skip
    shown = escaped if tablefmt == "github" else printable
    rows = [
        [
            shown(evaluation.model),
            f"{evaluation.parameters:,}",
            f"{evaluation.size_bytes / 1000:,.1f}",
            *(
                with_interval(evaluation.scores[name], bounds)
                for name, bounds in evaluation.intervals.items()
            ),
            f"{evaluation.ece:.3f}",
        ]
        for evaluation in evaluations
    ]
    return number_table(headers, rows, tablefmt)


def differences(evaluation: Evaluation, variants: Sequence[Evaluation]) -> str:
    """Returns one line per variant: its differences in quality, and its share of the size."""
    lines = []
    for variant in variants:
        changes = [
            f"{name.replace('_', ' ')} {variant.scores[name] - score:+.4f}"
            for name, score in evaluation.scores.items()
            if f"{variant.scores[name]:.4f}" != f"{score:.4f}"
        ]
        quality = ", ".join(changes) or "same quality to four decimals"
        share = variant.size_bytes / evaluation.size_bytes
        lines.append(f"{printable(variant.model)}: {quality}; {share:.0%} of the size")
    return "\n".join(lines)


def one_batch_table(latencies: Sequence[Latency]) -> str:
    """Returns the median milliseconds of one batch on the GPU and on the CPU."""
    cells: dict[str, dict[str, str]] = {}
    for latency in latencies:
        mark = " *" if latency.noisy else ""
        median = three_digits(latency.percentile(50))
        cells.setdefault(latency.model, {})[latency.device] = f"{median}{mark}"
    rows = [
        [printable(model), row.get("cuda", DASH), row.get("cpu", DASH)]
        for model, row in cells.items()
    ]
    return number_table(["model", "GPU", "CPU"], rows)


def report(
    evaluation: Evaluation,
    others: Sequence[Evaluation] = (),
    latencies: Sequence[Latency] = (),
    rejected: str = "",
) -> str:
    """Returns an evaluation for a terminal.

    Args:
        evaluation: The evaluation.
        others: Evaluations to compare with: variants, if they were timed, and baselines.
        latencies: One per classifier and device.
        rejected: Why `compress` rejected the evaluated variant; empty otherwise.
    """
    n = len(evaluation.targets)
    title = f"{evaluation.model} on {evaluation.data}, {evaluation.split} split, n = {n}"
    parts = [
        printable(title + (f" (rejected: {rejected})" if rejected else "")),
        per_class_table(evaluation),
        confusion_table(evaluation),
        coverage_table(evaluation),
        quality_table([evaluation, *others]),
        "[low, high]: 95 % interval (coverage: Wilson; quality: bootstrap)."
        " ECE: expected calibration error.",
    ]
    limit = _macro_limit(evaluation, printable)
    if limit:
        parts.append(limit)
    timed = {latency.model for latency in latencies}
    variants = [other for other in others if other.model in timed]
    if variants:
        parts.append(differences(evaluation, variants))
    if latencies:
        first = latencies[0]
        parts.append(
            f"ms per one batch of size {first.batch_size}, texts to labels, median"
            f" (CPU threads: {first.threads})"
        )
        parts.append(one_batch_table(latencies))
    if any(latency.noisy for latency in latencies):
        parts.append("*: noisy, the time varied too much between rounds to be relied on.")
    return "\n\n".join(parts)


def model_card(
    evaluation: Evaluation,
    config: Mapping[str, Any],
    data: Mapping[str, Any],
    compression: Mapping[str, Any] | None = None,
) -> str:
    """Returns the README.md of a run.

    Args:
        evaluation: Its evaluation.
        config: Content of its `config.json`.
        data: Content of its `data.json`.
        compression: Content of its `compression.json`, if it is a variant.
    """
    splits = "\n".join(
        f"| {name} | {split['n']:,} | `{split['sha256']}` |"
        for name, split in data["splits"].items()
    )
    trained = "epochs" in config and not compression
    curves = "![training curves](training_curves.png)\n" if trained else ""
    chosen = (
        " The checkpoint was chosen on this split, so these figures are optimistic; "
        f"`python test.py` writes those of the test split to `{of_split(EVALUATION, 'test')}`."
        if evaluation.split == "validation"
        else ""
    )
    limit = _macro_limit(evaluation, escaped)
    note = f"{limit}\n\n" if limit else ""
    return (
        f"# {escaped(evaluation.model)}\n\n"
        f"{_described(config, compression)} ({evaluation.parameters:,} parameters, "
        f"{evaluation.size_bytes / 1000:,.1f} KB) with "
        f"{_labels(evaluation.labels)}{_seed(config)}.\n\n"
        f"{_compressed(compression) if compression else ''}"
        f"## Quality\n\nData {code(evaluation.data)}, {evaluation.split} split, "
        f"n = {len(evaluation.targets):,}, 95 % bootstrap intervals.{chosen}\n\n"
        f"{note}{quality_table([evaluation], 'github')}\n\n"
        f"{code_block(per_class_table(evaluation))}\n\n"
        f"![confusion matrix]({CONFUSION})\n\n"
        "## Data\n\n| split | texts | sha256 of the content |\n| --- | ---: | --- |\n"
        f"{splits}\n\n"
        f"The results of the data checks are in `data.json`.\n\n{LOCAL_USE}\n{curves}"
    )


def _macro_limit(evaluation: Evaluation, shown: Callable[[str], str]) -> str:
    """Returns how high macro averages can be where classes are missing from the split, else ""."""
    missing = [shown(label) for label in evaluation.missing_classes]
    return macro_limit(evaluation.split, len(evaluation.labels), missing)


def _described(config: Mapping[str, Any], compression: Mapping[str, Any] | None) -> str:
    """Returns what kind of model a run holds."""
    if compression:  # a student may be of another kind than its teacher
        origin, method = compression["origin"]["name"], compression["method"]
        return f"The run {code(origin)}, compressed by `{method}`"
    if kind(config) == "lstm":
        return f"A tiny LSTM text classifier, preset `{config['preset']}`"
    (model,) = config["model"]
    if kind(config) == "features":
        return (
            f"Logistic regression on embeddings ({config['pooling']}) of the frozen {code(model)}"
        )
    return f"The transformer {code(model)}, fine-tuned"


def _labels(labels: Sequence[str]) -> str:
    if len(labels) > MAX_CLASSES:
        return f"{len(labels)} labels, which are in `labels.json`"
    return f"the labels {', '.join(map(escaped, labels))}"


def _compressed(compression: Mapping[str, Any]) -> str:
    """Returns the section on a variant: its size, its gain, and why it was rejected."""
    size = compression["size_bytes"]
    rejected = f" Rejected: {escaped(compression['rejected'])}." if compression["rejected"] else ""
    return (
        f"## Compression\n\n{size['after'] / 1000:,.1f} KB after {size['before'] / 1000:,.1f} KB "
        f"({compression['ratio']:.0%}). The gain: {compression['gain']}.{rejected}\n\n"
    )


def _seed(config: Mapping[str, Any]) -> str:
    return f", trained with seed {config['seed']}" if "seed" in config else ""


def write_evaluation(run: Run, evaluation: Evaluation, texts: Sequence[str]) -> None:
    """Writes the evaluation of a new run into it: scores, predictions and model card.

    Its picture is drawn by `draw_evaluation`; that of an older evaluation is removed.
    """
    write_results(run, evaluation, texts)
    config, data = run.read_json("config.json"), run.read_json("data.json")
    compression = run.read_json(COMPRESSION) if run.file(COMPRESSION).is_file() else None
    run.write_text("README.md", model_card(evaluation, config, data, compression))


def write_results(run: Run, evaluation: Evaluation, texts: Sequence[str], split: str = "") -> None:
    """Writes scores and predictions into a run, for a later evaluation into files of its split."""
    run.file(of_split(CONFUSION, split)).unlink(missing_ok=True)
    run.write_json(of_split(EVALUATION, split), evaluation.to_json())
    predictions = prediction_cells(evaluation.labels, evaluation.probabilities)
    rows = (
        (text, label, evaluation.labels[label], *prediction)
        for text, label, prediction in zip(texts, evaluation.targets, predictions, strict=True)
    )
    labels = evaluation.labels
    header = ("text", "label", name_column(labels), *prediction_columns(labels))
    with atomic_open(run.file(of_split(PREDICTIONS, split))) as file:
        write_rows(file, [header, *rows])


def draw_evaluation(run: Run, evaluation: Evaluation, split: str = "") -> None:
    """Draws the confusion matrix; that of a later evaluation is a file of its split."""
    _draw(run, of_split(CONFUSION, split), partial(confusion_matrix, evaluation))


def draw_training(run: Run, history: Sequence[dict[str, Any]]) -> None:
    """Draws the training curves of a finished run.

    Args:
        run: The run.
        history: One record per epoch.
    """
    _draw(run, "training_curves.png", partial(training_curves, history))


def _draw(run: Run, name: str, draw: Callable[[], bytes]) -> None:
    """Writes a picture into a run, which is complete without: a failure is only logged."""
    try:
        run.write_bytes(name, draw())
    except Exception as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        logger.warning("%s is finished, but %s was not drawn (%s)", run.path, name, reason)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"{run.path} is finished, but {name} was not drawn") from None
