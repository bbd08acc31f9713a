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
from typing import Any

import pyarrow
import ray
from ray.data import ActorPoolStrategy, Datasink

from edge.bundle_files import METADATA, read
from edge.cluster.session import cluster
from edge.runtime import Bundle
from featherweight.data.examples import text_rows
from featherweight.data.rows import listing, open_rows
from featherweight.errors import DataError, UsageError, WeightsError
from featherweight.loading import newest_or_pretrained
from featherweight.prediction.cells import PREDICTION_COLUMNS, prediction_cells
from featherweight.prediction.config import PredictConfig
from featherweight.prediction.output_formats import (
    CsvFormat,
    OutputFormat,
    apply_min_confidence,
    output_format,
    output_schema,
)
from featherweight.prediction.streaming import require_free_columns
from featherweight.run import atomic_directory, atomic_open
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
    schema = _common_schema(shards, config.text_column)
    with open_rows(shards[0]) as rows:
        name = Path(f"part{_SUFFIXES[flag][0]}")
        file_format = output_format(name, rows, config.text_column, config.raw)
    with atomic_directory(output_path.resolve()) as partial, cluster(__name__):
        sink = _OutputFolder(partial, name, file_format, config.text_column)
        _run(shards, schema, bundle, sink, config)
        if not sink.num_rows:
            sink.write_file(0, [])
        for leftover in partial.glob(".*"):  # of a task that was killed and retried
            leftover.unlink()
    logger.info("%d predictions written to %s", sink.num_rows, output_path)


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


def _common_schema(shards: Sequence[Path], text_column: str) -> Any:
    """Returns the Arrow schema of the output, after checking the columns of every shard."""
    common: Any = None
    for shard in shards:
        with open_rows(shard) as rows:
            require_free_columns(rows)
            text_rows(rows, text_column)
            schema = output_schema(rows)
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
        .map_batches(_rows, batch_size=1, fn_args=(schema, config.text_column), num_cpus=_TASK_CPUS)
        .map_batches(
            _Predictor,
            fn_constructor_args=(bundle, schema, config.text_column, config.min_confidence),
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


def _rows(paths: Mapping[str, Any], schema: Any, text_column: str) -> Iterator[Any]:
    """Yields the checked rows of shards as Arrow tables; runs in a task."""
    columns = pyarrow.schema(list(schema)[: -len(PREDICTION_COLUMNS)])
    for path in paths["path"]:
        with open_rows(Path(str(path))) as rows:
            checked = text_rows(rows, text_column)
            while batch := [values for _, _, values in islice(checked, _READ_ROWS)]:
                yield pyarrow.Table.from_pylist(batch, columns)


class _Predictor:
    """An actor that holds a bundle."""

    def __init__(
        self, files: Mapping[str, bytes], schema: Any, text_column: str, min_confidence: float
    ) -> None:
        self._bundle = Bundle(files, json.loads(files[METADATA]))
        self._labels = self._bundle.classes_.tolist()
        self._fields = list(schema)[-len(PREDICTION_COLUMNS) :]
        self._text_column = text_column
        self._min_confidence = min_confidence

    def __call__(self, table: Any) -> Any:
        """Returns a table with the prediction columns added."""
        probabilities = self._bundle.predict_proba(table[self._text_column].to_pylist())
        predictions = [
            apply_min_confidence(cell, self._min_confidence)
            for cell in prediction_cells(self._labels, probabilities)
        ]
        ids, labels, confidences = zip(*predictions, strict=True)
        columns = ids, labels, map(float, confidences)
        for field, values in zip(self._fields, columns, strict=True):
            table = table.append_column(field, pyarrow.array(values, field.type))
        return table


@dataclass
class _OutputFolder(Datasink[None]):
    """Writes the predictions into numbered files of a folder."""

    path: Path
    name: Path  # stem and extension of the files
    file_format: OutputFormat
    text_column: str
    num_rows: int = 0  # known after all are written

    @property
    def min_bytes_per_write(self) -> int:
        """Bytes in memory that make a file."""
        return _FILE_BYTES

    def write(self, blocks: Iterable[Any], ctx: Any) -> None:
        """Writes a file; runs in a task."""
        if not self.path.is_dir():
            raise UsageError(
                f"--output_path: a node of the cluster has no access to {self.path.parent}: "
                "name a folder that all of them share"
            )
        self.write_file(ctx.task_idx, blocks)

    def write_file(self, number: int, tables: Iterable[Any]) -> None:
        """Writes tables of predictions to the file with this number."""
        path = self.path / f"{self.name.stem}-{number:06}{self.name.suffix}"
        with atomic_open(path, "wb") as file, self.file_format.appending(file) as append:
            for table in tables:
                if len(table):  # an empty shard gives a table without columns
                    append(self._content(table))

    def _content(self, table: Any) -> Any:
        if not isinstance(self.file_format, CsvFormat):
            return table
        rows = []
        for row in table.to_pylist():
            label_id, label, confidence = (row[column] for column in PREDICTION_COLUMNS)
            rows.append((row[self.text_column], (label_id, label, f"{confidence:.6f}"), row))
        return self.file_format.batch(rows)

    def on_write_complete(self, write_result: Any) -> None:
        """Stores the number of rows."""
        self.num_rows = int(write_result.num_rows)
