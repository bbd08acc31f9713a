"""DataConfig -> the examples of each split: locates the data and holds out missing splits."""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from featherweight.data.examples import Examples, divided, hold_out, read_examples
from featherweight.data.hub_dataset import load_hub
from featherweight.data.labels import LABELS_FILE, parse_names, read_names
from featherweight.data.rows import KNOWN_FORMATS, file_format, file_stem, open_rows
from featherweight.errors import DataError, UsageError
from featherweight.hub.client import HUB_ID

logger = logging.getLogger("featherweight")
T = TypeVar("T")

BUNDLED = "bundled"
CORPUS = Path(__file__).parents[1] / "corpus"
HELD_OUT = 0.1  # share of the texts for a split that the data does not have
SEED = 0
_SPLITS = {"train": "train", "test": "test"} | dict.fromkeys(
    ("validation", "valid", "val", "dev"), "validation"
)
_UNSAFE = re.compile(r"[^\w.-]+")  # characters to avoid in a file name


@dataclass(frozen=True)
class DataConfig:
    """Data and its columns."""

    data: str = BUNDLED
    """Hub id (dair-ai/emotion), folder with train, validation and test files, single file, or
    "bundled"."""

    train_path: Path | None = None
    """Training file, instead of --data: .csv, .tsv, .jsonl, .parquet or .txt, optionally .gz."""

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
    """Remove training texts that also occur in validation or test."""


@dataclass(frozen=True)
class Source:
    """Data as read, before labels are mapped to class ids."""

    name: str  # short and valid as a file name
    parts: dict[str, Examples]  # by split: train, validation (perhaps empty), test if available
    names: tuple[str, ...]  # class names that the data defines, in id order; may be empty
    names_from: str  # their origin, for error messages


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
    if not HUB_ID.fullmatch(config.data):
        raise DataError(f"no such file or folder: {config.data}")
    return _hub(config)


def _named_files(config: DataConfig) -> Source:
    if config.data != BUNDLED:
        raise UsageError("--data cannot be combined with --train_path, --val_path or --test_path")
    if config.train_path is None:
        raise UsageError("--val_path and --test_path require --train_path")
    flags = {"train": config.train_path, "validation": config.val_path, "test": config.test_path}
    paths = {split: path.expanduser() for split, path in flags.items() if path is not None}
    return _with_validation(_read_files(_file_title(paths["train"]), paths, config))


def _folder(folder: Path, name: str, config: DataConfig) -> Source:
    files = {path.name: path for path in sorted(folder.iterdir()) if file_format(path)}
    paths = _by_split(str(folder), {name: path for name, path in files.items() if path.is_file()})
    if "train" not in paths:
        raise DataError(
            f"{folder} has no train file; a data folder contains train, and optionally validation "
            f"and test, with one of the extensions {KNOWN_FORMATS}"
        )
    return _with_validation(_read_files(name, paths, config))


def _one_file(path: Path, config: DataConfig) -> Source:
    source = _read_files(_file_title(path), {"train": path}, config)
    if parts := divided(source.parts["train"], _SPLITS):
        sizes = ", ".join(f"{len(examples)} {split}" for split, examples in parts.items())
        logger.info(f"{path} is split by its column 'split': {sizes} texts")
        return _with_validation(replace(source, parts=parts))
    remaining, test = hold_out(source.parts["train"], HELD_OUT, SEED)
    train, validation = hold_out(remaining, HELD_OUT / (1 - HELD_OUT), SEED)
    logger.info(
        f"{path} is split 80/10/10 into {len(train)} training, {len(validation)} validation and "
        f"{len(test)} test texts, stratified, seed {SEED}"
    )
    return replace(source, parts={"train": train, "validation": validation, "test": test})


def _hub(config: DataConfig) -> Source:
    hub_tables, class_names = load_hub(config.data, config.text_column, config.label_column)
    tables = _by_split(config.data, hub_tables)
    if "train" not in tables:
        raise DataError(f"{config.data} has no train split on the Hub")
    parts = {
        split: read_examples(table, config.text_column, config.label_column, split == "test")
        for split, table in tables.items()
    }
    names, names_from = parse_names(config.labels), "--labels"
    if not names:
        names, names_from = class_names, "the Hub"
    name = config.data.rpartition("/")[2]
    return _with_validation(Source(name, parts, names, names_from))


def _read_files(name: str, paths: Mapping[str, Path], config: DataConfig) -> Source:
    names, names_from = parse_names(config.labels), "--labels"
    if not names:
        labels_file = paths["train"].parent / LABELS_FILE
        names, names_from = read_names(labels_file), str(labels_file)
    parts = {}
    for split, path in paths.items():
        with open_rows(path) as rows:
            columns = config.text_column, config.label_column
            parts[split] = read_examples(rows, *columns, optional_labels=split == "test")
    return Source(_UNSAFE.sub("-", name) or "data", parts, names, names_from)


def _file_title(path: Path) -> str:
    """Returns "reviews" for reviews.csv, and the folder's name for a file named train.csv."""
    stem = file_stem(path)
    return path.resolve().parent.name if stem.lower() in _SPLITS else stem


def _by_split(origin: str, candidates: Mapping[str, T]) -> dict[str, T]:
    """Maps files or Hub splits, given by name, to train, validation and test."""
    chosen: dict[str, str] = {}
    for name in candidates:
        split = _SPLITS.get(file_stem(Path(name)).lower())
        if split in chosen:
            raise DataError(
                f"{origin} has two candidates for {split}, {chosen[split]} and {name}: "
                "keep one, or name the files with --train_path, --val_path and --test_path"
            )
        if split:
            chosen[split] = name
    return {split: candidates[name] for split, name in chosen.items()}


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
