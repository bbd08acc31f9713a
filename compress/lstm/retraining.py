"""Training an LSTM further: after pruning, through rounding, or on what teachers answer."""

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from compress.config import RetrainingConfig
from featherweight.classifier import Classifier
from featherweight.data.dataset import Dataset
from featherweight.device import seed_everything
from featherweight.quality.evaluation import validation_scores
from featherweight.run import CHECKPOINT
from lstm.classifier import TextClassifier
from lstm.config import OptimizationConfig
from lstm.fit import EncodedSplit, fit
from lstm.projection import Projection
from lstm.tokenizer import token_ids

_RATE = 1e-3  # a third of what training starts with


def retrain(
    classifier: TextClassifier,
    config: RetrainingConfig,
    dataset: Dataset,
    workspace: Path,
    projection: Projection | None = None,
    rate: float = _RATE,
) -> TextClassifier:
    """Returns a copy in fp32 whose weights were trained further on the labels.

    The epoch with the best macro-F1 on validation is kept, judged through the projection.

    Args:
        classifier: The trained LSTM.
        config: Numbers of the training.
        dataset: What is learned from and chosen on.
        workspace: Folder that keeps the state of a training that is cut off.
        projection: What the weights go through before they compute.
        rate: Highest step size, where the flags leave it to the method.
    """
    torch.set_num_threads(1)  # as in `train`
    seed_everything(config.seed)
    module = copy.deepcopy(classifier.module).float()
    training = OptimizationConfig(
        epochs=config.retraining_epochs,
        patience=config.retraining_epochs,
        learning_rate=config.retraining_rate or rate,
        seed=config.seed,
        min_steps=1,
    )
    fit(
        module,
        encoded(classifier, dataset.train.texts, dataset.train.labels),
        encoded(classifier, dataset.validation.texts, dataset.validation.labels),
        training,
        classifier.device,
        workspace / CHECKPOINT,
        projection=projection,
    )
    return classifier.with_network(classifier.name, module)


def macro_f1(classifier: Classifier, dataset: Dataset) -> float:
    """Returns what a classifier reaches on validation."""
    split = dataset.validation
    return validation_scores(split.labels, classifier.logits(split.texts))["validation_macro_f1"]


def encoded(classifier: TextClassifier, texts: Sequence[str], labels: np.ndarray) -> EncodedSplit:
    """Returns texts as the ids of a classifier's tokenizer."""
    return EncodedSplit(token_ids(classifier.tokenizer, texts)[0], labels)
