"""`predict --engine ray`: classifies a folder of shards with a bundle, on a Ray cluster.

Tasks read the shards and write the predictions with the same code as for a single file; actors in
between hold the bundle, which is sent to them. Every node needs featherweight[ray] and access to
both folders.
"""

import json
import logging
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow
import ray
from ray.data import ActorPoolStrategy, Datasink

from edge.bundle_files import LABELS, METADATA, read
from edge.cluster.session import cluster
from edge.runtime import Bundle
from featherweight.data.rows import listing, open_rows
from featherweight.disk.atomic import atomic_directory, atomic_open
from featherweight.errors import DataError, UsageError, WeightsError
from featherweight.loading import newest_or_pretrained
from featherweight.prediction.answers import Answer, answers
from featherweight.prediction.bad_rows import BadRowError, BadRows, rows_to_classify
from featherweight.prediction.columns import first_free, free_columns, prediction_columns
from featherweight.prediction.config import PredictConfig
from featherweight.prediction.output_formats import (
    CsvFormat,
    OutputFormat,
    input_schema,
    output_format,
    with_answers,
)
from featherweight.weights import is_bundle

logger = logging.getLogger("featherweight")

_SUFFIXES = {"--csv": (".csv", ".csv.gz", ".tsv", ".tsv.gz"), "--parquet": (".parquet",)}
_READ_ROWS = 1_024
_BLOCK_BYTES = 2**23  # in memory, of the rows an actor predicts at a time
_FILE_BYTES = 2**25  # in memory, of the predictions in a file
# An actor takes half a CPU: one per CPU leaves room for tasks, and with a single CPU an actor that
# took all of it would wait for its input forever.
_ACTOR_CPUS, _TASK_CPUS = 0.5, 0.25


def predict_shards(config: PredictConfig) -> None:
    """Writes predictions for a folder of files into a new folder, in files of the same format.

    Read in order of their names, the files have the rows of the shards in the same order. The
    folder appears once all files are complete; an error or a kill leaves none.

    Raises:
        UsageError: Flags do not fit together, the output exists, or there is no cluster.
        WeightsError: The weights are not a bundle, or it is damaged.
        DataError: A shard cannot be used.
        BadRowError: A row has no text, and `bad_rows` is "fail".
        FeatherweightError: Ray failed.
    """
    flag, folder = _input(config)
    source = folder.resolve()
    output_path = config.output_path or source.with_name(f"{source.name}_predictions")
    _require_new_folder(output_path)
    weights = config.weights or newest_or_pretrained(config.output_dir)
    if not is_bundle(weights):
        raise WeightsError(
            f"--engine ray needs a bundle, which {weights} is not: export it first "
            f"(featherweight export --weights {weights})"
        )
    bundle = read(weights)
    shards = _shards(flag, folder)
    schema = _common_schema(shards, config)
    columns = prediction_columns(json.loads(bundle[LABELS]), config.known_words)
    columns = free_columns(columns, schema.names, config.answer_prefix, str(folder))
    extension = _SUFFIXES[flag][0]
    with open_rows(shards[0], config, unlabeled=True) as rows:
        file_format = output_format(extension, rows, config.text_column, columns, config.raw)
    bad_rows = BadRows(config.bad_rows)
    with atomic_directory(output_path.resolve()) as partial, cluster(__name__):
        sink = _OutputFolder(partial, extension, file_format, bad_rows)
        _run(shards, schema, bundle, sink, config)
        if not any(partial.glob("part-*")):
            sink.write_file(0, [])
        for leftover in partial.glob(".*"):  # of a task that was killed and retried
            leftover.unlink()
    bad_rows.report()
    logger.info("%d predictions written to %s", sink.num_predictions, output_path)


def _input(config: PredictConfig) -> tuple[str, Path]:
    """Returns the flag that names the folder of shards, and the folder."""
    local_only = {"a text": config.texts, "--jsonl": config.jsonl, "--resume": config.resume}
    for name, value in local_only.items():
        if value:
            raise UsageError(f"{name} requires --engine local")
    flags = {"--csv": config.csv, "--parquet": config.parquet}
    folders = [(flag, path) for flag, path in flags.items() if path]
    if len(folders) != 1:
        raise UsageError("--engine ray takes one folder: give either --csv or --parquet")
    ((flag, folder),) = folders
    if not folder.is_dir():
        problem = "is a file" if folder.exists() else "does not exist"
        raise UsageError(f"{flag} {folder} {problem}: --engine ray takes a folder of shards")
    return flag, folder


def _require_new_folder(path: Path) -> None:
    if path.is_dir() and path.is_mount():
        raise UsageError(f"--output_path {path} is a mount point: name a folder below it")
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise UsageError(f"--output_path {path} exists: name a new folder or an empty one")
    if not path.resolve().parent.is_dir():
        raise UsageError(f"--output_path: no folder {path.parent}: create it first")


def _shards(flag: str, folder: Path) -> list[Path]:
    """Returns the shards, without marker files of other programs such as _SUCCESS.csv."""
    shards = [
        path
        for path in sorted(folder.iterdir())
        if path.name.lower().endswith(_SUFFIXES[flag]) and path.name[0] not in "._"
    ]
    if not shards:
        raise DataError(f"{flag} {folder} contains no {' or '.join(_SUFFIXES[flag])} file")
    return shards


def _common_schema(shards: Sequence[Path], config: PredictConfig) -> Any:
    """Returns the Arrow schema of the shards, after checking the columns of each."""
    common: Any = None
    for shard in shards:
        with open_rows(shard, config, unlabeled=True) as rows:
            rows_to_classify(rows, config.text_column)
            schema = input_schema(rows)
        common = common or schema
        columns, expected = (
            {(field.name, field.type) for field in each} for each in (schema, common)
        )
        if columns != expected:
            names = listing(sorted({name for name, _ in columns ^ expected}))
            raise DataError(
                f"{shard} has other columns than {shards[0]} ({names}): "
                "all shards need the same names and types"
            )
    return common


def _run(
    shards: Sequence[Path],
    schema: Any,
    bundle: Mapping[str, bytes],
    sink: "_OutputFolder",
    config: PredictConfig,
) -> None:
    paths = [{"path": str(shard.resolve())} for shard in shards]
    max_actors = max(1, int(ray.cluster_resources().get("CPU", 1)))
    predictions = (
        ray.data.from_items(paths, override_num_blocks=len(paths))
        .map_batches(_rows, batch_size=1, fn_args=(schema, config), num_cpus=_TASK_CPUS)
        .map_batches(
            _Predictor,
            fn_constructor_args=(bundle, sink.file_format.columns, config),
            batch_format="pyarrow",
            batch_size=None,
            compute=ActorPoolStrategy(min_size=1, max_size=max_actors),
            num_cpus=_ACTOR_CPUS,
        )
    )
    context = predictions.context
    context.execution_options.preserve_order = True
    context.raise_original_map_exception = True
    context.target_max_block_size = _BLOCK_BYTES
    context.print_on_execution_start = False
    context.enable_progress_bars = sys.stderr.isatty()
    predictions.write_datasink(sink, ray_remote_args={"num_cpus": _TASK_CPUS})


def _rows(paths: Mapping[str, Any], schema: Any, config: PredictConfig) -> Iterator[Any]:
    """Yields the rows of shards as Arrow tables; runs in a task.

    The first column contains why a row has no text to classify, and null if it has one.

    Raises:
        BadRowError: A row has no text, and the policy is to fail.
    """
    problem = pyarrow.field(first_free("problem", schema.names), pyarrow.string())
    for path in paths["path"]:
        with open_rows(Path(str(path)), config, unlabeled=True) as rows:
            texts = rows_to_classify(rows, config.text_column)
            while batch := list(islice(texts, _READ_ROWS)):
                problems = [row.problem or None for row in batch]
                if config.bad_rows == "fail" and any(problems):
                    raise BadRowError(next(filter(None, problems)))
                table = pyarrow.Table.from_pylist([row.values for row in batch], schema)
                yield table.add_column(0, problem, [pyarrow.array(problems, problem.type)])


class _Predictor:
    """An actor that holds a bundle."""

    def __init__(
        self, files: Mapping[str, bytes], columns: Sequence[str], config: PredictConfig
    ) -> None:
        self._bundle = Bundle(files, json.loads(files[METADATA]))
        self._labels = self._bundle.classes_.tolist()
        self._fields = list(with_answers(pyarrow.schema([]), columns))
        self._config = config

    def __call__(self, table: Any) -> Any:
        """Returns a table with the columns of the answers added."""
        texts = table[self._config.text_column].to_pylist()
        problems = table.column(0).to_pylist()
        given = [None if problem else text for text, problem in zip(texts, problems, strict=True)]
        found = answers(self._bundle, self._labels, given, self._config.known_words)
        rows = [answer.if_confident(self._config.min_confidence).values() for answer in found]
        for field, values in zip(self._fields, zip(*rows, strict=True), strict=False):
            table = table.append_column(field, pyarrow.array(values, field.type))
        return table


class _Written(NamedTuple):
    """What a task wrote."""

    task: int
    num_predictions: int
    bad_rows: BadRows


@dataclass
class _OutputFolder(Datasink[_Written]):
    """Writes the predictions into numbered files of a folder."""

    path: Path
    extension: str
    file_format: OutputFormat
    bad_rows: BadRows  # counted after all are written, as the predictions
    num_predictions: int = 0

    @property
    def min_bytes_per_write(self) -> int:
        """Bytes in memory that make a file."""
        return _FILE_BYTES

    def write(self, blocks: Iterable[Any], ctx: Any) -> _Written:
        """Writes a file; runs in a task."""
        if not self.path.is_dir():
            raise UsageError(
                f"--output_path: a node of the cluster has no access to {self.path.parent}: "
                "name a folder that all of them share"
            )
        return self.write_file(ctx.task_idx, blocks)

    def write_file(self, number: int, tables: Iterable[Any]) -> _Written:
        """Writes tables of predictions to the file with this number."""
        path = self.path / f"part-{number:06}{self.extension}"
        bad_rows, num_predictions = BadRows(self.bad_rows.policy), 0
        with atomic_open(path, "wb") as file, self.file_format.appending(file) as append:
            for table in filter(len, tables):  # an empty shard gives a table without columns
                problems = table.column(0)
                bad_rows.add(problems.drop_null().to_pylist())
                num_predictions += problems.null_count
                if bad_rows.policy == "skip":
                    table = table.filter(problems.is_null())
                append(self._content(table.remove_column(0)))
        return _Written(number, num_predictions, bad_rows)

    def _content(self, table: Any) -> Any:
        if not isinstance(self.file_format, CsvFormat):
            return table
        rows = []
        for row in table.to_pylist():
            label, name, confidence, *known = (row[column] for column in self.file_format.columns)
            digits = None if confidence is None else f"{confidence:.6f}"
            rows.append((Answer(label, name, digits, *known), row))
        return self.file_format.batch(rows)

    def on_write_complete(self, write_result: Any) -> None:
        """Adds up what the tasks wrote."""
        for written in sorted(write_result.write_returns):
            self.num_predictions += written.num_predictions
            self.bad_rows.add_all(written.bad_rows)
