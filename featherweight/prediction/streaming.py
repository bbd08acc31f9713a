"""A file of any size at constant memory: read a batch, answer it, write it."""

from collections.abc import Generator, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

from tqdm import tqdm

from featherweight.classifier import Classifier
from featherweight.data.examples import text_rows
from featherweight.data.rows import Rows, open_rows
from featherweight.errors import UsageError
from featherweight.prediction.answer_formats import answer_format
from featherweight.prediction.cells import PREDICTION_COLUMNS
from featherweight.prediction.resumable_file import open_resumable
from featherweight.prediction.workers import (
    AnsweredBatch,
    Batch,
    BatchPredictor,
    cores,
    on_all_cores,
)
from featherweight.run import Run
from featherweight.weights import BUNDLE_FACTS, is_bundle

_BATCH_ROWS = 1_024
_WORTH_PROCESSES = 4_000_000  # bytes of input; what is smaller is answered while they start


def predict_file(
    classifier: Classifier,
    path: Path,
    output_path: Path,
    text_column: str = "text",
    raw: bool = False,
    progress: bool = False,
    min_confidence: float = 0.0,
    weights: Path | None = None,
    resume: bool = False,
) -> Iterator[int]:
    """Writes the answers to a file's texts and yields their most probable class ids as it goes.

    The output has every column of the input and the prediction. It is in place once the iterator
    is exhausted; what is left if it comes to no end can be resumed.

    Args:
        classifier: Who answers.
        path: CSV, TSV, JSONL, Parquet or `text;label` lines, also gzipped.
        output_path: A .csv, .jsonl or .parquet file, replaced if it is there.
        text_column: Name of the input's text column.
        raw: Leave cells of CSV as they are that a spreadsheet would run as formulas.
        progress: Show a bar on stderr.
        min_confidence: Probability below which the label is empty.
        weights: Where the classifier was loaded from; a bundle is then loaded once more on each
            core if the file is large. The program must bear to be imported by those processes.
        resume: Go on with what an earlier call left; it yields the ids of the other rows only.

    Raises:
        DataError: A row cannot be used.
        UsageError: Input and output clash, or there is nothing to resume.
        MissingExtraError: A file is Parquet and pyarrow is not installed.
    """
    _require_place(path, output_path)
    with open_rows(path) as rows:
        require_free_columns(rows)
        answered = iter(text_rows(rows, text_column))
        answers = answer_format(output_path, rows, text_column, raw)
        if resume and not answers.resumable:
            raise UsageError("--resume: Parquet cannot be gone on with; name a .csv or .jsonl file")
        answerer = BatchPredictor(classifier, answers, min_confidence)
        origin = {
            "the input": _identity(path),
            "the weights": _identity(_main_file(weights)) if weights else None,
            "--text_column": text_column,
            "--raw": raw,
            "--min_confidence": min_confidence,
        }
        with (
            open_resumable(output_path, origin, resume) as partial,
            answers.appending(partial.file) as append,
        ):
            if not partial.rows:
                append(answers.head())
            next(islice(answered, partial.rows, partial.rows), None)
            parallel = weights if rows.size_bytes >= _WORTH_PROCESSES else None
            bar = tqdm(
                total=rows.size_bytes, initial=rows.bytes_read(), unit="B", unit_scale=True,
                desc=path.name, disable=None if progress else True,
            )  # fmt: skip
            with bar, closing(_written(answerer, _batches(answered), parallel)) as written:
                for batch in written:
                    append(batch.content)
                    if answers.resumable:
                        partial.record_progress(len(batch.labels))
                    bar.update(rows.bytes_read() - bar.n)
                    yield from batch.labels


def _require_place(path: Path, output_path: Path) -> None:
    if output_path.is_dir():
        raise UsageError(f"--output_path {output_path} is a folder: name a file")
    if output_path.resolve() == path.resolve():
        raise UsageError(f"--output_path is the input itself ({path}): name another file")
    if not output_path.parent.is_dir():
        raise UsageError(f"--output_path: no folder {output_path.parent}: make it first")


def require_free_columns(rows: Rows) -> None:
    """Makes sure that no column of an input is called as one of the answers.

    Raises:
        UsageError: One is.
    """
    for column in PREDICTION_COLUMNS:
        if column in rows.columns:
            raise UsageError(
                f"{rows.path} has a column {column} already, which the answers would hide: "
                "rename or remove it"
            )


def _identity(path: Path) -> list[int]:
    """Returns what a file that was written anew would have otherwise: size and time of writing."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _main_file(weights: Path) -> Path:
    """Returns the one file that no other weights at the same place would share."""
    if weights.is_file():
        return weights
    if is_bundle(weights):
        return weights / BUNDLE_FACTS
    return Run(weights).weights or weights


def _batches(answered: Iterator[tuple[int, str, dict[str, object]]]) -> Iterator[Batch]:
    while batch := [(text, row) for _, text, row in islice(answered, _BATCH_ROWS)]:
        yield batch


def _written(
    answerer: BatchPredictor, batches: Iterator[Batch], weights: Path | None
) -> Generator[AnsweredBatch, None, None]:
    if weights and is_bundle(weights) and cores() > 1:
        yield from on_all_cores(answerer, weights, batches)
    else:
        yield from map(answerer, batches)
