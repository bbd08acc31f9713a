"""The methods that fit a fine-tuned transformer, by name."""

from collections.abc import Mapping
from types import MappingProxyType

from compress.config import Name
from compress.method import FASTER, Method
from compress.onnx_classifier import exported

METHODS: Mapping[Name, Method] = MappingProxyType(
    {
        "onnx": Method(FASTER, lambda it, *given: exported(it, "onnx", False, given[-1])),
        "onnx-int8": Method(
            f"size everywhere, {FASTER}",
            lambda it, *given: exported(it, "onnx-int8", True, given[-1]),
        ),
    }
)
