"""int8 and int4: each matrix in integers, afterwards or learned; biases in 16 bits.

The numbers are those of `lstm.storage`; they are stored as integers and computed in fp32, so what
gets smaller is the file.
"""

import copy
from pathlib import Path

from compress.config import RetrainingConfig
from compress.lstm.retraining import macro_f1, retrain
from featherweight.data.dataset import Dataset
from lstm.classifier import TextClassifier
from lstm.projection import as_stored
from lstm.storage import Format

EMBEDDING = "embedding.weight"
_RATE = 1e-4  # what was found is to be mended, not left


def int8_storage(classifier: TextClassifier) -> dict[str, Format]:
    """Returns the formats of int8: matrices row by row, biases in fp16."""
    return {
        name: "int8" if parameter.dim() == 2 else "fp16"
        for name, parameter in classifier.module.named_parameters()
    }


def int4_storage(classifier: TextClassifier) -> dict[str, Format]:
    """Returns the formats of int4: embeddings in groups of 32, the rest as in int8."""
    return {**int8_storage(classifier), EMBEDDING: "int4"}


def quantize(classifier: TextClassifier, storage: dict[str, Format], method: str) -> TextClassifier:
    """Returns a copy in other formats, named after the method.

    Args:
        classifier: In fp32.
        storage: Format of each parameter.
        method: What stands in brackets behind its name.
    """
    module = copy.deepcopy(classifier.module)
    return classifier.with_network(f"{classifier.name} ({method})", module, storage)


def train_quantized(
    classifier: TextClassifier,
    storage: dict[str, Format],
    method: str,
    config: RetrainingConfig,
    dataset: Dataset,
    workspace: Path,
) -> TextClassifier:
    """Returns a copy in other formats that was trained to be good in them.

    Every step computes with the rounded weights, so what it ends with answers exactly as it did
    in training. If no epoch is better on validation than rounding alone, nothing is learned.

    Args:
        classifier: In fp32.
        storage: Format of each parameter.
        method: What stands in brackets behind its name.
        config: Numbers of the training.
        dataset: What is learned from and chosen on.
        workspace: Folder that keeps the state of a training that is cut off.
    """
    projection = as_stored(storage)
    trained = retrain(classifier, config, dataset, workspace, projection, _RATE)
    learned, start = (quantize(it, storage, method) for it in (trained, classifier))
    return learned if macro_f1(learned, dataset) >= macro_f1(start, dataset) else start
