"""Predicting texts, or a file of any size at constant memory: read a batch, answer it, write it."""

import json
import logging
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from featherweight.classifier import Classifier
from featherweight.config import PredictConfig
from featherweight.errors import UsageError
from featherweight.loading import load
from featherweight.predictions import PREDICTION_COLUMNS, prediction_cells, write_rows
from featherweight.rows import Rows, open_rows
from featherweight.run import atomic_open, newest_run

logger = logging.getLogger("featherweight")

_BATCH_ROWS = 1_024


def predict(config: PredictConfig) -> None:
    """Prints the answers to texts, or writes those to a file.

    Raises:
        UsageError: Neither or both of texts and a file, or there is no run.
        WeightsError: The weights cannot be used.
        DataError: The file cannot be used.
    """
    if bool(config.texts) == bool(config.csv):
        raise UsageError('give either texts ("i feel so happy today") or --csv FILE')
    if any("\udc80" <= letter <= "\udcff" for text in config.texts for letter in text):
        raise UsageError("a text is not UTF-8: set the terminal to UTF-8, or give --csv")
    if config.output_path and not config.csv:
        raise UsageError("--output_path goes with --csv")
    classifier = load(config.weights or newest_run(config.output_dir).path, config.device)
    if config.csv:
        output_path = config.output_path or predictions_path(config.csv)
        answers = predict_file(
            classifier, config.csv, output_path, config.text_column, config.raw, progress=True
        )
        logger.info("%d rows answered: %s", sum(1 for _ in answers), output_path)
    else:
        print(_answers(classifier, config.texts, config.json))
    if classifier.truncated_texts:
        logger.info("%d texts were cut at the maximum length", classifier.truncated_texts)


def _answers(classifier: Classifier, texts: list[str], as_json: bool) -> str:
    from tabulate import tabulate

    cells = prediction_cells(classifier.labels, classifier.predict_proba(texts))
    columns = ("text", *PREDICTION_COLUMNS)
    rows = [
        dict(zip(columns, (text, label, name, float(confidence)), strict=True))
        for text, (label, name, confidence) in zip(texts, cells, strict=True)
    ]
    if as_json:
        return json.dumps(rows, ensure_ascii=False)
    for row in rows:
        row["confidence"] = f"{row['confidence']:.4f}"
    return tabulate(rows, headers="keys", maxcolwidths=[40], disable_numparse=True)


def run_inference(weights: str | Path, csv: str | Path) -> list[int]:
    """Predicts the `text` column of a file and writes the answers beside it.

    Args:
        weights: A run directory or a portable `.safetensors` file.
        csv: The input; the answers go to `<input name>_predictions.csv` in the same folder.

    Returns:
        The class id of each row.

    Raises:
        WeightsError: The weights cannot be used.
        DataError: The file cannot be used; nothing is written then.
    """
    path = Path(csv)
    return list(predict_file(load(weights), path, predictions_path(path)))


def predictions_path(path: Path) -> Path:
    """Returns `<input name>_predictions.csv` beside the input."""
    name = path.name.removesuffix(".gz")
    return path.with_name(f"{Path(name).stem}_predictions.csv")


def predict_file(
    classifier: Classifier,
    path: Path,
    output_path: Path,
    text_column: str = "text",
    raw: bool = False,
    progress: bool = False,
) -> Iterator[int]:
    """Writes the answers to a file's texts and yields their class ids as it goes.

    The output has the text column, the prediction and every other column of the input. It is in
    place once the iterator is exhausted, and not at all if anything fails before.

    Args:
        classifier: Who answers.
        path: CSV, TSV, JSONL, Parquet or `text;label` lines, also gzipped.
        output_path: A CSV file, replaced if it is there.
        text_column: Name of the input's text column.
        raw: Leave cells as they are that a spreadsheet would run as formulas.
        progress: Show a bar on stderr.

    Raises:
        DataError: A row cannot be used.
        UsageError: Input and output clash.
    """
    from tqdm import tqdm

    from featherweight.dataset import text_rows

    if output_path.is_dir():
        raise UsageError(f"--output_path {output_path} is a folder: name a file")
    if output_path.resolve() == path.resolve():
        raise UsageError(f"--output_path is the input itself ({path}): name another file")
    if not output_path.parent.is_dir():
        raise UsageError(f"--output_path: no folder {output_path.parent}: make it first")
    with open_rows(path) as rows, atomic_open(output_path) as output:
        others = _other_columns(rows, text_column)
        answered = iter(text_rows(rows, text_column))
        write_rows(output, [(text_column, *PREDICTION_COLUMNS, *others)], raw)
        bar = tqdm(
            total=rows.size_bytes, unit="B", unit_scale=True, desc=path.name,
            disable=None if progress else True,
        )  # fmt: skip
        with bar:
            while batch := list(islice(answered, _BATCH_ROWS)):
                probabilities = classifier.predict_proba([text for _, text, _ in batch])
                cells = list(prediction_cells(classifier.labels, probabilities))
                write_rows(
                    output,
                    (
                        (text, *answer, *(row.get(column, "") for column in others))
                        for (_, text, row), answer in zip(batch, cells, strict=True)
                    ),
                    raw,
                )
                bar.update(rows.bytes_read() - bar.n)
                yield from (label for label, _, _ in cells)


def _other_columns(rows: Rows, text_column: str) -> list[str]:
    others = [column for column in rows.columns if column != text_column]
    for column in PREDICTION_COLUMNS:
        if column in rows.columns:
            raise UsageError(
                f"{rows.path} has a column {column} already, which the answers would hide: "
                "rename or remove it"
            )
    return others
