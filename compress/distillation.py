"""Distillation: a student, trained anew on what teachers answer.

The loss is alpha · cross-entropy with the labels + (1 - alpha) · T² · KL(teacher ‖ student), both
softened by the temperature T; several teachers count as the mean of their softened answers. Texts
without a label have the second part only.

Source: Hinton et al. (2015), Distilling the Knowledge in a Neural Network.
"""

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional

from compress.config import CompressConfig, DistillConfig
from compress.method import Variant
from compress.teachers import ANSWERS, UNLABELLED, Lesson, ask, forget_others
from featherweight.classifier import Classifier
from featherweight.dataset import Dataset
from featherweight.device import seed_everything
from featherweight.errors import UsageError
from featherweight.experiment import resolved
from featherweight.run import CHECKPOINT, CHECKPOINTS, CONFIG, Run
from featherweight.testing import trained_on
from lstm.classifier import TextClassifier, model_config
from lstm.config import PRESETS, ModelConfig, OptimizationConfig, preset
from lstm.encoder import LSTMClassifier
from lstm.tokenizer import token_ids, train_tokenizer
from lstm.training import EncodedSplit, Loss, cross_entropy, fit

LEARNED = "learned.json"  # file of the workspace: what the training that it keeps learns from


class Student(Protocol):
    """What learns."""

    @property
    def sha256(self) -> str:
        """Hex digest of what it knows before the training, beside what the flags say."""
        ...

    @property
    def run_config(self) -> Mapping[str, Any]:
        """What `config.json` of its run says: its kind, its data, the flags of its training."""
        ...

    def learn(
        self, name: str, lesson: Lesson, dataset: Dataset, config: DistillConfig, workspace: Path,
        device: str,
    ) -> Variant:  # fmt: skip
        """Trains a new network, or goes on with one that was cut off.

        Args:
            name: What tables call it.
            lesson: What it learns from.
            dataset: Its validation split chooses the best epoch.
            config: Temperature and alpha.
            workspace: Folder that keeps the state of the training.
            device: "cpu" or "cuda".
        """
        ...


class _Graduate(Variant, Protocol):
    """A variant whose run has a config of its own, not its origin's."""

    run_config: Mapping[str, Any]


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
    lesson = ask(teachers, dataset, config, workspace.parent / ANSWERS, classifier.device)
    learned = {
        "student": student.sha256,
        "lesson": lesson.sha256,
        "validation": dataset.validation.sha256,
    }
    _go_on_only_with(learned, Run(workspace))
    name = f"{classifier.name} (distill)"
    graduate = cast(
        _Graduate, student.learn(name, lesson, dataset, config, workspace, classifier.device)
    )
    graduate.run_config = student.run_config
    forget_others(lesson)
    return graduate


def distillation_loss(
    logits: Tensor, soft: Tensor, from_labels: Tensor | None, config: DistillConfig
) -> Tensor:
    """Returns the loss () of a batch by the formula above.

    Args:
        logits: (B, C) of the student.
        soft: (B, C) mean probabilities of the teachers at the temperature.
        from_labels: () loss of those that have a label; None: none has.
        config: Temperature and alpha.
    """
    student = functional.log_softmax(logits / config.temperature, dim=1)
    taught = functional.kl_div(student, soft, reduction="batchmean")
    from_teachers = (1 - config.alpha) * config.temperature**2 * taught
    return from_teachers if from_labels is None else config.alpha * from_labels + from_teachers


def flags_of_data(origin: Run, config: CompressConfig) -> dict[str, Any]:
    """Returns the flags that any student has from the run and the command.

    Those are the run's data and the length at which its texts are cut, seed and device.
    """
    return {
        **asdict(trained_on(origin)),
        "max_length": origin.read_json(CONFIG)["max_length"],
        "seed": config.seed,
        "device": config.device,
    }


@dataclass(frozen=True)
class LSTMStudent:
    """An LSTM with weights of its own.

    Attributes:
        tokenizer: Its words.
        architecture: Its shape.
        training: Numbers of its training.
        run_config: See `Student`.
    """

    tokenizer: Tokenizer
    architecture: ModelConfig
    training: OptimizationConfig
    run_config: Mapping[str, Any]

    @classmethod
    def like(cls, classifier: TextClassifier, origin: Run, config: CompressConfig) -> "LSTMStudent":
        """Returns one with the words, the shape and the training of a run."""
        flags: dict[str, Any] = origin.read_json(CONFIG) | {"seed": config.seed}
        flags["learning_rate"] = config.retraining_rate or flags["learning_rate"]
        training = {field.name: flags[field.name] for field in fields(OptimizationConfig)}
        return cls(classifier.tokenizer, classifier.config, OptimizationConfig(**training), flags)

    @classmethod
    def of_preset(cls, origin: Run, config: CompressConfig, dataset: Dataset) -> "LSTMStudent":
        """Returns one as `train` makes it, with a vocabulary learned from the training split."""
        flags = flags_of_data(origin, config)
        if config.retraining_rate:
            flags["learning_rate"] = config.retraining_rate
        training = preset(config.student, **flags)  # type: ignore[arg-type]  # a key of PRESETS
        tokenizer = train_tokenizer(dataset.train.texts, training)
        return cls(tokenizer, model_config(training), training, resolved(training))

    @property
    def sha256(self) -> str:
        """See `Student`; its weights are drawn anew."""
        return hashlib.sha256(self.tokenizer.to_str().encode()).hexdigest()

    def learn(
        self, name: str, lesson: Lesson, dataset: Dataset, config: DistillConfig, workspace: Path,
        device: str,
    ) -> TextClassifier:  # fmt: skip
        """See `Student`."""
        torch.set_num_threads(1)  # as in `train`
        seed_everything(self.training.seed)
        labels = dataset.labels
        module = LSTMClassifier(self.tokenizer.get_vocab_size(), len(labels), self.architecture)
        validation = dataset.validation
        fit(
            module,
            EncodedSplit(token_ids(self.tokenizer, lesson.texts)[0], lesson.labels),
            EncodedSplit(token_ids(self.tokenizer, validation.texts)[0], validation.labels),
            self.training,
            device,
            workspace / CHECKPOINT,
            loss=_loss(
                cross_entropy(dataset.train.labels, len(labels), self.training, device),
                lesson,
                config,
                device,
            ),
        )
        return TextClassifier(name, labels, self.tokenizer, module, self.architecture, device)


def _loss(from_labels: Loss, lesson: Lesson, config: DistillConfig, device: str) -> Loss:
    """Returns the loss of a batch, given its rows in the lesson.

    Args:
        from_labels: The loss that training without teachers has.
        lesson: Where labels and answers are looked up.
        config: Temperature and alpha.
        device: "cpu" or "cuda".
    """
    soft = torch.from_numpy(lesson.soft).to(device)
    has_label = (lesson.labels != UNLABELLED).tolist()

    def loss(logits: Tensor, rows: list[int]) -> Tensor:
        places = [place for place, row in enumerate(rows) if has_label[row]]
        known = from_labels(logits[places], [rows[it] for it in places]) if places else None
        return distillation_loss(logits, soft[rows], known, config)

    return loss


def _student(
    classifier: Classifier, origin: Run, config: CompressConfig, dataset: Dataset
) -> Student:
    """Returns what is to learn, before teachers are asked for minutes."""
    if config.student in PRESETS:
        return LSTMStudent.of_preset(origin, config, dataset)
    if config.student:
        from compress.transformer_distillation import TransformerStudent

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
