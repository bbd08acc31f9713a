"""The methods that fit an LSTM, by name."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from compress.config import CompressConfig, HalfConfig, Name
from compress.distillation.distill import distill
from compress.lstm.half import halve
from compress.lstm.pruning import HEAD, prune
from compress.lstm.quantization import int4_storage, int8_storage, quantize, train_quantized
from compress.method import FASTER, HALF, SIZE, Method
from compress.onnx.methods import exported
from featherweight.data.dataset import Dataset
from featherweight.run import Run
from lstm.classifier import TextClassifier


def _pruned_int8(
    classifier: TextClassifier, origin: Run, config: CompressConfig, data: Dataset, workspace: Path
) -> TextClassifier:
    storage = int8_storage(classifier) | {HEAD: "fp32"}
    return prune(classifier, config, data, workspace, "prune+int8", storage)


METHODS: Mapping[Name, Method] = MappingProxyType(
    {
        "fp16": Method(HALF, lambda it, *_: halve(it, HalfConfig("fp16"))),
        "bf16": Method(HALF, lambda it, *_: halve(it, HalfConfig("bf16"))),
        "int8": Method(SIZE, lambda it, *_: quantize(it, int8_storage(it), "int8")),
        "int4": Method(SIZE, lambda it, *_: quantize(it, int4_storage(it), "int4")),
        "qat": Method(
            SIZE,
            lambda it, _, config, data, workspace: train_quantized(
                it, int8_storage(it), "qat", config, data, workspace
            ),
        ),
        "qat-int4": Method(
            SIZE,
            lambda it, _, config, data, workspace: train_quantized(
                it, int4_storage(it), "qat-int4", config, data, workspace
            ),
        ),
        "prune": Method(
            SIZE,
            lambda it, _, config, data, workspace: prune(it, config, data, workspace, "prune"),
        ),
        "prune+int8": Method(SIZE, _pruned_int8),
        "distill": Method("quality", distill),
        "onnx": Method(FASTER, lambda it, *given: exported(it, "onnx", False, given[-1])),
        "onnx-int8": Method(
            f"size everywhere, {FASTER}",
            lambda it, *given: exported(it, "onnx-int8", True, given[-1]),
        ),
    }
)
