"""The methods that fit a fine-tuned transformer, by name."""

from collections.abc import Mapping
from types import MappingProxyType

from compress.config import HalfConfig, Name
from compress.distillation.distill import distill
from compress.lstm.half import halve_transformer
from compress.method import FASTER, HALF, SIZE, Method
from compress.onnx.methods import calibrated, exported
from compress.transformer import bnb_int8
from compress.transformer.pruning import prune, prune_int8
from compress.transformer.qlora import train_adapters
from compress.transformer.quantization import quantize, train_quantized

METHODS: Mapping[Name, Method] = MappingProxyType(
    {
        "fp16": Method(
            HALF, lambda it, *given: halve_transformer(it, HalfConfig("fp16"), given[-1])
        ),
        "bf16": Method(
            "size everywhere, speed on CUDA and on CPUs with instructions for bf16",
            lambda it, *given: halve_transformer(it, HalfConfig("bf16"), given[-1]),
        ),
        "int8": Method(None, quantize),
        "qat": Method(None, train_quantized),
        "prune": Method(SIZE, prune),
        "prune+int8": Method(SIZE, prune_int8),
        "bnb-int8": Method(SIZE, bnb_int8.quantize),
        "qlora": Method(SIZE, train_adapters),
        "distill": Method(f"size everywhere, {FASTER}", distill),
        "onnx": Method(FASTER, lambda it, *given: exported(it, "onnx", False, given[-1])),
        "onnx-int8": Method(
            f"size everywhere, {FASTER}",
            lambda it, *given: exported(it, "onnx-int8", True, given[-1]),
        ),
        "static-int8": Method(f"size everywhere, {FASTER}", calibrated),
    }
)
