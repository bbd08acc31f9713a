"""Predictions for a file of any size with constant memory: batches are read, predicted, written."""

import shlex
import sys
from collections.abc import Iterator
from contextlib import closing, nullcontext
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from featherweight.classifier import Classifier
from featherweight.data.rows import STANDARD_INPUT, Rows, open_rows
from featherweight.errors import UsageError
from featherweight.prediction.bad_rows import BadRows, rows_to_classify
from featherweight.prediction.columns import free_columns, prediction_columns
from featherweight.prediction.config import PredictConfig
from featherweight.prediction.output_formats import OutputFormat, output_format
from featherweight.prediction.resumable_file import open_resumable
from featherweight.prediction.workers import Batch, BatchPredictor, predict_batches
from featherweight.run import Run
from featherweight.weights import BUNDLE_FACTS, is_bundle

BATCH_ROWS = 1_024
_DEFAULTS = PredictConfig()
_MIN_PARALLEL_BYTES = 4_000_000  # smaller inputs are done before worker processes have started


def predict_file(
    classifier: Classifier,
    path: Path,
    output_path: Path | None,
    config: PredictConfig = _DEFAULTS,
    progress: bool = False,
) -> Iterator[int | None]:
    """Writes predictions for a file's texts and yields the most probable class ids meanwhile.

    The output has every column of the input and the prediction. It is in place once the iterator
    is exhausted; otherwise, the part written so far can be resumed. There is one id for each row of
    the output; a row without a text has no prediction, and its id is None.

    Args:
        classifier: The model.
        path: The input; its extension determines the format, and "-" is the standard input.
        output_path: A .csv, .jsonl or .parquet file; an existing one is replaced. None: CSV on the
            standard output.
        config: The options of reading and writing; with `resume`, only the ids of the remaining
            rows are yielded. `weights` is the classifier's origin. If that is a bundle and the file
            is large, a process on each core loads it as well. The options that choose input,
            output, engine and device are ignored.
        progress: Show a progress bar on stderr.

    Raises:
        DataError: The file cannot be read, or has no such column.
        BadRowError: A row has no text, and `bad_rows` is "fail".
        UsageError: Input and output conflict, or there is nothing to resume.
        MissingExtraError: A file is Parquet and pyarrow is not installed.
    """
    _check_paths(path, output_path, config)
    with open_rows(path, config, unlabeled=True) as rows:
        texts = rows_to_classify(rows, config.text_column)
        output = _output_format(classifier, rows, output_path, config)
        resumable = output.resumable and path != STANDARD_INPUT
        if config.resume and not resumable:
            raise UsageError("--resume: Parquet cannot be resumed; give a .csv or .jsonl file")
        predictor = BatchPredictor(classifier, output, config.min_confidence, config.known_words)
        bad_rows = BadRows(config.bad_rows)
        opened = (
            open_resumable(
                output_path,
                _origin(path, config),
                config.resume,
                partial(_resuming_command, path, output_path, config),
            )
            if output_path
            else nullcontext()
        )
        with opened as written:
            done = written.rows if written else 0
            next(islice(texts, done, done), None)
            file = written.file if written else sys.stdout.buffer
            batches = (
                Batch([(row.text, row.values) for row in kept], num_read)
                for kept, num_read in bad_rows.batches(texts, BATCH_ROWS)
            )
            predicted = predict_batches(predictor, batches, _bundle(rows, config))
            with (
                output.appending(file, resumed=done > 0) as append,
                _progress_bar(rows, progress) as bar,
                closing(predicted),
            ):
                for batch in predicted:
                    append(batch.content)
                    if written and resumable:
                        written.record_progress(batch.num_read)
                    bar.update(rows.bytes_read() - bar.n)
                    yield from batch.labels
            if bad_rows.error:
                raise bad_rows.error
        bad_rows.report()


def _check_paths(path: Path, output_path: Path | None, config: PredictConfig) -> None:
    if config.resume and path == STANDARD_INPUT:
        raise UsageError("--resume: the standard input cannot be read again; give a file")
    if output_path is None:
        return
    if output_path.is_dir():
        raise UsageError(f"--output_path {output_path} is a folder: give a file")
    if output_path.resolve() == path.resolve():
        raise UsageError(f"--output_path is the input file ({path}): give another file")
    if not output_path.parent.is_dir():
        raise UsageError(f"--output_path: no folder {output_path.parent}: create it first")


def _output_format(
    classifier: Classifier, rows: Rows, output_path: Path | None, config: PredictConfig
) -> OutputFormat:
    columns = prediction_columns(classifier.labels, config.known_words)
    columns = free_columns(columns, rows.columns, config.answer_prefix, str(rows))
    extension = output_path.suffix.lower() if output_path else ".csv"
    return output_format(extension, rows, config.text_column, columns, config.raw)


def _bundle(rows: Rows, config: PredictConfig) -> Path | None:
    """Returns the bundle that worker processes load, or None if they would not be worth it."""
    weights, large = config.weights, rows.size_bytes >= _MIN_PARALLEL_BYTES
    return weights if weights and large and is_bundle(weights) else None


def _progress_bar(rows: Rows, progress: bool) -> "tqdm[Any]":
    return tqdm(
        total=rows.size_bytes, initial=rows.bytes_read(), unit="B", unit_scale=True,
        desc=rows.path.name, disable=None if progress else True,
    )  # fmt: skip


def _resuming_command(path: Path, output_path: Path, config: PredictConfig, **changes: Any) -> str:
    """Returns the command that continues after an interruption, with everything it depends on."""
    own = {"texts": [], "csv": path, "jsonl": None, "parquet": None, "output_path": output_path}
    words = ["featherweight", "predict"]
    for name, value in (vars(config) | own | {"resume": True} | changes).items():
        if value == getattr(_DEFAULTS, name):
            continue
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no_{name}")
        else:
            words += [f"--{name}", str(value)]
    return shlex.join(words)


def _origin(path: Path, config: PredictConfig) -> dict[str, Any]:
    """Returns what the predictions are computed from, by the name to use in messages.

    `--bad_rows` is no part of it: after a row at which one policy stopped, another goes on.
    """
    origin = {
        "the input": _identity(path) if path != STANDARD_INPUT else None,
        "the weights": _identity(_main_file(config.weights)) if config.weights else None,
        "--text_column": config.text_column,
        "--raw": config.raw,
        "--min_confidence": config.min_confidence,
    }
    # Absent at their defaults, as in the records of versions without them.
    optional = ("answer_prefix", "known_words", "encoding", "delimiter", "quoting", "header")
    changed = {name: getattr(config, name) for name in optional}
    return origin | {
        f"--{name}": value for name, value in changed.items() if value != getattr(_DEFAULTS, name)
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
