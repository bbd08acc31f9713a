"""An LSTM as the student: trained from random weights on labels and the teachers' probabilities."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from compress.config import CompressConfig, DistillConfig
from compress.distillation.student import distillation_loss, flags_of_data
from compress.distillation.teachers import UNLABELED, DistillationData
from featherweight.data.dataset import Dataset
from featherweight.device import seed_everything
from featherweight.run import CHECKPOINT, CONFIG, Run
from featherweight.training.run_records import resolved
from lstm.classifier import TextClassifier, model_config
from lstm.config import ModelConfig, OptimizationConfig, preset
from lstm.encoder import LSTMClassifier
from lstm.fit import EncodedSplit, Loss, cross_entropy, fit
from lstm.tokenizer import token_ids, train_tokenizer


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
        self, name: str, lesson: DistillationData, dataset: Dataset, config: DistillConfig,
        workspace: Path, device: str,
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


def _loss(from_labels: Loss, lesson: DistillationData, config: DistillConfig, device: str) -> Loss:
    """Returns the loss of a batch, given its rows in the lesson.

    Args:
        from_labels: The loss that training without teachers has.
        lesson: Where labels and answers are looked up.
        config: Temperature and alpha.
        device: "cpu" or "cuda".
    """
    soft = torch.from_numpy(lesson.soft).to(device)
    has_label = (lesson.labels != UNLABELED).tolist()

    def loss(logits: Tensor, rows: list[int]) -> Tensor:
        places = [place for place, row in enumerate(rows) if has_label[row]]
        known = from_labels(logits[places], [rows[it] for it in places]) if places else None
        return distillation_loss(logits, soft[rows], known, config)

    return loss
