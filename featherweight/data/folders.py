"""Folders of data -> the files of each split."""

import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from featherweight.data.rows import KNOWN_FORMATS, file_format, file_stem, listing
from featherweight.errors import DataError, first_line

logger = logging.getLogger("featherweight")
T = TypeVar("T")

_SPLITS = (
    dict.fromkeys(("train", "training"), "train")
    | dict.fromkeys(("validation", "valid", "val", "dev", "eval", "evaluation"), "validation")
    | dict.fromkeys(("test", "testing"), "test")
)
_SHARD = re.compile(r"(.*?)-?(\d{5})-of-(\d{5})")  # as Hub repositories number them
_WORD = re.compile(r"[^\W\d_]+")
_SAVED_STATE = "state.json"  # lists the files of a split that `datasets` saved to disk


def split_files(folder: Path) -> dict[str, list[Path]]:
    """Returns the files of each split of a folder; a split may be in several files.

    Recognized are files named train, validation or test, or with one of these words in the name
    (train_data.csv); shards (train-00000-of-00002.parquet); a folder for each split, also as
    `save_to_disk` of the `datasets` library writes it; and all of these in the subfolder "data".

    Raises:
        DataError: There is no training file, or two candidates for a split.
    """
    for candidate in (folder, folder / "data"):
        splits = _splits_in(candidate) if candidate.is_dir() else {}
        if "train" in splits:
            return splits
    saved = _saved_files(folder)
    if saved:
        return {"train": saved}
    configurations = sorted(
        path.name for path in folder.iterdir() if path.is_dir() and "train" in _splits_in(path)
    )
    if configurations:
        raise DataError(f"{folder} has several data sets: give one of {listing(configurations)}")
    raise DataError(
        f"{folder} has no train file; a data folder contains train, and optionally validation "
        f"and test, with one of the extensions {KNOWN_FORMATS}"
    )


def by_split(origin: str, candidates: Mapping[str, T]) -> dict[str, T]:
    """Maps files or Hub splits, given by name, to train, validation and test.

    A name that is a split takes precedence over a name that only contains one.

    Raises:
        DataError: There are two candidates for a split.
    """
    chosen: dict[str, str] = {}
    for exact in (True, False):
        found: dict[str, str] = {}
        for name in candidates:
            split = split_of(name, exact)
            if not split or split in chosen:
                continue
            if split in found:
                raise DataError(
                    f"{origin} has two candidates for {split}, {found[split]} and {name}: "
                    "keep one, or name the files with --train_path, --val_path and --test_path"
                )
            found[split] = name
        chosen |= found
    return {split: candidates[name] for split, name in chosen.items()}


def split_of(name: str, exact: bool = True) -> str:
    """Returns the split that a file name or a value stands for, or "".

    Args:
        name: Such as "dev.tsv" or "Validation".
        exact: The name is that of a split; otherwise it is enough that it contains one.
    """
    stem = file_stem(Path(name)).lower()
    if exact:
        return _SPLITS.get(stem, "")
    splits = {_SPLITS[word] for word in _WORD.findall(stem) if word in _SPLITS}
    return splits.pop() if len(splits) == 1 else ""


def title(path: Path) -> str:
    """Returns "reviews" for reviews.csv, and the folder's name for a file named train.csv."""
    stem, _, _ = _shard(path)
    return path.resolve().parent.name if split_of(stem) else stem


def warn_about_one_shard(path: Path) -> None:
    """Warns if a file is one of several shards."""
    _, _, count = _shard(path)
    if count > 1:
        logger.warning(f"{path} is one of {count} shards: give its folder to read all of them")


def _splits_in(folder: Path) -> dict[str, list[Path]]:
    files: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.is_file() and file_format(path) and not path.name.startswith("."):
            stem, _, count = _shard(path)
            # Shards share a key; other files are told apart by their full name.
            files.setdefault(stem if count else path.name, []).append(path)
        elif path.is_dir() and split_of(path.name):
            shards = _saved_files(path) or _data_files(path)
            if shards:
                files[path.name] = shards
    for stem, paths in files.items():
        _require_all_shards(folder / stem, paths)
    return by_split(str(folder), files)


def _data_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and file_format(path))


def _saved_files(folder: Path) -> list[Path]:
    """Returns the Arrow files of a split saved by `save_to_disk`, in order."""
    state = folder / _SAVED_STATE
    try:
        names = [file["filename"] for file in json.loads(state.read_bytes())["_data_files"]]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{state} cannot be read ({first_line(error)})") from error
    return [folder / Path(name).name for name in names]


def _shard(path: Path) -> tuple[str, int, int]:
    """Returns the name of a shard without its number, its index and the number of shards."""
    stem = file_stem(path)
    match = _SHARD.fullmatch(stem)
    return (match[1], int(match[2]), int(match[3])) if match else (stem, 0, 0)


def _require_all_shards(name: Path, paths: Sequence[Path]) -> None:
    count = _shard(paths[0])[2]
    missing = sorted(set(range(count)) - {_shard(path)[1] for path in paths})
    if missing:
        raise DataError(
            f"{name}: of {count} shards, {len(missing)} are missing ({_numbers(missing)}): "
            "add them, or name the files with --train_path, --val_path and --test_path"
        )


def _numbers(missing: Iterable[int]) -> str:
    return listing(f"{index:05d}" for index in missing)
