"""Distillation: a student of the same shape, trained anew on what teachers answer.

The loss is alpha · cross-entropy with the labels + (1 - alpha) · T² · KL(teacher ‖ student), both
softened by the temperature T; several teachers count as the mean of their softened answers. Texts
without a label have the second part only.

Source: Hinton et al. (2015), Distilling the Knowledge in a Neural Network.
"""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from compress.config import CompressConfig, DistillConfig
from compress.retraining import encoded
from featherweight.classifier import Classifier, FloatArray, softmax
from featherweight.dataset import Dataset, text_rows
from featherweight.device import seed_everything
from featherweight.errors import UsageError, WeightsError
from featherweight.kept import kept
from featherweight.loading import load
from featherweight.rows import open_rows
from featherweight.run import CHECKPOINT, CONFIG, Run
from lstm.classifier import TextClassifier
from lstm.config import OptimizationConfig
from lstm.encoder import LSTMClassifier
from lstm.training import Loss, cross_entropy, fit

logger = logging.getLogger("featherweight")

UNLABELLED = -1


def distill(
    classifier: TextClassifier,
    origin: Run,
    config: CompressConfig,
    dataset: Dataset,
    workspace: Path,
) -> TextClassifier:
    """Returns a student with the vocabulary, shape and training flags of an LSTM run.

    Args:
        classifier: The run's model.
        origin: The run, whose `config.json` says how it was trained.
        config: Teachers, temperature, weight of the labels, further texts.
        dataset: What is learned from and chosen on.
        workspace: Folder that keeps answers of teachers, and the state of a training.

    Raises:
        UsageError: A teacher tells other classes apart.
        WeightsError: A teacher cannot be loaded.
        DataError: The file of further texts cannot be used.
    """
    further = _texts(config.unlabelled) if config.unlabelled else []
    texts = [*dataset.train.texts, *further]
    labels = np.concatenate(
        [dataset.train.labels, np.full(len(further), UNLABELLED, dtype=np.int64)]
    )
    teachers = config.teachers or [origin.path]
    answers = [_answers(path, texts, dataset, workspace, classifier.device) for path in teachers]
    softened = np.mean([softmax(logits / config.temperature) for logits in answers], axis=0)
    soft = torch.from_numpy(softened.astype(np.float32)).to(classifier.device)
    torch.set_num_threads(1)  # as in `train`
    seed_everything(config.seed)
    module = LSTMClassifier(
        classifier.tokenizer.get_vocab_size(), len(classifier.labels), classifier.config
    )
    saved = origin.read_json(CONFIG)
    flags = {field.name: saved[field.name] for field in fields(OptimizationConfig)}
    training = OptimizationConfig(**{**flags, "seed": config.seed})
    from_labels = cross_entropy(
        dataset.train.labels, len(classifier.labels), training, classifier.device
    )
    fit(
        module,
        encoded(classifier, texts, labels),
        encoded(classifier, dataset.validation.texts, dataset.validation.labels),
        training,
        classifier.device,
        workspace / CHECKPOINT,
        loss=distillation_loss(from_labels, len(dataset.train), soft, config),
    )
    return classifier.with_network(f"{classifier.name} (distill)", module)


def distillation_loss(
    from_labels: Loss, num_labelled: int, soft: Tensor, config: DistillConfig
) -> Loss:
    """Returns the loss of a batch by the formula above.

    Args:
        from_labels: The loss that training without teachers has.
        num_labelled: Rows from there on have no label.
        soft: (N, C) mean probabilities of the teachers at the temperature.
        config: Temperature and alpha.
    """
    temperature, alpha = config.temperature, config.alpha

    def loss(logits: Tensor, rows: list[int]) -> Tensor:
        student = functional.log_softmax(logits / temperature, dim=1)
        taught = functional.kl_div(student, soft[rows], reduction="batchmean")
        from_teachers = (1 - alpha) * temperature**2 * taught
        labelled = [place for place, row in enumerate(rows) if row < num_labelled]
        if not labelled:
            return from_teachers
        known = from_labels(logits[labelled], [rows[place] for place in labelled])
        return alpha * known + from_teachers

    return loss


def _texts(path: Path) -> list[str]:
    with open_rows(path) as rows:
        return [text for _, text, _ in text_rows(rows, "text")]


def _answers(
    weights: Path, texts: Sequence[str], dataset: Dataset, workspace: Path, device: str
) -> FloatArray:
    """Returns a teacher's logits (N, C) in the order of the data's labels, kept by content."""
    digest = hashlib.sha256(
        "".join(hashlib.sha256(it.encode()).hexdigest() for it in texts).encode()
    )
    digest.update(_weights_file(weights).read_bytes())
    path = workspace.parent / f".logits-{digest.hexdigest()}.safetensors"
    return kept(path, "logits", lambda: _asked(weights, texts, dataset, device))


def _asked(weights: Path, texts: Sequence[str], dataset: Dataset, device: str) -> FloatArray:
    teacher: Classifier = load(weights, device)
    if sorted(teacher.labels) != sorted(dataset.labels):
        raise UsageError(
            f"--teachers {weights} tells {', '.join(teacher.labels)} apart, the student "
            f"{', '.join(dataset.labels)}: choose a teacher of the same classes"
        )
    logger.info("%s: answering %d texts", teacher.name, len(texts))
    columns = [teacher.labels.index(label) for label in dataset.labels]
    return teacher.logits(texts)[:, columns]


def _weights_file(weights: Path) -> Path:
    """Returns the file that holds a teacher's weights."""
    path = weights if weights.is_file() else Run(weights).weights
    if path is None:
        raise WeightsError(f"--teachers {weights}: no weights there")
    return path
