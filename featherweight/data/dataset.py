"""Hub id | folder | file | bundled corpus -> Dataset(train, validation, test)."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from featherweight.classifier import IntArray
from featherweight.data.examples import Examples, text_rows
from featherweight.data.labels import numbered_names, sorted_names
from featherweight.data.rows import listing
from featherweight.data.sources import DataConfig, find_source
from featherweight.errors import DataError, UsageError

__all__ = ["DataConfig", "Dataset", "Split", "load_dataset", "text_rows"]


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
    """

    name: str
    labels: tuple[str, ...]
    train: Split
    validation: Split
    test: Split | None = None

    @property
    def splits(self) -> tuple[Split, ...]:
        """The available splits, in the order train, validation, test."""
        test = () if self.test is None else (self.test,)
        return (self.train, self.validation, *test)

    def identity(self) -> dict[str, Any]:
        """Returns name, labels, and size and SHA-256 of each split, as JSON values."""
        return {
            "name": self.name,
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
        if name not in splits:
            raise UsageError(f"{self.name} has no split {name!r}, only {listing(splits)}")
        return splits[name]


def load_dataset(config: DataConfig, label_names: Sequence[str] | None = None) -> Dataset:
    """Loads texts and labels, and holds out validation texts if the data has no such split.

    Args:
        config: The location of the data.
        label_names: Labels of a trained model, in id order. The data's labels are mapped
            to them by name; integers without names are class ids of the model.

    Raises:
        DataError: The data cannot be found, downloaded or read, or a row is invalid.
        UsageError: Flags contradict each other.
        MissingExtraError: The data needs a library that is not installed.
    """
    source = find_source(config)
    values = set(source.parts["train"].values)
    if label_names is not None:
        labels, origin = tuple(label_names), "the trained model"
    elif len(values) < 2:
        raise DataError(
            f"{source.name}: every training text has the label {listing(values)}; "
            "a classifier needs at least two classes"
        )
    elif source.names:
        labels, origin = source.names, source.names_from
    else:
        labels, origin = sorted_names(values), "the training texts"
    name_of = numbered_names(values, source.names or labels)
    splits = {}
    for name, examples in source.parts.items():
        ids = _class_ids(examples, name_of, labels, origin)
        splits[name] = Split(name, tuple(examples.texts), ids, labels)
    return Dataset(source.name, labels, **splits)


def _class_ids(
    examples: Examples, name_of: Mapping[str, str], labels: tuple[str, ...], origin: str
) -> IntArray:
    id_of = {name: i for i, name in enumerate(labels)}
    names = [name_of.get(value, value) for value in examples.values]
    for number, name in zip(examples.numbers, names, strict=True):
        if name not in id_of:
            raise DataError(
                f"{examples.place(number)}: unknown label {name!r}; "
                f"the labels from {origin} are {listing(labels)}"
            )
    return np.array([id_of[name] for name in names], dtype=np.int64)
