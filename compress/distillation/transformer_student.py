"""A transformer as the student: fine-tuned with a new head on labels and answers of teachers."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.nn import functional

from compress.config import CompressConfig, DistillConfig
from compress.distillation.student import distillation_loss, flags_of_data
from compress.distillation.teachers import (
    UNLABELED,
    DistillationData,
    all_files,
    files_sha256,
)
from featherweight.data.dataset import Dataset, Split
from featherweight.errors import UsageError, WeightsError
from featherweight.run import TRANSFORMER, Run
from featherweight.training.run_records import resolved
from transformer_eval.classifier import NORMALIZER, TransformerClassifier
from transformer_eval.config import FinetuneConfig
from transformer_eval.finetune import tokenizer_and_model, with_rate
from transformer_eval.fit import Rows, fit, tokenized_rows
from transformer_eval.model_files import Files, fetch
from transformer_eval.safe_trainer import Loss


@dataclass(frozen=True)
class TransformerStudent:
    """A pretrained transformer that gets a new head.

    Attributes:
        files: Of the pretrained model.
        training: Numbers of its training, as `finetune` would be given them.
    """

    files: Files
    training: FinetuneConfig

    @classmethod
    def named(cls, origin: Run, config: CompressConfig) -> "TransformerStudent":
        """Returns the one that --student names, and fetches what is missing of its files.

        Raises:
            UsageError: There is no such model, or no epoch to train it.
            WeightsError: Its files cannot be had.
        """
        if not config.retraining_epochs:
            raise UsageError("--retraining_epochs must be at least 1 for a transformer, not 0")
        training = FinetuneConfig(
            model=[config.student],
            epochs=config.retraining_epochs,
            patience=config.retraining_epochs,
            learning_rate=config.retraining_rate,
            **flags_of_data(origin, config),
        )
        try:
            return cls(fetch(config.student), training)
        except (UsageError, WeightsError) as error:  # it knows the flag of other verbs
            raise type(error)(str(error).replace("--model", "--student")) from None

    @property
    def sha256(self) -> str:
        """See `compress.distillation.distill.Student`."""
        return files_sha256(all_files(self.files.folder))

    @property
    def run_config(self) -> Mapping[str, Any]:
        """See `compress.distillation.distill.Student`."""
        return resolved(self.training)

    def learn(
        self, name: str, lesson: DistillationData, dataset: Dataset, config: DistillConfig,
        workspace: Path, device: str,
    ) -> TransformerClassifier:  # fmt: skip
        """See `compress.distillation.distill.Student`."""
        tokenizer, network = tokenizer_and_model(self.training, self.files, dataset)
        trainer = fit(
            network,
            tokenizer,
            dataset,
            with_rate(self.training, self.files),
            Run(workspace),
            device,
            _rows(lesson, tokenizer, getattr(network.config, NORMALIZER, None)),
            _loss(config),
        )
        student = TransformerClassifier(
            name, dataset.labels, self.files.folder, tokenizer, trainer.model, device
        )
        return student.with_network(name, trainer.model, workspace / TRANSFORMER)


def _rows(lesson: DistillationData, tokenizer: Any, normalizer: str | None) -> Rows:
    """Tokenizes a lesson; each row carries what the teachers answer."""
    rows = tokenized_rows(Split("train", lesson.texts, lesson.labels), tokenizer, normalizer)
    return [{**row, "soft": soft} for row, soft in zip(rows, lesson.soft.tolist(), strict=True)]


def _loss(config: DistillConfig) -> Loss:
    """Returns the loss of a batch of such rows."""

    def loss(logits: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        labels = batch["labels"]
        has_label = labels != UNLABELED
        known = None
        if has_label.any():
            known = functional.cross_entropy(logits[has_label], labels[has_label])
        return distillation_loss(logits, batch["soft"], known, config)

    return loss
