"""Static int8: a transformer in ONNX whose activations are quantized with calibrated scales.

Weights of linear layers are int8 with one scale per output, embeddings have 8 bits and one scale.
The inputs of a layer are rounded to 8 bits by their minimum and maximum over the calibration texts.
Products of activations, softmax, normalization, activation functions and the head stay in fp32.
No scale depends on the batch, so neither do the logits of a text.

Source: https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from compress.config import CompressConfig
from compress.onnx.classifier import Inputs, OnnxClassifier
from compress.onnx.conversion import Quantizer, head
from featherweight.data.dataset import Split
from featherweight.errors import UsageError

_BATCH_SIZE = 32
_LAYERS = ("MatMul", "Gemm")


def static(train: Split, config: CompressConfig) -> Quantizer:
    """Returns a function that writes a graph in static int8, calibrated on training texts.

    Raises:
        UsageError: There are no training texts.
    """
    texts = sample_texts(train, config.calibration_texts, config.seed)

    def quantize(exported: OnnxClassifier, prepared: Path, path: Path) -> None:
        quantize_static(
            prepared,
            path,
            _Batches(exported, texts),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Gather", *_LAYERS],
            nodes_to_exclude=head(prepared),
            per_channel=True,
            # 7-bit matrices: with 8, products overflow on processors without VNNI instructions.
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            # Percentiles and entropy were no better for a fine-tuned MiniLM.
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={
                "MatMulConstBOnly": True,  # layers, not the products of attention
                # Rounding sums too cost that model 0.013 of macro-F1 and was not faster.
                "OpTypesToExcludeOutputQuantization": list(_LAYERS),
            },
        )

    return quantize


def sample_texts(train: Split, count: int, seed: int) -> list[str]:
    """Draws `count` training texts, or all, as evenly over the classes as possible.

    Raises:
        UsageError: The split is empty.
    """
    if not len(train):
        raise UsageError("--calibration_texts: the data has no training texts to measure ranges on")
    order = np.random.default_rng(seed).permutation(len(train)).tolist()
    seen: Counter[int] = Counter()
    ranks = {}  # how many texts of its class come before a text
    for row in order:
        label = int(train.labels[row])
        ranks[row] = seen[label]
        seen[label] += 1
    return [train.texts[row] for row in sorted(order, key=ranks.__getitem__)[:count]]


class _Batches(CalibrationDataReader):  # type: ignore[misc]  # the library has no types
    """Batches of texts of similar length, so that padding does not affect the ranges."""

    def __init__(self, exported: OnnxClassifier, texts: Sequence[str]) -> None:
        ordered = sorted(texts, key=len)
        starts = range(0, len(ordered), _BATCH_SIZE)
        batches = (exported.encode(ordered[start : start + _BATCH_SIZE]) for start in starts)
        names = exported.input_names
        self._inputs = ({name: batch[name] for name in names} for batch in batches)

    def get_next(self) -> Inputs | None:
        """Returns the inputs of the next batch, or None after the last."""
        return next(self._inputs, None)
