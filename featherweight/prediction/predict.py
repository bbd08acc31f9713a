"""`predict`: classifies texts, or the rows of a file of any size."""

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from featherweight.classifier import Classifier
from featherweight.data.rows import file_format
from featherweight.errors import UsageError
from featherweight.loading import load, newest_or_pretrained
from featherweight.prediction.cells import PREDICTION_COLUMNS, prediction_cells
from featherweight.prediction.config import PredictConfig
from featherweight.prediction.output_formats import apply_min_confidence
from featherweight.prediction.streaming import predict_file

logger = logging.getLogger("featherweight")

_FLAG_OF = {
    **dict.fromkeys((".csv", ".tsv", ".txt"), "--csv"),
    **dict.fromkeys((".jsonl", ".ndjson"), "--jsonl"),
    ".parquet": "--parquet",
}
_MAX_WIDTH = 40  # characters of a text in the printed table


def predict(config: PredictConfig) -> None:
    """Prints the predictions for texts, or writes those for a file.

    Raises:
        UsageError: Neither or both of texts and a file are given, or there is no run.
        WeightsError: The weights cannot be used.
        DataError: The file cannot be used.
    """
    path = _input_file(config)
    if bool(config.texts) == bool(path):
        raise UsageError(
            'give either texts ("i feel so happy today") or one file: --csv, --jsonl or --parquet'
        )
    if any("\udc80" <= letter <= "\udcff" for text in config.texts for letter in text):
        raise UsageError("a text is not UTF-8: set the terminal to UTF-8, or give --csv")
    for flag in ("output_path", "resume"):
        if getattr(config, flag) and not path:
            raise UsageError(f"--{flag} requires --csv, --jsonl or --parquet")
    weights = config.weights or newest_or_pretrained(config.output_dir)
    classifier = load(weights, config.device)
    if path:
        output_path = config.output_path or predictions_path(path)
        options = replace(config, weights=weights)
        ids = predict_file(classifier, path, output_path, options, progress=True)
        logger.info("%d rows predicted: %s", sum(1 for _ in ids), output_path)
    else:
        print(_predict_texts(classifier, config))
    if classifier.truncated_texts:
        logger.info("%d texts were truncated to the maximum length", classifier.truncated_texts)


def _input_file(config: PredictConfig) -> Path | None:
    flags = {"--csv": config.csv, "--jsonl": config.jsonl, "--parquet": config.parquet}
    files = [(flag, path) for flag, path in flags.items() if path]
    if not files:
        return None
    if len(files) > 1:
        raise UsageError(f"give only one of {' and '.join(flag for flag, _ in files)}")
    ((flag, path),) = files
    if path.is_dir():
        raise UsageError(f"{flag} {path} is a folder: give a file, or add --engine ray")
    expected = _FLAG_OF.get(file_format(path), flag)
    if expected != flag:
        raise UsageError(f"{flag} {path}: files with this extension require {expected}")
    return path


def _predict_texts(classifier: Classifier, config: PredictConfig) -> str:
    cells = prediction_cells(classifier.labels, classifier.predict_proba(config.texts))
    predictions = [apply_min_confidence(cell, config.min_confidence) for cell in cells]
    columns = ("text", *PREDICTION_COLUMNS)
    rows = [
        (text, label, name, float(confidence))
        for text, (label, name, confidence) in zip(config.texts, predictions, strict=True)
    ]
    if config.json:
        objects = [dict(zip(columns, row, strict=True)) for row in rows]
        return json.dumps(objects, ensure_ascii=False)
    lines = [
        (_shortened(text), "" if label is None else str(label), name, f"{confidence:.4f}")
        for text, label, name, confidence in rows
    ]
    return _table([columns, *lines])


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MAX_WIDTH else f"{line[: _MAX_WIDTH - 1]}…"


def _table(lines: Sequence[Sequence[str]]) -> str:
    """Aligns cells below a header, without tabulate, which is not installed with the core."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    header, *rows = lines
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in [header, ["-" * width for width in widths], *rows]
    )


def run_inference(weights: str | Path, csv: str | Path) -> list[int]:
    """Classifies the `text` column of a file and writes the predictions to a new file.

    Args:
        weights: A run directory, a bundle or a portable `.safetensors` file.
        csv: The input; the output is `<input name>_predictions.csv` in the same folder.

    Returns:
        The class id of each row.

    Raises:
        WeightsError: The weights cannot be used.
        DataError: The file cannot be used; nothing is written.
    """
    path = Path(csv)
    return list(predict_file(load(weights), path, predictions_path(path)))


def predictions_path(path: Path) -> Path:
    """Returns `<input name>_predictions.csv` in the folder of the input."""
    name = path.name.removesuffix(".gz")
    return path.with_name(f"{Path(name).stem}_predictions.csv")
