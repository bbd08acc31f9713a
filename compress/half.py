"""Half precision: every number in 16 bits, half the bytes on disk."""

import copy
import logging

from compress.config import HalfConfig
from featherweight.classifier import Classifier
from featherweight.errors import UsageError
from lstm.classifier import TextClassifier

logger = logging.getLogger("featherweight")


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
