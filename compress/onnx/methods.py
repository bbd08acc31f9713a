"""The methods that export to ONNX; the library that writes graphs is imported when one is used.

Each raises MissingExtraError if that library is not installed, and FeatherweightError if the model
cannot be exported or the copy gives different results.
"""

from pathlib import Path

from compress.config import CompressConfig
from compress.onnx.classifier import OnnxClassifier
from compress.origin import Origin
from featherweight.errors import requires


def export_fp32(origin: Origin, config: CompressConfig, workspace: Path) -> OnnxClassifier:
    """Returns a copy in fp32 that onnxruntime computes."""
    with requires("onnx"):
        from compress.onnx.conversion import export
    return export(origin.classifier, None, "onnx", workspace)


def export_int8(origin: Origin, config: CompressConfig, workspace: Path) -> OnnxClassifier:
    """Returns a copy in dynamic int8."""
    with requires("onnx"):
        from compress.onnx.conversion import dynamic, export
    return export(origin.classifier, dynamic, "onnx-int8", workspace)


def export_static_int8(origin: Origin, config: CompressConfig, workspace: Path) -> OnnxClassifier:
    """Returns a copy of a transformer in static int8, with ranges measured on training texts.

    Raises:
        UsageError: There are no training texts.
    """
    with requires("onnx"):
        from compress.onnx.static_int8 import static_int8
    return static_int8(origin, config, workspace)
