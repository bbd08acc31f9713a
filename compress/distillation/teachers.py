"""What teachers answer: asked once, kept by content, softened to what a student learns from.

Answers stand in one hidden folder beside the variants. A file is named after the teacher's files
and the texts, so that a teacher trained anew, or data that changed, is asked for again.
"""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from compress.config import DistillConfig
from featherweight.array_cache import cached_array
from featherweight.classifier import Classifier, FloatArray, IntArray, softmax
from featherweight.data.dataset import Dataset, text_rows
from featherweight.data.rows import open_rows
from featherweight.errors import UsageError, WeightsError
from featherweight.loading import load
from featherweight.run import MODEL, ONNX, TRANSFORMER, Run
from featherweight.weights import FEATURES_FORMAT, LSTM_FORMAT, read_metadata

logger = logging.getLogger("featherweight")

ANSWERS = ".teachers"  # folder in `compressed`
UNLABELED = -1


@dataclass(frozen=True, eq=False)
class DistillationData:
    """What a student learns from: N texts, those of the training split first.

    Attributes:
        texts: The N texts.
        labels: (N,) int64 class ids; UNLABELED where only the teachers say what a text is.
        soft: (N, C) float32, mean probabilities of the teachers at the temperature.
        files: Where the answers of the teachers are kept.
    """

    texts: tuple[str, ...]
    labels: IntArray
    soft: FloatArray
    files: tuple[Path, ...]

    @property
    def sha256(self) -> str:
        """Hex digest of texts, labels and probabilities."""
        digest = hashlib.sha256(_texts_sha256(self.texts).encode())
        digest.update(self.labels.tobytes() + self.soft.tobytes())
        return digest.hexdigest()


def teacher_logits(
    teachers: Sequence[Path], dataset: Dataset, config: DistillConfig, folder: Path, device: str
) -> DistillationData:
    """Returns the training split and further texts with what teachers of any kind answer.

    Args:
        teachers: Runs or files of weights; the mean of their softened answers counts.
        dataset: Whose training split is learned, and whose labels order the columns.
        config: Temperature and further texts.
        folder: Where answers are kept.
        device: Where the teachers compute.

    Raises:
        UsageError: A teacher tells other classes apart.
        WeightsError: A teacher cannot be loaded.
        DataError: The file of further texts cannot be used.
    """
    further = further_texts(config.unlabelled) if config.unlabelled else []
    texts = (*dataset.train.texts, *further)
    unlabelled = np.full(len(further), UNLABELED, dtype=np.int64)
    key = _texts_sha256(texts)
    files = tuple(folder / f"{_answers_sha256(path, key)}.safetensors" for path in teachers)
    answers = [
        cached_array(file, "logits", partial(_asked, path, texts, dataset, device))
        for file, path in zip(files, teachers, strict=True)
    ]
    softened = np.mean([softmax(logits / config.temperature) for logits in answers], axis=0)
    labels = np.concatenate([dataset.train.labels, unlabelled])
    return DistillationData(texts, labels, softened.astype(np.float32), files)


def remove_stale_answers(lesson: DistillationData) -> None:
    """Removes answers beside those of a lesson: of other teachers, or to other texts."""
    folders = {file.parent for file in lesson.files}
    there = {path for folder in folders for path in folder.glob("*.safetensors")}
    for path in there - set(lesson.files):
        path.unlink(missing_ok=True)


def further_texts(path: Path) -> list[str]:
    """Returns the texts of a file, whatever labels it may hold.

    Raises:
        DataError: The file cannot be used.
    """
    with open_rows(path) as rows:
        return [text for _, text, _ in text_rows(rows, "text")]


def _asked(weights: Path, texts: Sequence[str], dataset: Dataset, device: str) -> FloatArray:
    """Returns a teacher's logits (N, C) in the order of the data's labels."""
    teacher: Classifier = load(weights, device)
    if sorted(teacher.labels) != sorted(dataset.labels):
        raise UsageError(
            f"--teachers {weights} tells {', '.join(teacher.labels)} apart, the student "
            f"{', '.join(dataset.labels)}: choose a teacher of the same classes"
        )
    logger.info("%s: answering %d texts", teacher.name, len(texts))
    columns = [teacher.labels.index(label) for label in dataset.labels]
    return teacher.logits(texts)[:, columns]


def _texts_sha256(texts: Sequence[str]) -> str:
    hashes = "".join(hashlib.sha256(text.encode()).hexdigest() for text in texts)
    return hashlib.sha256(hashes.encode()).hexdigest()


def _answers_sha256(weights: Path, texts_sha256: str) -> str:
    return files_sha256(_files(weights), texts_sha256)


def files_sha256(paths: Sequence[Path], begun_with: str = "") -> str:
    """Returns the hex digest of the content of files, behind something else."""
    digest = hashlib.sha256(begun_with.encode())
    for path in paths:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _files(weights: Path) -> list[Path]:
    """Returns the files that a teacher's answers follow from, wherever they lie.

    Raises:
        WeightsError: There are no weights.
    """
    if weights.is_file():
        return [weights]
    if Run(weights).exported:
        return all_files(weights / ONNX)
    if (weights / TRANSFORMER).is_dir():
        return all_files(weights / TRANSFORMER)
    if not any(weights.glob("*.safetensors")):
        raise WeightsError(f"--teachers {weights}: no weights there")
    own = weights / MODEL
    if own.is_file() and read_metadata(own).get("format") in (LSTM_FORMAT, FEATURES_FORMAT):
        return [own]  # which has everything in it; other files of the run tell of its tests
    return all_files(weights)


def all_files(folder: Path) -> list[Path]:
    """Returns the files of a folder, but not of folders in it."""
    return sorted(path for path in folder.iterdir() if path.is_file())
