"""A transformer student: fine-tuned with a new head on labels and the teachers' probabilities."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor
from torch.nn import functional

from compress.config import CompressConfig, DistillConfig
from compress.distillation.student import data_flags, distillation_loss
from compress.distillation.teachers import UNLABELED, DistillationData, content_sha256
from compress.origin import Origin
from featherweight.errors import UsageError
from featherweight.run import Run
from transformer_eval.classifier import TransformerClassifier
from transformer_eval.config import FinetuneConfig
from transformer_eval.finetune import tokenizer_and_model, with_rate
from transformer_eval.fit import fit, tokenized_rows
from transformer_eval.model_files import Files, fetch
from transformer_eval.safe_trainer import Loss


def finetune_flags(origin: Run, config: CompressConfig) -> FinetuneConfig:
    """Returns the options of `finetune` that train the student."""
    return FinetuneConfig(
        model=[config.student],
        **data_flags(origin, config) | config.training_flags(default_rate=0.0),
    )


@dataclass(frozen=True)
class TransformerStudent:
    """A pretrained transformer that gets a new head."""

    files: Files
    training: FinetuneConfig

    @classmethod
    def named(cls, origin: Run, config: CompressConfig) -> "TransformerStudent":
        """Returns the student that --student names; downloads missing files.

        Raises:
            UsageError: There is no such model, or no epoch to train it.
            WeightsError: Its files are not available.
        """
        if not config.retraining_epochs:
            raise UsageError("--retraining_epochs must be at least 1 for a transformer, not 0")
        return cls(fetch(config.student, "--student"), finetune_flags(origin, config))

    @property
    def sha256(self) -> str:
        """Hex digest of the files of the pretrained model."""
        return content_sha256(self.files.folder)

    def learn(
        self, origin: Origin, data: DistillationData, config: CompressConfig, workspace: Path
    ) -> TransformerClassifier:
        """Fine-tunes the model, or resumes the training in the workspace."""
        dataset, device = origin.dataset, origin.classifier.device
        tokenizer, network = tokenizer_and_model(self.training, self.files, dataset)
        rows = tokenized_rows(data.split, tokenizer, network.config)
        trainer = fit(
            network,
            tokenizer,
            dataset,
            with_rate(self.training, self.files),
            Run(workspace),
            [{**row, "soft": soft} for row, soft in zip(rows, data.soft.tolist(), strict=True)],
            _loss(config),
        )
        name, folder = origin.classifier.name, self.files.folder
        student = TransformerClassifier(
            name, dataset.labels, folder, tokenizer, trainer.model, device
        )
        return student.with_network("distill", trainer.model, workspace)


def _loss(config: DistillConfig) -> Loss:
    """Returns the distillation loss of a batch whose rows carry `soft`."""

    def loss(logits: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        labels = batch["labels"]
        has_label = labels != UNLABELED
        known = None
        if has_label.any():
            known = functional.cross_entropy(logits[has_label], labels[has_label])
        return distillation_loss(logits, batch["soft"], known, config)

    return loss
