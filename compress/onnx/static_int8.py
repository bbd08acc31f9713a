"""Static int8: a transformer in ONNX whose layers round with scales that were measured beforehand.

Weights of linear layers are int8 with a scale for each output, embeddings have 8 bits and one
scale; what meets a layer is rounded to 8 bits by its smallest and largest value over the
calibration texts. Products of activations, softmax, normalization and activation functions and the
head stay in fp32. As no scale depends on the batch, neither do the logits of a text.

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
from compress.onnx.conversion import export, head
from featherweight.classifier import Classifier
from featherweight.data.dataset import Dataset, Split
from featherweight.errors import UsageError

_BATCH_SIZE = 32
_LAYERS = ("MatMul", "Gemm")


def static_int8(
    classifier: Classifier, config: CompressConfig, dataset: Dataset, workspace: Path
) -> OnnxClassifier:
    """Returns a copy in static int8 that onnxruntime computes.

    Args:
        classifier: A transformer with a classification head.
        config: How many training texts the ranges are measured on, and the seed that draws them.
        dataset: Its training split is drawn from.
        workspace: Folder in which it is written.

    Raises:
        UsageError: There are no training texts.
        FeatherweightError: It cannot be exported, or the copy in fp32 answers otherwise.
    """
    texts = drawn(dataset.train, config.calibration_texts, config.seed)

    def static(exported: OnnxClassifier, prepared: Path, path: Path) -> None:
        quantize_static(
            prepared,
            path,
            _Batches(exported, texts),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Gather", *_LAYERS],
            nodes_to_exclude=head(prepared),
            per_channel=True,
            # Matrices in 7 bits: in 8, products overflow on processors without VNNI instructions.
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            # Percentiles and entropy were no better for a fine-tuned MiniLM, whose ranges are tame.
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={
                "MatMulConstBOnly": True,  # layers, not the products of attention
                # Rounding sums as well cost that model 0.013 of macro-F1 and made nothing faster.
                "OpTypesToExcludeOutputQuantization": list(_LAYERS),
            },
        )

    return export(classifier, static, "static-int8", workspace)


def drawn(train: Split, count: int, seed: int) -> list[str]:
    """Draws training texts, evenly over the classes as far as the texts of each reach.

    Args:
        train: What is drawn from; of a smaller split, all.
        count: Of texts.
        seed: Decides which.

    Raises:
        UsageError: There are none.
    """
    if not len(train):
        raise UsageError("--calibration_texts: the data has no training texts to measure ranges on")
    order = np.random.default_rng(seed).permutation(len(train)).tolist()
    seen: Counter[int] = Counter()
    turns = {}  # of each text, how many of its class come before it
    for row in order:
        label = int(train.labels[row])
        turns[row] = seen[label]
        seen[label] += 1
    return [train.texts[row] for row in sorted(order, key=turns.__getitem__)[:count]]


class _Batches(CalibrationDataReader):  # type: ignore[misc]  # the library has no types
    """Batches of texts of like length, so that ranges are not those of padding."""

    def __init__(self, exported: OnnxClassifier, texts: Sequence[str]) -> None:
        self._exported = exported
        ordered = sorted(texts, key=len)
        starts = range(0, len(ordered), _BATCH_SIZE)
        self._rest = iter([ordered[start : start + _BATCH_SIZE] for start in starts])

    def get_next(self) -> Inputs | None:
        """Returns the inputs of the next batch, or None after the last."""
        texts = next(self._rest, None)
        if texts is None:
            return None
        batch = self._exported.encode(texts)
        return {name: batch[name] for name in self._exported.input_names}
