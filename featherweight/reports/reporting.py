"""Tables and the model card: how figures reach a reader."""

from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import tabulate

from featherweight.comparison.text import three_digits
from featherweight.hub.card import LOCAL_USE
from featherweight.prediction.cells import PREDICTION_COLUMNS, prediction_cells, write_rows
from featherweight.quality.evaluation import Evaluation
from featherweight.reports.plots import confusion_matrix
from featherweight.run import COMPRESSION, Run, atomic_open, kind
from featherweight.timing.latency import Latency


def per_class_table(evaluation: Evaluation) -> str:
    """Returns precision, recall, F1 and support of each label, with the averages below."""
    rows: list[list[Any]] = [
        [label, *scores.values()] for label, scores in evaluation.per_class().items()
    ]
    scores, n = evaluation.scores, len(evaluation.targets)
    macro = [scores["macro_precision"], scores["macro_recall"], scores["macro_f1"]]
    rows += [["macro average", *macro, n], ["accuracy", None, None, scores["accuracy"], n]]
    return tabulate(rows, headers=["label", "precision", "recall", "F1", "support"], floatfmt=".4f")


def confusion_table(evaluation: Evaluation) -> str:
    """Returns the confusion matrix, rows true and columns predicted."""
    rows = [
        [label, *counts]
        for label, counts in zip(evaluation.labels, evaluation.confusion.tolist(), strict=True)
    ]
    headers = ["true \\ predicted", *evaluation.labels]
    align = ("left", *["right"] * len(evaluation.labels))
    return tabulate(rows, headers, colalign=align, disable_numparse=True)


def coverage_table(evaluation: Evaluation) -> str:
    """Returns a row for each least confidence: texts answered, and the accuracy among them."""
    rows = [
        [
            f"{row.min_confidence:g}",
            f"{row.answered:,}",
            f"{row.share:.1%}",
            "–" if row.interval is None
            else f"{row.accuracy:.4f} [{row.interval[0]:.3f}, {row.interval[1]:.3f}]",
        ]
        for row in evaluation.coverages()
    ]  # fmt: skip
    headers = ["min confidence", "answered", "share", "accuracy of these"]
    return tabulate(rows, headers, colalign=["right"] * 4, disable_numparse=True)


def quality_table(evaluations: Sequence[Evaluation], tablefmt: str = "simple") -> str:
    """Returns a row per classifier: size, and quality with its 95 % interval."""
    headers = [
        "model", "parameters", "size KB", "accuracy", "macro F1", "macro precision",
        "macro recall", "ECE",
    ]  # fmt: skip
    rows = [
        [
            evaluation.model,
            f"{evaluation.parameters:,}",
            f"{evaluation.size_bytes / 1000:,.1f}",
            *(
                f"{evaluation.scores[name]:.4f} [{low:.3f}, {high:.3f}]"
                for name, (low, high) in evaluation.intervals.items()
            ),
            f"{evaluation.ece:.3f}",
        ]
        for evaluation in evaluations
    ]
    align = ("left", *["right"] * (len(headers) - 1))
    return tabulate(rows, headers, tablefmt=tablefmt, colalign=align, disable_numparse=True)


def differences(evaluation: Evaluation, variants: Sequence[Evaluation]) -> str:
    """Returns a line per variant: what it gains or loses in quality, and its share of the size."""
    lines = []
    for variant in variants:
        changes = [
            f"{name.replace('_', ' ')} {variant.scores[name] - score:+.4f}"
            for name, score in evaluation.scores.items()
            if f"{variant.scores[name]:.4f}" != f"{score:.4f}"
        ]
        quality = ", ".join(changes) or "quality equal to the fourth decimal"
        share = variant.size_bytes / evaluation.size_bytes
        lines.append(f"{variant.model}: {quality}; {share:.0%} of the size")
    return "\n".join(lines)


def one_batch_table(latencies: Sequence[Latency]) -> str:
    """Returns the median milliseconds of one batch, a column for the GPU and one for the CPU."""
    cells: dict[str, dict[str, str]] = {}
    for latency in latencies:
        mark = " *" if latency.noisy else ""
        median = three_digits(latency.percentile(50))
        cells.setdefault(latency.model, {})[latency.device] = f"{median}{mark}"
    rows = [[model, it.get("cuda", "–"), it.get("cpu", "–")] for model, it in cells.items()]
    align = ("left", "right", "right")
    return tabulate(rows, ["model", "GPU", "CPU"], colalign=align, disable_numparse=True)


def report(
    evaluation: Evaluation, others: Sequence[Evaluation] = (), latencies: Sequence[Latency] = ()
) -> str:
    """Returns everything a terminal shows of an evaluation, beside that of others."""
    n = len(evaluation.targets)
    parts = [
        f"{evaluation.model} on {evaluation.data}, {evaluation.split} split, n = {n}",
        per_class_table(evaluation),
        confusion_table(evaluation),
        coverage_table(evaluation),
        quality_table([evaluation, *others]),
        "[low, high]: 95 % interval, by Wilson above and by bootstrap here."
        " ECE: expected calibration error.",
    ]
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
        parts.append("*: the machine was restless; the rounds' medians lie too far apart.")
    return "\n\n".join(parts)


def model_card(
    evaluation: Evaluation,
    config: Mapping[str, Any],
    data: Mapping[str, Any],
    compression: Mapping[str, Any] | None = None,
) -> str:
    """Returns the README.md of a run.

    Args:
        evaluation: Its figures.
        config: Its `config.json`.
        data: Its `data.json`.
        compression: Its `compression.json`, if it is a variant.
    """
    splits = "\n".join(
        f"| {name} | {split['n']:,} | `{split['sha256']}` |"
        for name, split in data["splits"].items()
    )
    trained = "epochs" in config and compression is None
    curves = "![training curves](training_curves.png)\n" if trained else ""
    chosen = (
        " The checkpoint was chosen on this very split, so these figures flatter it; "
        "`python test.py` replaces them by those of the test split."
        if evaluation.split == "validation"
        else ""
    )
    return (
        f"# {evaluation.model}\n\n"
        f"{_described(config, compression)} ({evaluation.parameters:,} parameters, "
        f"{evaluation.size_bytes / 1000:,.1f} KB) that tells {', '.join(evaluation.labels)} "
        f"apart{_seed(config)}.\n\n{_compressed(compression) if compression else ''}"
        f"## Quality\n\nData `{evaluation.data}`, {evaluation.split} split, "
        f"n = {len(evaluation.targets):,}, 95 % bootstrap intervals.{chosen}\n\n"
        f"{quality_table([evaluation], 'github')}\n\n"
        f"```\n{per_class_table(evaluation)}\n```\n\n"
        "![confusion matrix](confusion_matrix.png)\n\n"
        "## Data\n\n| split | texts | sha256 of the content |\n| --- | ---: | --- |\n"
        f"{splits}\n\n"
        "What the checks found in it stands in `data.json`.\n\n"
        f"{LOCAL_USE}\n{curves}"
    )


def _described(config: Mapping[str, Any], compression: Mapping[str, Any] | None) -> str:
    """Returns what a run says of the model's kind."""
    if compression:  # a student may be of another kind than its origin
        return f"The run `{compression['origin']['name']}`, compressed by `{compression['method']}`"
    if kind(config) == "lstm":
        return f"A tiny LSTM text classifier, preset `{config['preset']}`"
    (model,) = config["model"]
    if kind(config) == "features":
        return f"Logistic regression on embeddings ({config['pooling']}) of the frozen `{model}`"
    return f"The transformer `{model}`, fine-tuned"


def _compressed(compression: Mapping[str, Any]) -> str:
    """Returns what became smaller, where the gain is real, and why it may not be worth it."""
    size = compression["size_bytes"]
    rejected = f" Rejected: {compression['rejected']}." if compression["rejected"] else ""
    return (
        f"## Compression\n\n{size['after'] / 1000:,.1f} KB after {size['before'] / 1000:,.1f} KB "
        f"({compression['ratio']:.0%}). The gain: {compression['gain']}.{rejected}\n\n"
    )


def _seed(config: Mapping[str, Any]) -> str:
    return f", trained with seed {config['seed']}" if "seed" in config else ""


def write_evaluation(run: Run, evaluation: Evaluation, texts: Sequence[str]) -> None:
    """Puts an evaluation into its run: figures, predictions, picture and model card."""
    run.write_json("evaluation.json", evaluation.to_json())
    answers = prediction_cells(evaluation.labels, evaluation.probabilities)
    with atomic_open(run.file("predictions.csv")) as file:
        write_rows(file, [("text", "label", "emotion", *PREDICTION_COLUMNS)])
        write_rows(
            file,
            (
                (text, target, evaluation.labels[target], *answer)
                for text, target, answer in zip(texts, evaluation.targets, answers, strict=True)
            ),
        )
    run.write_bytes("confusion_matrix.png", confusion_matrix(evaluation))
    config, data = run.read_json("config.json"), run.read_json("data.json")
    compression = run.read_json(COMPRESSION) if run.file(COMPRESSION).is_file() else None
    run.write_text("README.md", model_card(evaluation, config, data, compression))
