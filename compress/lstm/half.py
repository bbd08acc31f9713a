"""Half precision of an LSTM: every number in 16 bits, half the bytes on disk."""

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from featherweight.errors import UsageError
from featherweight.loading import load
from lstm.classifier import TextClassifier

logger = logging.getLogger("featherweight")


def halve(classifier: TextClassifier, dtype: Literal["fp16", "bf16"]) -> TextClassifier:
    """Returns a copy whose numbers are stored in 16 bits.

    CUDA also computes in 16 bits. CPUs have no fast half-precision LSTM: there the rounded numbers
    are computed in 32 bits, so quality changes as on CUDA, and speed does not.

    Raises:
        UsageError: The classifier is compressed already.
    """
    if classifier.stored_dtype != "fp32":
        raise UsageError(
            f"{classifier.name} is stored in {classifier.stored_dtype} already: "
            "compress the run it was made from"
        )
    if classifier.device == "cpu":
        logger.info("%s: stored in 16 bits; on the CPU it computes in fp32", dtype)
    module = copy.deepcopy(classifier.module)
    return classifier.with_network(f"{classifier.name} ({dtype})", module, dtype)


@contextmanager
def temporary_fp16_copy(weights: Path) -> Iterator[list[Path]]:
    """Yields a temporary fp16 copy of an fp32 LSTM, or nothing for other weights."""
    classifier = load(weights, "cpu")
    if not isinstance(classifier, TextClassifier) or classifier.stored_dtype != "fp32":
        yield []
        return
    with TemporaryDirectory() as folder:
        path = Path(folder) / "fp16.safetensors"
        halve(classifier, "fp16").save(path)
        yield [path]
