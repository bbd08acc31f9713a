"""Predictions of teachers: computed once, cached, and softened for the student.

The cache is one hidden folder next to the variants. A file is named by the hash of the teacher's
files and the texts, so that changed teachers or data are computed again.
"""

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from compress.config import CompressConfig
from compress.origin import Origin
from featherweight.classifier import Classifier, FloatArray, softmax
from featherweight.data.dataset import Split, text_rows
from featherweight.data.rows import listing, open_rows
from featherweight.disk.array_cache import cached_array
from featherweight.errors import UsageError, WeightsError
from featherweight.loading import load
from featherweight.run import MODEL, ONNX, TRANSFORMER, Run
from featherweight.weights import FEATURES_FORMAT, LSTM_FORMAT, file_sha256, read_metadata

logger = logging.getLogger("featherweight")

CACHE = ".teachers"  # folder in `compressed`
UNLABELED = -1


@dataclass(frozen=True, eq=False)
class DistillationData:
    """What a student learns from.

    Attributes:
        split: The training split, then the additional texts with the label UNLABELED.
        soft: (N, C) float32, mean probabilities of the teachers at the temperature.
        files: Cached predictions of the teachers.
    """

    split: Split
    soft: FloatArray
    files: tuple[Path, ...]

    @property
    def sha256(self) -> str:
        """Hex digest of texts, labels and probabilities."""
        return hashlib.sha256(self.split.sha256.encode() + self.soft.tobytes()).hexdigest()


def distillation_data(origin: Origin, config: CompressConfig, folder: Path) -> DistillationData:
    """Returns the training split and additional texts with the predictions of the teachers.

    Args:
        origin: The teacher if the config names none; its labels order the columns.
        config: Teachers, temperature and additional texts.
        folder: Folder of the cache.

    Raises:
        UsageError: A teacher has different labels.
        WeightsError: A teacher cannot be loaded.
        DataError: The file of additional texts cannot be used.
    """
    train = origin.dataset.train
    additional = unlabeled_texts(config.unlabelled) if config.unlabelled else []
    texts = (*train.texts, *additional)
    labels = np.concatenate([train.labels, np.full(len(additional), UNLABELED, np.int64)])
    teachers = config.teachers or [origin.run.path]
    key = hashlib.sha256(json.dumps(texts).encode()).hexdigest()
    files = tuple(folder / f"{content_sha256(path, key)}.safetensors" for path in teachers)
    logits = [
        cached_array(file, "logits", partial(_logits, path, texts, origin))
        for file, path in zip(files, teachers, strict=True)
    ]
    soft = np.mean([softmax(array / config.temperature) for array in logits], axis=0)
    return DistillationData(Split("train", texts, labels), soft.astype(np.float32), files)


def remove_stale_predictions(data: DistillationData) -> None:
    """Removes cached predictions of other teachers or other texts."""
    folders = {file.parent for file in data.files}
    cached = {path for folder in folders for path in folder.glob("*.safetensors")}
    for path in cached - set(data.files):
        path.unlink(missing_ok=True)


def unlabeled_texts(path: Path) -> list[str]:
    """Returns the texts of a file, without any labels in it.

    Raises:
        DataError: The file cannot be used.
    """
    with open_rows(path) as rows:
        return [text for _, text, _ in text_rows(rows, "text")]


def _logits(weights: Path, texts: Sequence[str], origin: Origin) -> FloatArray:
    """Returns a teacher's logits (N, C) in the order of the origin's labels."""
    teacher: Classifier = load(weights, origin.classifier.device)
    labels = origin.dataset.labels
    if sorted(teacher.labels) != sorted(labels):
        raise UsageError(
            f"--teachers {weights} has the labels {listing(teacher.labels)}, the student "
            f"{listing(labels)}: choose a teacher with the same labels"
        )
    logger.info("%s: predicting %d texts", teacher.name, len(texts))
    return teacher.logits(texts)[:, [teacher.labels.index(label) for label in labels]]


def content_sha256(weights: Path, prefix: str = "") -> str:
    """Returns the hash of a prefix and of the files that determine a model's predictions.

    Raises:
        WeightsError: There are no weights.
    """
    hashes = [prefix, *map(file_sha256, _files(weights))]
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


def _files(weights: Path) -> list[Path]:
    """Returns the files that determine a model's predictions."""
    if weights.is_file():
        return [weights]
    folder = weights
    if Run(weights).exported:
        folder = weights / ONNX
    elif (weights / TRANSFORMER).is_dir():
        folder = weights / TRANSFORMER
    elif not any(weights.glob("*.safetensors")):
        raise WeightsError(f"--teachers {weights}: there are no weights")
    own = folder / MODEL
    if own.is_file() and read_metadata(own).get("format") in (LSTM_FORMAT, FEATURES_FORMAT):
        return [own]  # self-contained; other files of the run are reports
    return sorted(path for path in folder.iterdir() if path.is_file())
