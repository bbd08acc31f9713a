"""The methods that fit an LSTM, by name."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType

from compress.config import CompressConfig, Name
from compress.distillation.distill import distill, student_config
from compress.lstm.half import halve
from compress.lstm.pruning import prune, prune_int8
from compress.lstm.quantization import int4_storage, int8_storage, quantize, train_quantized
from compress.method import CPU, SIZE, SIZE_AND_CPU, SIZE_AND_CUDA, Method
from compress.onnx.methods import export_fp32, export_int8
from compress.origin import Origin
from lstm.classifier import TextClassifier


def _fp16(origin: Origin, config: CompressConfig, workspace: Path) -> TextClassifier:
    return halve(origin.classifier, "fp16")


def _bf16(origin: Origin, config: CompressConfig, workspace: Path) -> TextClassifier:
    return halve(origin.classifier, "bf16")


def _int8(origin: Origin, config: CompressConfig, workspace: Path) -> TextClassifier:
    return quantize(origin.classifier, int8_storage(origin.classifier), "int8")


def _int4(origin: Origin, config: CompressConfig, workspace: Path) -> TextClassifier:
    return quantize(origin.classifier, int4_storage(origin.classifier), "int4")


METHODS: Mapping[Name, Method] = MappingProxyType(
    {
        "fp16": Method(SIZE_AND_CUDA, _fp16),
        "bf16": Method(SIZE_AND_CUDA, _bf16),
        "int8": Method(SIZE, _int8),
        "int4": Method(SIZE, _int4),
        "qat": Method(SIZE, partial(train_quantized, storage_of=int8_storage)),
        "qat-int4": Method(SIZE, partial(train_quantized, storage_of=int4_storage)),
        "prune": Method(SIZE, prune),
        "prune+int8": Method(SIZE, prune_int8),
        "distill": Method("quality", distill, run_config=student_config),
        "onnx": Method(CPU, export_fp32, faster_on_cpu=True),
        "onnx-int8": Method(SIZE_AND_CPU, export_int8, faster_on_cpu=True),
    }
)
