"""`predict`: classifies texts, lines of the standard input, or the rows of a file of any size."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path

from featherweight.classifier import Classifier
from featherweight.data.rows import STANDARD_INPUT, file_stem
from featherweight.errors import UsageError
from featherweight.loading import load, newest_or_pretrained, resolve_weights
from featherweight.prediction.bad_rows import BadRows, Row, rows_of
from featherweight.prediction.config import PredictConfig
from featherweight.prediction.standard_input import Lines, piped_input
from featherweight.prediction.streaming import BATCH_ROWS, predict_file
from featherweight.prediction.terminal import MAX_WIDTH, print_answers, table_text

logger = logging.getLogger("featherweight")

_FILES = "--csv, --jsonl or --parquet"


def predict(config: PredictConfig) -> None:
    """Prints the predictions for texts, or writes those for a file.

    Raises:
        UsageError: There is no input or more than one, flags do not fit it, or there is no run.
        WeightsError: The weights cannot be used.
        DataError: The input cannot be used.
    """
    path = _input_file(config)
    _check_input(config, path)
    lines = None if config.texts or path else _piped_lines(config)
    weights = config.weights or newest_or_pretrained(config.output_dir)
    classifier = load(weights, config.device)
    if path:
        _predict_file(classifier, path, replace(config, weights=weights))
    elif lines:
        _predict_lines(classifier, lines, config)
    else:
        rows = [Row(text, {"text": text}) for text in config.texts]
        width = max(len(table_text(text)) for text in config.texts)
        print_answers(classifier, [rows], config, width)
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
    if path == STANDARD_INPUT and flag != "--csv":
        raise UsageError(f"{flag} -: the standard input is read as CSV, with --csv -")
    return path


def _check_input(config: PredictConfig, path: Path | None) -> None:
    if config.texts and path:
        raise UsageError(f"give either texts or one file, not both: {_FILES}")
    for flag in ("output_path", "resume"):
        if getattr(config, flag) and not path:
            raise UsageError(f"--{flag} requires {_FILES}")


def _predict_file(classifier: Classifier, path: Path, config: PredictConfig) -> None:
    output_path = config.output_path
    if output_path is None and path != STANDARD_INPUT:
        output_path = predictions_path(path)
    progress = output_path is not None
    ids = predict_file(classifier, path, output_path, config, progress)
    predicted = sum(label is not None for label in ids)
    rows = "1 row" if predicted == 1 else f"{predicted} rows"
    logger.info("%s predicted: %s", rows, output_path or "standard output")


def _piped_lines(config: PredictConfig) -> Iterator[Row]:
    """Returns the lines of the standard input, at least one."""
    if stream := piped_input():
        lines = Lines(stream, config.encoding)
        rows = rows_of(lines, lines, "text")
        if first := next(rows, None):
            return chain([first], rows)
    raise UsageError(
        f'give texts ("i feel so happy today"), lines on the standard input, or one file: {_FILES}'
    )


def _predict_lines(classifier: Classifier, rows: Iterator[Row], config: PredictConfig) -> None:
    bad_rows = BadRows(config.bad_rows)
    batches = bad_rows.batches(rows, BATCH_ROWS)
    print_answers(classifier, (kept for kept, _ in batches), config, MAX_WIDTH)
    if bad_rows.error:
        raise bad_rows.error
    bad_rows.report()


def run_inference(weights: str | Path, csv: str | Path) -> list[int | None]:
    """Classifies the `text` column of a file and writes the predictions to a new file.

    Args:
        weights: A run directory, a bundle or a portable `.safetensors` file.
        csv: The input, of any format of `predict`; the output is `<input name>_predictions.csv` in
            the same folder.

    Returns:
        The class id of each row; None for a row without a text.

    Raises:
        WeightsError: The weights cannot be used.
        DataError: The file cannot be used; nothing is written.
    """
    path = Path(csv)
    config = PredictConfig(weights=resolve_weights(weights))
    return list(predict_file(load(weights), path, predictions_path(path), config))


def predictions_path(path: Path) -> Path:
    """Returns `<input name>_predictions.csv` in the folder of the input."""
    return path.with_name(f"{file_stem(path)}_predictions.csv")
