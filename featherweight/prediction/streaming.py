"""Predictions for a file of any size with constant memory: batches are read, predicted, written."""

from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from featherweight.classifier import Classifier
from featherweight.data.examples import text_rows
from featherweight.data.rows import Rows, open_rows
from featherweight.errors import UsageError
from featherweight.prediction.cells import PREDICTION_COLUMNS
from featherweight.prediction.config import PredictConfig
from featherweight.prediction.output_formats import output_format
from featherweight.prediction.resumable_file import open_resumable
from featherweight.prediction.workers import Batch, BatchPredictor, predict_batches
from featherweight.run import Run
from featherweight.weights import BUNDLE_FACTS, is_bundle

_BATCH_ROWS = 1_024
_DEFAULTS = PredictConfig()
_MIN_PARALLEL_BYTES = 4_000_000  # smaller inputs are done before worker processes have started


def predict_file(
    classifier: Classifier,
    path: Path,
    output_path: Path,
    config: PredictConfig = _DEFAULTS,
    progress: bool = False,
) -> Iterator[int]:
    """Writes predictions for a file's texts and yields the most probable class ids meanwhile.

    The output has every column of the input and the prediction. It is in place once the iterator
    is exhausted; otherwise, the part written so far can be resumed.

    Args:
        classifier: The model.
        path: CSV, TSV, JSONL, Parquet or `text;label` lines, optionally gzipped.
        output_path: A .csv, .jsonl or .parquet file; an existing one is replaced.
        config: `text_column`, `raw`, `min_confidence`, `resume` (yields the ids of the remaining
            rows only) and `weights`, the classifier's origin. If that is a bundle and the file is
            large, a process on each core loads it as well; they must be able to import the main
            module. Other options are ignored.
        progress: Show a progress bar on stderr.

    Raises:
        DataError: A row is invalid.
        UsageError: Input and output conflict, or there is nothing to resume.
        MissingExtraError: A file is Parquet and pyarrow is not installed.
    """
    _check_output_path(path, output_path)
    with open_rows(path) as rows:
        require_free_columns(rows)
        texts = text_rows(rows, config.text_column)
        output = output_format(output_path, rows, config.text_column, config.raw)
        if config.resume and not output.resumable:
            raise UsageError("--resume: Parquet cannot be resumed; give a .csv or .jsonl file")
        weights, large = config.weights, rows.size_bytes >= _MIN_PARALLEL_BYTES
        bundle = weights if weights and large and is_bundle(weights) else None
        predictor = BatchPredictor(classifier, output, config.min_confidence)
        with (
            open_resumable(output_path, _origin(path, config), config.resume) as partial,
            output.appending(partial.file) as append,
        ):
            next(islice(texts, partial.rows, partial.rows), None)
            bar = tqdm(
                total=rows.size_bytes, initial=rows.bytes_read(), unit="B", unit_scale=True,
                desc=path.name, disable=None if progress else True,
            )  # fmt: skip
            predicted = predict_batches(predictor, _batches(texts), bundle)
            with bar, closing(predicted):
                for batch in predicted:
                    append(batch.content)
                    if output.resumable:
                        partial.record_progress(len(batch.labels))
                    bar.update(rows.bytes_read() - bar.n)
                    yield from batch.labels


def _check_output_path(path: Path, output_path: Path) -> None:
    if output_path.is_dir():
        raise UsageError(f"--output_path {output_path} is a folder: give a file")
    if output_path.resolve() == path.resolve():
        raise UsageError(f"--output_path is the input file ({path}): give another file")
    if not output_path.parent.is_dir():
        raise UsageError(f"--output_path: no folder {output_path.parent}: create it first")


def require_free_columns(rows: Rows) -> None:
    """Checks that no input column has the name of a prediction column.

    Raises:
        UsageError: One has.
    """
    for column in PREDICTION_COLUMNS:
        if column in rows.columns:
            raise UsageError(
                f"{rows.path} already has a column {column}, which the predictions need: "
                "rename or remove it"
            )


def _origin(path: Path, config: PredictConfig) -> dict[str, Any]:
    """Returns what the predictions are computed from, by the name to use in messages."""
    return {
        "the input": _identity(path),
        "the weights": _identity(_main_file(config.weights)) if config.weights else None,
        "--text_column": config.text_column,
        "--raw": config.raw,
        "--min_confidence": config.min_confidence,
    }


def _identity(path: Path) -> list[int]:
    """Returns size and modification time, which differ if a file was written again."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _main_file(weights: Path) -> Path:
    """Returns a file that changes whenever the weights change."""
    if weights.is_file():
        return weights
    if is_bundle(weights):
        return weights / BUNDLE_FACTS
    return Run(weights).weights or weights


def _batches(texts: Iterator[tuple[int, str, dict[str, object]]]) -> Iterator[Batch]:
    while batch := [(text, values) for _, text, values in islice(texts, _BATCH_ROWS)]:
        yield batch
