"""The methods that export to ONNX; the library that writes graphs is imported when one is used."""

from pathlib import Path

from compress.config import CompressConfig
from compress.onnx.classifier import OnnxClassifier
from compress.origin import Origin
from featherweight.errors import requires


def export_onnx(origin: Origin, config: CompressConfig, workspace: Path) -> OnnxClassifier:
    """Returns a copy that onnxruntime computes: in fp32, dynamic int8 or static int8.

    Raises:
        MissingExtraError: The library that writes graphs is not installed.
        UsageError: There are no training texts to calibrate static int8 on.
        FeatherweightError: It cannot be exported, or the copy gives different results.
    """
    with requires("onnx"):
        from compress.onnx.conversion import dynamic, export
        from compress.onnx.static_int8 import static
    if config.method == "onnx":
        return export(origin.classifier, None, config.method, workspace)
    is_static = config.method == "static-int8"
    quantizer = static(origin.dataset.train, config) if is_static else dynamic
    return export(origin.classifier, quantizer, config.method, workspace)
