"""`predict --engine ray`: a folder of shards, answered by a bundle on every machine of a cluster.

Tasks read the shards and write the answers as those of one file are read and written; between them
stand actors that hold the bundle. Each machine has featherweight[ray] installed and sees both
folders; the bundle is sent to it.
"""

import json
import logging
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow
import ray
from ray.data import ActorPoolStrategy, Datasink

from edge.cluster.session import cluster
from edge.runtime import FACTS, Bundle, read
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

_NAMES = {"--csv": (".csv", ".csv.gz", ".tsv", ".tsv.gz"), "--parquet": (".parquet",)}
_READ_ROWS = 1_024
_BLOCK_BYTES = 2**23  # in memory, of rows that an actor answers at a time
_FILE_BYTES = 2**25  # in memory, of answers that are worth a file
# An actor counts as half of a CPU, so that there is one on each and room for those who read and
# write; with a single CPU, it would take that and wait for ever.
_ACTOR_CPUS, _TASK_CPUS = 0.5, 0.25


def predict_shards(config: PredictConfig) -> None:
    """Writes the answers to a folder of files into another folder, in files of the same format.

    In the order of their names, the new files hold the rows of the shards in the order of theirs.
    They are in place once all of them are whole; an error or a kill leaves none.

    Raises:
        UsageError: Flags do not fit together, the place of the answers is taken, or no cluster
            answers.
        WeightsError: The weights are no bundle, or a damaged one.
        DataError: A shard cannot be used.
        FeatherweightError: Ray gave up.
    """
    flag, folder = _input(config)
    beside = folder.resolve()
    output_path = config.output_path or beside.with_name(f"{beside.name}_predictions")
    _require_place(output_path)
    weights = config.weights or newest_or_pretrained(config.output_dir)
    if not is_bundle(weights):
        raise WeightsError(
            f"--engine ray takes a bundle, and {weights} is none: export it first "
            f"(featherweight export --weights {weights})"
        )
    bundle = read(weights)
    shards = _shards(flag, folder)
    schema = _common_schema(shards, config.text_column)
    with open_rows(shards[0]) as rows:
        name = Path(f"part{_NAMES[flag][0]}")
        answers = output_format(name, rows, config.text_column, config.raw)
    with atomic_directory(output_path.resolve()) as whole, cluster(__name__):
        sink = _Folder(whole, name, answers, config.text_column)
        _run(shards, schema, bundle, sink, config)
        if not sink.rows:
            sink.write_file(0, [])
        for cut_off in whole.glob(".*"):  # by the death of a task, which was done anew
            cut_off.unlink()
    logger.info("%d rows answered: %s", sink.rows, output_path)


def _input(config: PredictConfig) -> tuple[str, Path]:
    """Returns the folder of shards, and the flag that names it."""
    for what, given in (
        ("a text", config.texts),
        ("--jsonl", config.jsonl),
        ("--resume", config.resume),
    ):
        if given:
            raise UsageError(f"{what} goes with --engine local, not with ray")
    flags = {"--csv": config.csv, "--parquet": config.parquet}
    folders = [(flag, path) for flag, path in flags.items() if path]
    if len(folders) != 1:
        raise UsageError("--engine ray answers one folder: give --csv or --parquet")
    ((flag, folder),) = folders
    if not folder.is_dir():
        why = "is a file" if folder.exists() else "is not there"
        raise UsageError(f"{flag} {folder} {why}: --engine ray takes a folder of shards")
    return flag, folder


def _require_place(path: Path) -> None:
    if path.is_dir() and path.is_mount():
        raise UsageError(f"--output_path {path} is a mount point: name a folder below it")
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise UsageError(f"--output_path {path} is taken: name a new folder or an empty one")
    if not path.resolve().parent.is_dir():
        raise UsageError(f"--output_path: no folder {path.parent}: make it first")


def _shards(flag: str, folder: Path) -> list[Path]:
    """Returns the files to answer, without the marks that other programs leave beside them."""
    shards = [
        path
        for path in sorted(folder.iterdir())
        if path.name.lower().endswith(_NAMES[flag]) and path.name[0] not in "._"
    ]
    if not shards:
        raise DataError(f"{flag} {folder} holds no file called {' or '.join(_NAMES[flag])}")
    return shards


def _common_schema(shards: Sequence[Path], text_column: str) -> Any:
    """Returns the Arrow schema of the answers, after a look at the head of every shard.

    Raises:
        DataError: A shard is broken, has no column of texts, or other columns than the first.
        UsageError: A column is called as one of the answers.
    """
    common: Any = None
    for shard in shards:
        with open_rows(shard) as rows:
            require_free_columns(rows)
            text_rows(rows, text_column)
            schema = output_schema(rows)
        common = common or schema
        here, there = (dict(zip(it.names, it.types, strict=True)) for it in (schema, common))
        odd = [name for name in {**there, **here} if here.get(name) != there.get(name)]
        if odd:
            raise DataError(
                f"{shard} has other columns than {shards[0]} ({listing(odd)}): "
                "let them have the same names and types"
            )
    return common


def _run(
    shards: Sequence[Path],
    schema: Any,
    bundle: Mapping[str, bytes],
    sink: "_Folder",
    config: PredictConfig,
) -> None:
    paths = [{"path": str(shard.resolve())} for shard in shards]
    actors = max(1, int(ray.cluster_resources().get("CPU", 1)))
    answered = (
        ray.data.from_items(paths, override_num_blocks=len(paths))
        .map_batches(_rows, batch_size=1, fn_args=(schema, config.text_column), num_cpus=_TASK_CPUS)
        .map_batches(
            _Answers,
            fn_constructor_args=(bundle, schema, config.text_column, config.min_confidence),
            batch_format="pyarrow",
            batch_size=None,
            compute=ActorPoolStrategy(min_size=1, max_size=actors),
            num_cpus=_ACTOR_CPUS,
        )
    )
    context = answered.context
    context.execution_options.preserve_order = True
    context.raise_original_map_exception = True
    context.target_max_block_size = _BLOCK_BYTES
    context.print_on_execution_start = False
    context.enable_progress_bars = sys.stderr.isatty()
    answered.write_datasink(sink, ray_remote_args={"num_cpus": _TASK_CPUS})


def _rows(paths: Mapping[str, Any], schema: Any, text_column: str) -> Iterator[Any]:
    """Yields the rows of shards as Arrow tables, each of them checked; run by a task."""
    columns = pyarrow.schema(list(schema)[: -len(PREDICTION_COLUMNS)])
    for path in paths["path"]:
        with open_rows(Path(str(path))) as rows:
            checked = text_rows(rows, text_column)
            while batch := [values for _, _, values in islice(checked, _READ_ROWS)]:
                yield pyarrow.Table.from_pylist(batch, columns)


class _Answers:
    """An actor that holds a bundle."""

    def __init__(
        self, bundle: Mapping[str, bytes], schema: Any, text_column: str, min_confidence: float
    ) -> None:
        self._bundle = Bundle(bundle, json.loads(bundle[FACTS]))
        self._labels = self._bundle.classes_.tolist()
        self._fields = list(schema)[-len(PREDICTION_COLUMNS) :]
        self._text_column = text_column
        self._min_confidence = min_confidence

    def __call__(self, table: Any) -> Any:
        """Returns a table with the columns of the answers added."""
        probabilities = self._bundle.predict_proba(table[self._text_column].to_pylist())
        answers = [
            apply_min_confidence(cell, self._min_confidence)
            for cell in prediction_cells(self._labels, probabilities)
        ]
        labels, names, confidences = zip(*answers, strict=True)
        columns = labels, names, map(float, confidences)
        for field, values in zip(self._fields, columns, strict=True):
            table = table.append_column(field, pyarrow.array(values, field.type))
        return table


class _Folder(Datasink[None]):
    """Where the answers go.

    Attributes:
        rows: How many were written, once all are.
    """

    def __init__(self, path: Path, name: Path, answers: OutputFormat, text_column: str) -> None:
        self.rows = 0
        self._path = path
        self._name = name
        self._answers = answers
        self._text_column = text_column

    @property
    def min_bytes_per_write(self) -> int:
        """Bytes in memory that make a file."""
        return _FILE_BYTES

    def write(self, blocks: Iterable[Any], ctx: Any) -> None:
        """Writes a file; run by a task.

        Raises:
            UsageError: This machine does not see the folder.
        """
        if not self._path.is_dir():
            raise UsageError(
                f"--output_path: a machine of the cluster does not see {self._path.parent}: "
                "name a folder that all of them share"
            )
        self.write_file(ctx.task_idx, blocks)

    def write_file(self, number: int, tables: Iterable[Any]) -> None:
        """Writes tables of answers into the file of that number."""
        path = self._path / f"{self._name.stem}-{number:06}{self._name.suffix}"
        with atomic_open(path, "wb") as file, self._answers.appending(file) as append:
            for table in tables:
                if len(table):  # that of a shard without rows has no columns either
                    append(self._content(table))

    def _content(self, table: Any) -> Any:
        if not isinstance(self._answers, CsvFormat):
            return table
        answered = []
        for row in table.to_pylist():
            label, name, confidence = (row[column] for column in PREDICTION_COLUMNS)
            answered.append((row[self._text_column], (label, name, f"{confidence:.6f}"), row))
        return self._answers.batch(answered)

    def on_write_complete(self, write_result: Any) -> None:
        """Notes how many rows were written."""
        self.rows = int(write_result.num_rows)
