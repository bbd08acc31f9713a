"""`distill`: a student is trained on labels and on the predictions of teachers."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.config import CompressConfig
from compress.distillation.lstm_student import LSTMStudent, origin_flags, preset_flags
from compress.distillation.teachers import CACHE, distillation_data, remove_stale_predictions
from compress.method import Variant
from compress.origin import Origin
from featherweight.errors import UsageError
from featherweight.run import CHECKPOINT, CHECKPOINTS, Run
from featherweight.training.run_records import resolved
from lstm.classifier import TextClassifier
from lstm.config import PRESETS

if TYPE_CHECKING:  # LSTMs do not need its libraries
    from compress.distillation.transformer_student import TransformerStudent

LEARNED = "learned.json"  # in the workspace: hashes of what its training learns from


def distill(origin: Origin, config: CompressConfig, workspace: Path) -> Variant:
    """Returns a student: the one that --student names, or an LSTM of the shape of the origin.

    Raises:
        UsageError: A transformer without --student, an unknown student, or a teacher with
            different labels.
        WeightsError: A teacher or student is not available or cannot be loaded.
        DataError: The file of additional texts cannot be used.
    """
    student = _student(origin, config)
    data = distillation_data(origin, config, workspace.parent / CACHE)
    learned = {
        "student": student.sha256,
        "data": data.sha256,
        "validation": origin.dataset.validation.sha256,
    }
    _resume_only(learned, Run(workspace))
    variant = student.learn(origin, data, config, workspace)
    remove_stale_predictions(data)
    return variant


def student_config(origin: Origin, config: CompressConfig) -> Mapping[str, Any]:
    """Returns `config.json` of a student's run: its kind, its data and its training flags."""
    if config.student in PRESETS:
        return resolved(preset_flags(origin.run, config))
    if config.student:
        from compress.distillation.transformer_student import finetune_flags

        return resolved(finetune_flags(origin.run, config))
    return origin_flags(origin.run, config)


def _student(origin: Origin, config: CompressConfig) -> "LSTMStudent | TransformerStudent":
    """Returns the student; checked before teachers compute for minutes."""
    if config.student in PRESETS:
        return LSTMStudent.of_preset(origin, config)
    if config.student:
        from compress.distillation.transformer_student import TransformerStudent

        return TransformerStudent.named(origin.run, config)
    if isinstance(origin.classifier, TextClassifier):
        return LSTMStudent.like(origin, config)
    raise UsageError(
        f"--method distill of a transformer needs --student: {', '.join(PRESETS)}, or a smaller "
        "transformer by registry name, Hub id or folder"
    )


def _resume_only(learned: Mapping[str, str], workspace: Run) -> None:
    """Removes the state of a training unless it belongs to the same student and data.

    Equal flags are not enough: teachers may have been trained again, and files changed.
    """
    if workspace.file(LEARNED).is_file() and workspace.read_json(LEARNED) == learned:
        return
    workspace.file(CHECKPOINT).unlink(missing_ok=True)
    shutil.rmtree(workspace.file(CHECKPOINTS), ignore_errors=True)
    workspace.write_json(LEARNED, learned)
