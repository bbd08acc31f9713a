"""The methods that export to ONNX, without the library that writes graphs until it is needed."""

from pathlib import Path

from compress.config import CompressConfig
from compress.onnx.classifier import OnnxClassifier
from featherweight.classifier import Classifier
from featherweight.data.dataset import Dataset
from featherweight.errors import requires
from featherweight.run import Run


def exported(
    classifier: Classifier, method: str, quantized: bool, workspace: Path
) -> OnnxClassifier:
    """Returns a copy of an LSTM or a transformer that onnxruntime computes.

    Args:
        classifier: What is exported.
        method: What stands in brackets behind its name.
        quantized: Whether weights become int8.
        workspace: Folder in which it is written.

    Raises:
        MissingExtraError: The library that writes graphs is not installed.
        FeatherweightError: It cannot be exported, or the copy answers otherwise.
    """
    with requires("onnx"):
        from compress.onnx.conversion import dynamic, export
    return export(classifier, dynamic if quantized else None, method, workspace)


def calibrated(
    classifier: Classifier, _: Run, config: CompressConfig, dataset: Dataset, workspace: Path
) -> OnnxClassifier:
    """Returns a copy of a transformer in static int8, with ranges measured on training texts.

    Args:
        classifier: What is exported.
        config: How many texts, and the seed that draws them.
        dataset: Its training split is drawn from.
        workspace: Folder in which it is written.

    Raises:
        MissingExtraError: The library that writes graphs is not installed.
        UsageError: There are no training texts.
        FeatherweightError: It cannot be exported, or the copy in fp32 answers otherwise.
    """
    with requires("onnx"):
        from compress.onnx.static_int8 import static_int8
    return static_int8(classifier, config, dataset, workspace)
