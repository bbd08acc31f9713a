"""DataConfig -> the examples of each split: where data is looked for, and what is held out."""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from featherweight.data.examples import Examples, hold_out, read_examples
from featherweight.data.hub_dataset import load_hub
from featherweight.data.labels import LABELS_FILE, parse_names, read_names
from featherweight.data.rows import file_format, file_stem, known_formats, open_rows
from featherweight.errors import DataError, UsageError
from featherweight.hub.client import HUB_ID

logger = logging.getLogger("featherweight")
T = TypeVar("T")

BUNDLED = "bundled"
CORPUS = Path(__file__).parents[1] / "corpus"
HELD_OUT = 0.1  # share of the texts that goes to a split which the data does not bring
SEED = 0
_SPLITS = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}
_UNFIT = re.compile(r"[^\w.-]+")  # what a file name had better not hold


@dataclass(frozen=True)
class DataConfig:
    """Where the texts come from and what their columns are called."""

    data: str = BUNDLED
    """Hub id (dair-ai/emotion), folder of train/validation/test files, one file, or "bundled"."""

    train_path: Path | None = None
    """File of training texts, in place of --data: .csv .tsv .jsonl .parquet .txt, also .gz."""

    val_path: Path | None = None
    """File of validation texts; without it, 10 % of the training texts are held out."""

    test_path: Path | None = None
    """File of test texts."""

    text_column: str = "text"
    """Name of the column that holds the text."""

    label_column: str = "label"
    """Name of the column that holds the label, a name or an integer."""

    labels: str = ""
    """Label names in id order, separated by commas; empty: found in the data."""

    drop_leaks: bool = False
    """Remove from the training texts those that stand in validation or test too."""


@dataclass(frozen=True)
class Source:
    """What was read, before its labels have ids.

    Attributes:
        name: Short and fit for a file name.
        parts: Examples by split; train and validation always, test where there is one.
        names: The class names that came with the data, in id order; empty if none did.
        names_from: Who gave them, for an error message.
    """

    name: str
    parts: dict[str, Examples]
    names: tuple[str, ...]
    names_from: str


def find_source(config: DataConfig) -> Source:
    """Finds and reads the data, and says on the log what it chose by itself.

    Raises:
        DataError: The data cannot be found, reached or read, or a row of it cannot be used.
        UsageError: Flags contradict each other.
        MissingExtraError: The data needs a library that is not installed.
    """
    if config.train_path or config.val_path or config.test_path:
        return _named_files(config)
    if config.data == BUNDLED:
        logger.info(
            "the bundled corpus demonstrates, it does not measure; "
            "the benchmark is --data dair-ai/emotion"
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
        raise UsageError("--data excludes --train_path, --val_path and --test_path: give one kind")
    if config.train_path is None:
        raise UsageError("--val_path and --test_path need a --train_path beside them")
    given = {"train": config.train_path, "validation": config.val_path, "test": config.test_path}
    paths = {split: path.expanduser() for split, path in given.items() if path is not None}
    return _with_validation(_read_files(_file_title(paths["train"]), paths, config))


def _folder(folder: Path, name: str, config: DataConfig) -> Source:
    files = {path.name: path for path in sorted(folder.iterdir()) if file_format(path)}
    paths = _by_split(str(folder), {name: path for name, path in files.items() if path.is_file()})
    if "train" not in paths:
        raise DataError(
            f"{folder} has no train file; a data folder holds train, and maybe validation and "
            f"test, each as one of {known_formats()}"
        )
    return _with_validation(_read_files(name, paths, config))


def _one_file(path: Path, config: DataConfig) -> Source:
    source = _read_files(_file_title(path), {"train": path}, config)
    rest, test = _cut(source.name, source.parts["train"], HELD_OUT)
    train, validation = _cut(source.name, rest, HELD_OUT / (1 - HELD_OUT))
    logger.info(
        f"{path} is split 80/10/10 into {len(train)} training, {len(validation)} validation and "
        f"{len(test)} test texts, stratified, seed {SEED}"
    )
    return replace(source, parts={"train": train, "validation": validation, "test": test})


def _hub(config: DataConfig) -> Source:
    names, names_from = parse_names(config.labels), "--labels"
    found, class_names = load_hub(config.data, config.text_column, config.label_column)
    tables = _by_split(config.data, found)
    if "train" not in tables:
        raise DataError(f"{config.data} has no train split on the Hub")
    parts = {
        split: read_examples(table, config.text_column, config.label_column)
        for split, table in tables.items()
    }
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
            parts[split] = read_examples(rows, config.text_column, config.label_column)
    return Source(_UNFIT.sub("-", name) or "data", parts, names, names_from)


def _file_title(path: Path) -> str:
    """Returns "reviews" for reviews.csv, and the folder's name for a file called train.csv."""
    stem = file_stem(path)
    return path.resolve().parent.name if stem.lower() in _SPLITS else stem


def _by_split(where: str, found: Mapping[str, T]) -> dict[str, T]:
    """Sorts files or Hub splits, given by name, into train, validation and test."""
    chosen: dict[str, str] = {}
    for name in found:
        split = _SPLITS.get(file_stem(Path(name)).lower())
        if split in chosen:
            raise DataError(
                f"{where} has two candidates for {split}, {chosen[split]} and {name}: "
                "keep one, or name the files with --train_path, --val_path and --test_path"
            )
        if split:
            chosen[split] = name
    return {split: found[name] for split, name in chosen.items()}


def _with_validation(source: Source) -> Source:
    if "validation" in source.parts:
        return source
    train = source.parts["train"]
    rest, held_out = _cut(source.name, train, HELD_OUT)
    logger.info(
        f"{source.name} has no validation split: {len(held_out)} of its {len(train)} training "
        f"texts are held out, stratified, seed {SEED}"
    )
    return replace(source, parts=source.parts | {"train": rest, "validation": held_out})


def _cut(name: str, examples: Examples, share: float) -> tuple[Examples, Examples]:
    rest, cut = hold_out(examples, share, SEED)
    if not cut:
        raise DataError(f"{name} has too few texts to hold some out: give it more of each class")
    return rest, cut
