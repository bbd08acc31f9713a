"""The methods that fit an LSTM, by name."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from compress.config import CompressConfig, Name
from compress.distillation.distill import distill, student_config
from compress.lstm.half import halve
from compress.lstm.pruning import prune, prune_int8
from compress.lstm.quantization import (
    StorageOf,
    int4_storage,
    int8_storage,
    quantize,
    train_quantized,
)
from compress.method import CPU, SIZE, SIZE_AND_CPU, SIZE_AND_CUDA, Method
from compress.onnx.methods import export_onnx
from compress.origin import Origin
from lstm.classifier import TextClassifier


def _quantize(
    origin: Origin, config: CompressConfig, workspace: Path, storage_of: StorageOf
) -> TextClassifier:
    return quantize(origin.classifier, storage_of(origin.classifier), config.method)


METHODS: Mapping[Name, Method] = {
    "fp16": Method(SIZE_AND_CUDA, lambda origin, *_: halve(origin.classifier, "fp16")),
    "bf16": Method(SIZE_AND_CUDA, lambda origin, *_: halve(origin.classifier, "bf16")),
    "int8": Method(SIZE, partial(_quantize, storage_of=int8_storage)),
    "int4": Method(SIZE, partial(_quantize, storage_of=int4_storage)),
    "qat": Method(SIZE, partial(train_quantized, storage_of=int8_storage)),
    "qat-int4": Method(SIZE, partial(train_quantized, storage_of=int4_storage)),
    "prune": Method(SIZE, prune),
    "prune+int8": Method(SIZE, prune_int8),
    "distill": Method("quality", distill, run_config=student_config),
    "onnx": Method(CPU, export_onnx, faster_on_cpu=True),
    "onnx-int8": Method(SIZE_AND_CPU, export_onnx, faster_on_cpu=True),
}
