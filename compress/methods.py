"""The ways to make a model smaller or faster, by name; two of them fit transformers too."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from compress.config import CompressConfig, HalfConfig, Name
from compress.distillation import distill
from compress.half import halve
from compress.onnx_classifier import OnnxClassifier
from compress.pruning import HEAD, prune
from compress.quantisation import int4_storage, int8_storage, quantise, train_quantised
from featherweight.classifier import Classifier
from featherweight.dataset import Dataset
from featherweight.errors import MissingExtraError
from featherweight.run import Run
from lstm.classifier import TextClassifier

Make = Callable[[Any, Run, CompressConfig, Dataset, Path], TextClassifier | OnnxClassifier]

FASTER = "speed on the CPU"  # a gain that every variant has to prove


@dataclass(frozen=True)
class Method:
    """A way to make a model smaller.

    Attributes:
        gain: Where what is gained is real.
        make: Takes the model, its run, the flags, the data, and a folder to go on from after a
            kill; returns the variant.
        fits_transformers: Whether it fits fine-tuned transformers as well as LSTMs.
    """

    gain: str
    make: Make
    fits_transformers: bool = False


def _pruned_int8(
    classifier: TextClassifier, origin: Run, config: CompressConfig, data: Dataset, workspace: Path
) -> TextClassifier:
    storage = int8_storage(classifier) | {HEAD: "fp32"}
    return prune(classifier, config, data, workspace, "prune+int8", storage)


def _exported(
    classifier: Classifier, method: str, quantised: bool, workspace: Path
) -> OnnxClassifier:
    try:
        from compress.onnx_export import export
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "onnx", "onnx") from None
    return export(classifier, quantised, method, workspace)


METHODS: Mapping[Name, Method] = MappingProxyType(
    {
        "fp16": Method(
            "size everywhere, speed on CUDA only",
            lambda it, *_: halve(it, HalfConfig("fp16")),
        ),
        "bf16": Method(
            "size everywhere, speed on CUDA only",
            lambda it, *_: halve(it, HalfConfig("bf16")),
        ),
        "int8": Method("size only", lambda it, *_: quantise(it, int8_storage(it), "int8")),
        "int4": Method("size only", lambda it, *_: quantise(it, int4_storage(it), "int4")),
        "qat": Method(
            "size only",
            lambda it, _, config, data, workspace: train_quantised(
                it, int8_storage(it), "qat", config, data, workspace
            ),
        ),
        "qat-int4": Method(
            "size only",
            lambda it, _, config, data, workspace: train_quantised(
                it, int4_storage(it), "qat-int4", config, data, workspace
            ),
        ),
        "prune": Method(
            "size only",
            lambda it, _, config, data, workspace: prune(it, config, data, workspace, "prune"),
        ),
        "prune+int8": Method("size only", _pruned_int8),
        "distill": Method("quality", distill),
        "onnx": Method(
            FASTER,
            lambda it, _, __, ___, workspace: _exported(it, "onnx", False, workspace),
            fits_transformers=True,
        ),
        "onnx-int8": Method(
            f"size everywhere, {FASTER}",
            lambda it, _, __, ___, workspace: _exported(it, "onnx-int8", True, workspace),
            fits_transformers=True,
        ),
    }
)
