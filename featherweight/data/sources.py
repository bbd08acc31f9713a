"""DataConfig -> the examples of each split: locates the data and holds out missing splits."""

import logging
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from featherweight.data.dialect import Dialect
from featherweight.data.examples import SPLIT_COLUMN, Examples, divided, hold_out, read_examples
from featherweight.data.folders import by_split, split_files, title, warn_about_one_shard
from featherweight.data.hub_dataset import HUB_DATA, load_hub
from featherweight.data.labels import LABELS_FILE, control_problem, parse_names, read_names
from featherweight.data.rows import Table, file_format, listing, open_joined
from featherweight.errors import DataError, UsageError

logger = logging.getLogger("featherweight")

BUNDLED = "bundled"
CORPUS = Path(__file__).parents[1] / "corpus"
HELD_OUT = 0.1  # share of the texts for a split that the data does not have
SEED = 0
_UNSAFE = re.compile(r"[^\w.-]+")  # characters to avoid in a file name


@dataclass(frozen=True)
class DataConfig(Dialect):
    """Data and its columns."""

    data: str = BUNDLED
    """Hub id (dair-ai/emotion, or owner/name:configuration@revision), folder with train, validation
    and test files, single file, or "bundled"."""

    train_path: Path | None = None
    """Training file, instead of --data: .csv, .tsv, .jsonl, .json, .parquet, .arrow, .xlsx or .txt,
    optionally compressed."""

    val_path: Path | None = None
    """Validation file; if omitted, 10 % of the training texts are held out."""

    test_path: Path | None = None
    """Test file."""

    text_column: str = "text"
    """Column with the text."""

    label_column: str = "label"
    """Column with the label, a name or an integer."""

    labels: str = ""
    """Comma-separated label names in id order, or emotion for those of dair-ai/emotion; if omitted,
    they are taken from the data."""

    drop_leaks: bool = False
    """Remove training texts that also occur in validation or test, in any spelling."""


@dataclass(frozen=True)
class Source:
    """Data as read, before labels are mapped to class ids."""

    name: str  # short and valid as a file name
    parts: dict[str, Examples]  # by split: train, validation (perhaps empty), test if available
    names: tuple[str, ...]  # class names that the data defines, in id order; may be empty
    names_from: str  # their origin, for error messages
    revision: str = ""  # of a Hub data set, its commit


def find_source(config: DataConfig) -> Source:
    """Finds and reads the data, and logs every choice that the flags left open.

    Raises:
        FeatherweightError: See `load_dataset`.
    """
    if config.train_path or config.val_path or config.test_path:
        return _named_files(config)
    if config.data == BUNDLED:
        logger.info(
            "the bundled corpus is for demonstration only; "
            "to measure quality, use --data dair-ai/emotion"
        )
        return _folder(CORPUS, BUNDLED, config)
    if not config.data:
        raise UsageError("--data is empty: give a Hub id, a folder, a file or bundled")
    path = Path(config.data).expanduser()
    try:
        if path.is_dir():
            return _folder(path, path.resolve().name, config)
        if path.exists() or file_format(path):
            return _one_file(path, config)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    if not HUB_DATA.fullmatch(config.data):
        raise DataError(f"no such file or folder: {config.data}")
    return _hub(config)


def _named_files(config: DataConfig) -> Source:
    if config.data != BUNDLED:
        raise UsageError("--data cannot be combined with --train_path, --val_path or --test_path")
    if config.train_path is None:
        raise UsageError("--val_path and --test_path require --train_path")
    flags = {"train": config.train_path, "validation": config.val_path, "test": config.test_path}
    files = {split: [path.expanduser()] for split, path in flags.items() if path is not None}
    return _with_validation(_read_files(title(files["train"][0]), files, config))


def _folder(folder: Path, name: str, config: DataConfig) -> Source:
    return _with_validation(_read_files(name, split_files(folder), config))


def _one_file(path: Path, config: DataConfig) -> Source:
    warn_about_one_shard(path)
    source = _read_files(title(path), {"train": [path]}, config)
    if len(source.parts) > 1:
        return _with_validation(source)
    remaining, test = hold_out(source.parts["train"], HELD_OUT, SEED)
    train, validation = hold_out(remaining, HELD_OUT / (1 - HELD_OUT), SEED)
    logger.info(
        f"{path} is split 80/10/10 into {len(train)} training, {len(validation)} validation and "
        f"{len(test)} test texts, stratified, seed {SEED}"
    )
    return replace(source, parts={"train": train, "validation": validation, "test": test})


def _hub(config: DataConfig) -> Source:
    tables, revision = load_hub(config.data, config.text_column, config.label_column)
    chosen = by_split(config.data, tables)
    if "train" not in chosen:
        raise DataError(f"{config.data} has no train split on the Hub")
    name = config.data.partition("@")[0].rpartition("/")[2].replace(":", "-")
    return _with_validation(replace(_read(name, chosen, config), revision=revision))


def _read_files(name: str, files: Mapping[str, Sequence[Path]], config: DataConfig) -> Source:
    with ExitStack() as resources:
        tables = {
            split: resources.enter_context(open_joined(paths, config))
            for split, paths in files.items()
        }
        return _read(name, tables, config, files["train"][0].parent / LABELS_FILE)


def _read(
    name: str, tables: Mapping[str, Table], config: DataConfig, labels_file: Path | None = None
) -> Source:
    parts = {
        split: read_examples(table, config.text_column, config.label_column, split == "test")
        for split, table in tables.items()
    }
    own_splits = divided(parts["train"]) if len(parts) == 1 else {}
    if own_splits:
        sizes = ", ".join(f"{len(examples)} {split}" for split, examples in own_splits.items())
        logger.info(f"{tables['train']} is split by its column {SPLIT_COLUMN!r}: {sizes} texts")
    names, names_from = _class_names(tables, config, labels_file)
    return Source(_UNSAFE.sub("-", name) or "data", own_splits or parts, names, names_from)


def _class_names(
    tables: Mapping[str, Table], config: DataConfig, labels_file: Path | None
) -> tuple[tuple[str, ...], str]:
    """Returns the class names in id order, and where they are from: the first that has some."""
    if names := parse_names(config.labels):
        return names, "--labels"
    if labels_file and (names := read_names(labels_file)):
        return names, str(labels_file)
    names = tables["train"].class_names.get(config.label_column, ())
    for table in tables.values():
        others = table.class_names.get(config.label_column, names)
        if others != names:
            raise DataError(
                f"{table} defines the class names {listing(others)}, but {tables['train']} defines "
                f"{listing(names) or 'none'}: convert the ids to names in the data, or list the "
                "names with --labels if the ids mean the same"
            )
    for problem in filter(None, map(control_problem, names)):
        raise DataError(f"{tables['train']}: {problem}")
    return names, str(tables["train"])


def _with_validation(source: Source) -> Source:
    if "validation" in source.parts:
        return source
    train = source.parts["train"]
    remaining, held_out = hold_out(train, HELD_OUT, SEED)
    logger.info(
        f"{source.name} has no validation split: {len(held_out)} of its {len(train)} training "
        f"texts are held out, stratified, seed {SEED}"
    )
    return replace(source, parts=source.parts | {"train": remaining, "validation": held_out})
