"""The methods that fit a fine-tuned transformer, by name."""

from collections.abc import Mapping

from compress.config import Name
from compress.distillation.distill import distill, student_config
from compress.method import CPU, SIZE, SIZE_AND_CPU, SIZE_AND_CUDA, Method
from compress.onnx.methods import export_onnx
from compress.transformer import bnb_int8
from compress.transformer.half import halve
from compress.transformer.pruning import prune, prune_int8
from compress.transformer.qlora import train_adapters
from compress.transformer.quantization import quantize, train_quantized

_SIZE_AND_BF16 = "size everywhere, speed on CUDA and on CPUs with instructions for bf16"

METHODS: Mapping[Name, Method] = {
    "fp16": Method(SIZE_AND_CUDA, halve),
    "bf16": Method(_SIZE_AND_BF16, halve),
    "int8": Method(SIZE_AND_CPU, quantize, faster_on_cpu=True, uses_int8_mode=True),
    "qat": Method(SIZE_AND_CPU, train_quantized, faster_on_cpu=True, uses_int8_mode=True),
    "prune": Method(SIZE, prune),
    "prune+int8": Method(SIZE, prune_int8),
    "bnb-int8": Method(SIZE, bnb_int8.quantize),
    "qlora": Method(SIZE, train_adapters),
    "distill": Method(SIZE_AND_CPU, distill, faster_on_cpu=True, run_config=student_config),
    "onnx": Method(CPU, export_onnx, faster_on_cpu=True),
    "onnx-int8": Method(SIZE_AND_CPU, export_onnx, faster_on_cpu=True),
    "static-int8": Method(SIZE_AND_CPU, export_onnx, faster_on_cpu=True),
}
