"""An LSTM student: trained from random weights on labels and the teachers' probabilities."""

import hashlib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from compress.config import CompressConfig, DistillConfig
from compress.distillation.student import data_flags, distillation_loss
from compress.distillation.teachers import UNLABELED, DistillationData
from compress.lstm.retraining import encoded
from compress.origin import Origin
from featherweight.device import seed_everything
from featherweight.run import CHECKPOINT, CONFIG, Run
from lstm.classifier import TextClassifier, model_config
from lstm.config import ModelConfig, OptimizationConfig, TrainConfig, preset
from lstm.encoder import LSTMClassifier
from lstm.fit import Loss, cross_entropy, fit
from lstm.tokenizer import train_tokenizer
from lstm.vectors.embedding import trained_from
from lstm.vectors.vocabulary import vocabulary_vectors


def origin_flags(origin: Run, config: CompressConfig) -> dict[str, Any]:
    """Returns the training flags of an LSTM run, with the seed and rate of the command."""
    flags = {**TrainConfig.before, **origin.read_json(CONFIG), "seed": config.seed}
    flags["learning_rate"] = config.retraining_rate or flags["learning_rate"]
    return flags


def preset_flags(origin: Run, config: CompressConfig) -> TrainConfig:
    """Returns the training flags of a preset on the data of a run."""
    flags = data_flags(origin, config)
    if config.retraining_rate:
        flags["learning_rate"] = config.retraining_rate
    return preset(config.student, **flags)  # type: ignore[arg-type]  # a key of PRESETS


@dataclass(frozen=True)
class LSTMStudent:
    """An LSTM to be trained from random weights."""

    tokenizer: Tokenizer
    architecture: ModelConfig
    training: OptimizationConfig
    vectors: str

    @classmethod
    def like(cls, origin: Origin, config: CompressConfig) -> "LSTMStudent":
        """Returns a student with the tokenizer, shape and training of the origin."""
        flags = origin_flags(origin.run, config)
        training = {field.name: flags[field.name] for field in fields(OptimizationConfig)}
        classifier = origin.classifier
        optimization = OptimizationConfig(**training)
        return cls(classifier.tokenizer, classifier.config, optimization, flags["vectors"])

    @classmethod
    def of_preset(cls, origin: Origin, config: CompressConfig) -> "LSTMStudent":
        """Returns a student as `train` makes it, with a vocabulary of the training split."""
        training = preset_flags(origin.run, config)
        tokenizer = train_tokenizer(origin.dataset.train.texts, training)
        return cls(tokenizer, model_config(training), training, training.vectors)

    @property
    def sha256(self) -> str:
        """Hex digest of its tokenizer; its initial weights follow from the seed."""
        return hashlib.sha256(self.tokenizer.to_str().encode()).hexdigest()

    def learn(
        self, origin: Origin, data: DistillationData, config: CompressConfig, workspace: Path
    ) -> TextClassifier:
        """Trains a new network, or resumes the training in the workspace."""
        torch.set_num_threads(1)  # as in `train`
        seed_everything(self.training.seed)
        dataset, device = origin.dataset, origin.classifier.device
        num_labels = len(dataset.labels)
        module = LSTMClassifier(self.tokenizer.get_vocab_size(), num_labels, self.architecture)
        label_loss = cross_entropy(dataset.train.labels, num_labels, self.training, device)
        folder = origin.run.path.parent
        vectors = vocabulary_vectors(self.vectors, self.tokenizer, device, folder)
        with trained_from(module, vectors):
            fit(
                module,
                encoded(self.tokenizer, data.split),
                encoded(self.tokenizer, dataset.validation),
                self.training,
                device,
                workspace / CHECKPOINT,
                loss=_loss(label_loss, data, config, device),
            )
        name = f"{origin.classifier.name} (distill)"
        return TextClassifier(
            name, dataset.labels, self.tokenizer, module, self.architecture, device
        )


def _loss(label_loss: Loss, data: DistillationData, config: DistillConfig, device: str) -> Loss:
    """Returns the distillation loss of a batch; `label_loss` is that of `train`."""
    soft = torch.from_numpy(data.soft).to(device)
    has_label = (data.split.labels != UNLABELED).tolist()

    def loss(logits: Tensor, rows: list[int]) -> Tensor:
        labeled = [index for index, row in enumerate(rows) if has_label[row]]
        known = None
        if labeled:
            known = label_loss(logits[labeled], [rows[index] for index in labeled])
        return distillation_loss(logits, soft[rows], known, config)

    return loss
