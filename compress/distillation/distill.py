"""`distill`: a student is trained on labels and on the predictions of teachers."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compress.config import CompressConfig
from compress.distillation.lstm_student import LSTMStudent
from compress.distillation.student import Student
from compress.distillation.teachers import ANSWERS, remove_stale_answers, teacher_logits
from compress.method import Variant
from featherweight.classifier import Classifier
from featherweight.data.dataset import Dataset
from featherweight.errors import UsageError
from featherweight.run import CHECKPOINT, CHECKPOINTS, Run
from lstm.classifier import TextClassifier
from lstm.config import PRESETS

LEARNED = "learned.json"  # file of the workspace: what the training that it keeps learns from


def distill(
    classifier: Classifier, origin: Run, config: CompressConfig, dataset: Dataset, workspace: Path
) -> Variant:
    """Returns a student: the one that --student names, or the like of an LSTM.

    Args:
        classifier: The run's model.
        origin: The run: the teacher where none is given, and its data flags are the student's.
        config: Student, teachers, temperature, weight of the labels, further texts.
        dataset: What is learned from and chosen on.
        workspace: Folder that keeps the state of a training; answers of teachers lie beside it.

    Raises:
        UsageError: A transformer without --student, an unknown one, or a teacher that tells other
            classes apart.
        WeightsError: A teacher or student cannot be had or loaded.
        DataError: The file of further texts cannot be used.
    """
    student = _student(classifier, origin, config, dataset)
    teachers = config.teachers or [origin.path]
    lesson = teacher_logits(
        teachers, dataset, config, workspace.parent / ANSWERS, classifier.device
    )
    learned = {
        "student": student.sha256,
        "lesson": lesson.sha256,
        "validation": dataset.validation.sha256,
    }
    _go_on_only_with(learned, Run(workspace))
    name = f"{classifier.name} (distill)"
    graduate: Any = student.learn(name, lesson, dataset, config, workspace, classifier.device)
    graduate.run_config = student.run_config
    remove_stale_answers(lesson)
    return graduate


def _student(
    classifier: Classifier, origin: Run, config: CompressConfig, dataset: Dataset
) -> Student:
    """Returns what is to learn, before teachers are asked for minutes."""
    if config.student in PRESETS:
        return LSTMStudent.of_preset(origin, config, dataset)
    if config.student:
        from compress.distillation.transformer_student import TransformerStudent

        return TransformerStudent.named(origin, config)
    if isinstance(classifier, TextClassifier):
        return LSTMStudent.like(classifier, origin, config)
    raise UsageError(
        f"--method distill of a transformer needs --student: {', '.join(PRESETS)}, or a smaller "
        "transformer by registry name, Hub id or folder"
    )


def _go_on_only_with(learned: Mapping[str, str], workspace: Run) -> None:
    """Removes the state of a training that learned something else, or of another student.

    Equal flags do not say that: teachers may have been trained anew, and files changed.
    """
    if workspace.file(LEARNED).is_file() and workspace.read_json(LEARNED) == learned:
        return
    workspace.file(CHECKPOINT).unlink(missing_ok=True)
    shutil.rmtree(workspace.file(CHECKPOINTS), ignore_errors=True)
    workspace.write_json(LEARNED, learned)
