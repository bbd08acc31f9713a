"""int8 and int4 of an LSTM: matrices in integers, with or without training; biases in 16 bits.

The formats are those of `lstm.storage`. Numbers are stored as integers and computed in fp32, so
only the file becomes smaller.
"""

import copy
from collections.abc import Callable
from pathlib import Path

from compress.config import CompressConfig
from compress.lstm.retraining import retrain
from compress.origin import Origin
from lstm.classifier import TextClassifier
from lstm.projection import as_stored
from lstm.storage import Format

Storage = dict[str, Format]  # format of each parameter, by its name
StorageOf = Callable[[TextClassifier], Storage]

_RATE = 1e-4  # small, to adapt the weights to rounding and not to train them again


def int8_storage(classifier: TextClassifier) -> Storage:
    """Returns the formats of int8: matrices row by row, biases in fp16."""
    return {
        name: "int8" if parameter.dim() == 2 else "fp16"
        for name, parameter in classifier.module.named_parameters()
    }


def int4_storage(classifier: TextClassifier) -> Storage:
    """Returns the formats of int4: embeddings in groups of 32, the rest as in int8."""
    return {**int8_storage(classifier), "embedding.weight": "int4"}


def quantize(classifier: TextClassifier, storage: Storage, method: str) -> TextClassifier:
    """Returns a copy of an fp32 LSTM in other formats, with the method as suffix of its name."""
    module = copy.deepcopy(classifier.module)
    return classifier.with_network(f"{classifier.name} ({method})", module, storage)


def train_quantized(
    origin: Origin, config: CompressConfig, workspace: Path, storage_of: StorageOf
) -> TextClassifier:
    """Returns a copy in other formats after quantization-aware training.

    Every step computes with the rounded weights, so the result predicts exactly as in training. If
    no epoch is better on validation than rounding alone, the weights are only rounded.
    """
    storage = storage_of(origin.classifier)
    trained = retrain(
        origin.classifier, config, origin.dataset, workspace, as_stored(storage), _RATE
    )
    variant = quantize(trained, storage, config.method)
    rounded = quantize(origin.classifier, storage, config.method)
    return max(variant, rounded, key=origin.macro_f1)
