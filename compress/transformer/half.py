"""Half precision of a transformer: every number in 16 bits, half the bytes on disk."""

import copy
import logging
from pathlib import Path

import torch

from compress.config import CompressConfig
from compress.origin import Origin
from transformer_eval.classifier import TransformerClassifier

logger = logging.getLogger("featherweight")

_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


def halve(origin: Origin, config: CompressConfig, workspace: Path) -> TransformerClassifier:
    """Returns a copy stored in the 16-bit format that the method names.

    CUDA also computes in it, and so do CPUs with bf16 instructions in bf16; elsewhere the rounded
    numbers are computed in 32 bits.
    """
    network = copy.deepcopy(origin.classifier.model).to(_DTYPES[config.method])
    variant = origin.classifier.with_network(config.method, network, workspace)
    if variant.dtype != config.method:
        logger.info("%s: stored in 16 bits; this CPU computes it in fp32", config.method)
    return variant
