"""Half precision: every number in 16 bits, half the bytes on disk."""

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import torch

from compress.config import HalfConfig
from featherweight.classifier import Classifier
from featherweight.errors import UsageError
from featherweight.loading import load
from featherweight.run import TRANSFORMER
from lstm.classifier import TextClassifier

if TYPE_CHECKING:  # whoever has only LSTMs may lack its library
    from transformer_eval.classifier import TransformerClassifier

logger = logging.getLogger("featherweight")


_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


def halve(classifier: Classifier, config: HalfConfig) -> TextClassifier:
    """Returns a copy whose numbers are stored in 16 bits.

    CUDA computes in them as well. A CPU has no fast half-precision LSTM: there the rounded
    numbers are computed in 32 bits, so quality changes as on CUDA, and speed does not.

    Raises:
        UsageError: The classifier is no LSTM, or compressed already.
    """
    if not isinstance(classifier, TextClassifier):
        raise UsageError(f"{classifier.name}: half precision fits LSTM runs")
    if classifier.stored_dtype != "fp32":
        raise UsageError(
            f"{classifier.name} is stored in {classifier.stored_dtype} already: "
            "compress the run it was made from"
        )
    if classifier.device == "cpu":
        logger.info("%s: stored in 16 bits; on the CPU it computes in fp32", config.dtype)
    module = copy.deepcopy(classifier.module)
    return classifier.with_network(f"{classifier.name} ({config.dtype})", module, config.dtype)


def halve_transformer(
    classifier: "TransformerClassifier", config: HalfConfig, workspace: Path
) -> "TransformerClassifier":
    """Returns a copy whose numbers are stored in 16 bits.

    CUDA computes in them as well, and so do CPUs with instructions for bf16; elsewhere the rounded
    numbers are computed in 32 bits.

    Args:
        classifier: In fp32.
        config: Which 16 bits.
        workspace: Folder in which it is written.
    """
    network = copy.deepcopy(classifier.model).to(_DTYPES[config.dtype])
    name = f"{classifier.name} ({config.dtype})"
    halved = classifier.with_network(name, network, workspace / TRANSFORMER)
    if halved.dtype != config.dtype:
        logger.info("%s: stored in 16 bits; this CPU computes it in fp32", config.dtype)
    return halved


@contextmanager
def temporary_fp16_copy(weights: Path) -> Iterator[list[Path]]:
    """Yields a temporary fp16 copy of an LSTM in fp32, or nothing for other weights."""
    classifier = load(weights, "cpu")
    if not isinstance(classifier, TextClassifier) or classifier.stored_dtype != "fp32":
        yield []
        return
    with TemporaryDirectory() as folder:
        path = Path(folder) / "fp16.safetensors"
        halve(classifier, HalfConfig("fp16")).save(path)
        yield [path]
