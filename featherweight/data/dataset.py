"""Hub id | folder | file | bundled corpus -> Dataset(train, validation, test)."""

import hashlib
import json
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from featherweight.classifier import IntArray
from featherweight.data.examples import Examples, text_rows
from featherweight.data.label_checks import (
    is_unlabeled,
    remarks,
    require_names,
    unknown_label,
    unsuitable,
    without_nulls,
)
from featherweight.data.labels import canonical, is_id, numbered_names, sorted_names
from featherweight.data.rows import listing
from featherweight.data.sources import DataConfig, Source, find_source
from featherweight.errors import DataError, UsageError, quoted

__all__ = ["DataConfig", "Dataset", "Split", "load_dataset", "text_rows"]

logger = logging.getLogger("featherweight")


@dataclass(frozen=True, eq=False)
class Split:
    """N texts and their labels.

    Attributes:
        name: "train", "validation" or "test".
        texts: The N texts, in the order of the data.
        labels: (N,) int64, the class id of each text.
        label_names: The C label names, in id order.
    """

    name: str
    texts: tuple[str, ...]
    labels: IntArray
    label_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.texts)

    @cached_property
    def sha256(self) -> str:
        """Hex digest of texts and label names, independent of the file format."""
        digest = hashlib.sha256()
        for text, label in zip(self.texts, self.labels.tolist(), strict=True):
            name = self.label_names[label] if self.label_names else str(label)
            digest.update(json.dumps([text, name]).encode() + b"\n")
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Dataset:
    """The splits of one data set.

    Attributes:
        name: Short and valid as a file name.
        labels: The C label names; the index is the class id.
        train: Texts to train on.
        validation: Texts for choosing hyperparameters and checkpoints.
        test: Texts for the final evaluation, or None.
        unlabeled_test: Whether a test split was set aside because it has no labels.
        revision: Commit of a Hub data set, or "".
    """

    name: str
    labels: tuple[str, ...]
    train: Split
    validation: Split
    test: Split | None = None
    unlabeled_test: bool = False
    revision: str = ""

    @property
    def splits(self) -> tuple[Split, ...]:
        """The available splits, in the order train, validation, test."""
        test = () if self.test is None else (self.test,)
        return (self.train, self.validation, *test)

    def identity(self) -> dict[str, Any]:
        """Returns name, labels, commit on the Hub, and size and SHA-256 of each split, as JSON."""
        return {
            "name": self.name,
            **({"revision": self.revision} if self.revision else {}),
            "labels": list(self.labels),
            "splits": {
                split.name: {"n": len(split), "sha256": split.sha256} for split in self.splits
            },
        }

    def split(self, name: str) -> Split:
        """Returns a split by its name.

        Raises:
            UsageError: There is no such split.
        """
        splits = {split.name: split for split in self.splits}
        if name == "test" and self.unlabeled_test:
            raise UsageError(
                f"the test split of {self.name} has no labels to evaluate with: add them, or give "
                "--split validation"
            )
        if name not in splits:
            raise UsageError(f"{self.name} has no split {quoted(name)}, only {listing(splits)}")
        return splits[name]


def load_dataset(config: DataConfig, label_names: Sequence[str] | None = None) -> Dataset:
    """Loads texts and labels, and holds out validation texts if the data has no such split.

    Args:
        config: The location of the data.
        label_names: Labels of a trained model, in id order. The data's labels are mapped
            to them by name, and so are integers, which need names in the data or the flags.

    Raises:
        DataError: The data cannot be found, downloaded or read, or a row is invalid.
        UsageError: Flags contradict each other.
        MissingExtraError: The data needs a library that is not installed.
    """
    source = find_source(config)
    known = {canonical(name) for name in (*source.names, *(label_names or ()))}
    parts = _labeled_parts(source, known)
    train = parts["train"]
    if found := unsuitable(train.values, known, listed=bool(known)):
        value, problem = found
        raise DataError(f"{train.where(value)}: {problem}")
    classes = _classes(source, train, label_names)
    if not parts["validation"]:
        raise DataError(
            f"{source.name} has too few texts to hold some out: add texts to each class, or "
            "choose another column with --label_column"
        )
    splits = {
        split: Split(split, tuple(part.texts), _class_ids(part, classes), classes.names)
        for split, part in parts.items()
    }
    unlabeled_test = parts.keys() != source.parts.keys()
    return Dataset(
        source.name,
        classes.names,
        **splits,
        unlabeled_test=unlabeled_test,
        revision=source.revision,
    )


def _labeled_parts(source: Source, known: Collection[str]) -> dict[str, Examples]:
    """Returns the parts in which all texts have labels; a test split may have none."""
    parts = {
        split: replace(part, values=without_nulls(part.values, known))
        for split, part in source.parts.items()
    }
    test = parts.get("test")
    if test and is_unlabeled(test.values, {*parts["train"].values, *known}):
        del parts["test"]
        logger.info(f"the test split of {source.name} has no labels and is set aside")
    for split, examples in parts.items():
        _require_labels(split, examples)
    return parts


def _require_labels(split: str, examples: Examples) -> None:
    if "" not in examples.values:
        return
    if any(examples.values):
        raise DataError(
            f"{examples.where('')}: no label (an empty cell, NULL, None and NaN are none); add one "
            "or remove the row"
        )
    instead = "; without the split, texts of train are held out" if split == "validation" else ""
    raise DataError(
        f"{examples.where('')}: no label, and no other row of {split} has one: add labels{instead}"
    )


class _Classes(NamedTuple):
    names: tuple[str, ...]  # in id order
    origin: str  # for error messages
    names_of_ids: Mapping[str, str]  # of the integers in the data, where they are positions
    hint: str  # what to do about a label that is not among the names


def _classes(source: Source, train: Examples, label_names: Sequence[str] | None) -> _Classes:
    """Returns the classes: those of the model, or those listed, or those of the training texts."""
    values = set(train.values)
    names_of_ids = numbered_names(values, source.names)
    hint = "ids count the names from 0" if names_of_ids else "rename the label or remove the row"
    if label_names is not None:
        if not source.names:
            require_names(values, label_names, source.name)
        if any(map(is_id, label_names)):  # trained on ids without names: these are its names
            names_of_ids, hint = {}, "train with --labels to give ids names"
        return _Classes(tuple(label_names), "the trained model", names_of_ids, hint)
    if len(values) < 2:
        raise DataError(
            f"{source.name}: every training text has the label {listing(values)}; "
            "a classifier needs at least two classes"
        )
    if source.names:
        return _Classes(source.names, source.names_from, names_of_ids, hint)
    for remark in remarks(train.values):
        logger.warning(remark)
    return _Classes(sorted_names(values), "the training texts", {}, "list all with --labels")


def _class_ids(examples: Examples, classes: _Classes) -> IntArray:
    id_of = {canonical(name): i for i, name in enumerate(classes.names)}
    names = [canonical(classes.names_of_ids.get(value, value)) for value in examples.values]
    for number, name in zip(examples.numbers, names, strict=True):
        if name not in id_of:
            problem = unknown_label(name, classes.names, classes.origin, classes.hint)
            raise DataError(f"{examples.place(number)}: {problem}")
    return np.array([id_of[name] for name in names], dtype=np.int64)
