"""Further training of an LSTM: after pruning, or with rounded weights."""

import copy
from pathlib import Path

import torch
from tokenizers import Tokenizer

from compress.config import RetrainingConfig
from featherweight.data.dataset import Dataset, Split
from featherweight.device import seed_everything
from featherweight.run import CHECKPOINT
from lstm.classifier import TextClassifier
from lstm.config import OptimizationConfig
from lstm.fit import EncodedSplit, fit
from lstm.projection import Projection
from lstm.tokenizer import token_ids

_RATE = 1e-3  # a third of the learning rate of `train`


def retrain(
    classifier: TextClassifier,
    config: RetrainingConfig,
    dataset: Dataset,
    workspace: Path,
    projection: Projection | None = None,
    rate: float = _RATE,
) -> TextClassifier:
    """Returns an fp32 copy whose weights were trained further on the labels.

    The epoch with the best macro-F1 on validation, measured with projected weights, is kept.

    Args:
        classifier: The trained LSTM.
        config: Options of the training.
        dataset: Its training split, and the validation split that selects the epoch.
        workspace: Folder for the state of an interrupted training.
        projection: Applied to the weights before each forward pass.
        rate: Peak learning rate unless the flags give one.
    """
    torch.set_num_threads(1)  # as in `train`
    seed_everything(config.seed)
    module = copy.deepcopy(classifier.module).float()
    training = OptimizationConfig(**config.training_flags(rate), min_steps=1)
    fit(
        module,
        encoded(classifier.tokenizer, dataset.train),
        encoded(classifier.tokenizer, dataset.validation),
        training,
        classifier.device,
        workspace / CHECKPOINT,
        projection=projection,
    )
    return classifier.with_network(classifier.name, module)


def encoded(tokenizer: Tokenizer, split: Split) -> EncodedSplit:
    """Returns a split as token ids."""
    return EncodedSplit(token_ids(tokenizer, split.texts)[0], split.labels)
