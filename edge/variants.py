"""The graphs that a bundle may hold, and the choice among them by measurement on this machine.

What is not among them: an input projection folded into the embedding table. ONNX's LSTM always
multiplies its input, so the fold needs a loop over single operators instead (Scan), which took
4.7 times as long for one text, and as long for 32.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx

from compress.onnx_export import dynamic, export
from edge.packing import packed
from edge.runtime import LABELS, MODEL, TOKENIZER, TOLERANCE, Bundle
from featherweight.errors import FeatherweightError
from featherweight.run import ONNX, ONNX_MODEL
from lstm.classifier import TextClassifier

BATCH_SIZES = (1, 32)
SAME_LABELS = 0.995  # of the validation texts must get the run's own answer
_SLOWER = 1.25  # times the fastest: what a smaller file may cost
_ROUNDS = 5
_TIMED_TEXTS = 320

@dataclass(frozen=True)
class Variant:
    """A graph, and what was measured of it.

    Attributes:
        size_bytes: Of the graph alone; the other files are the same for all.
        latency_us: Median microseconds from text to label on one thread, by texts a batch.
        same_labels: Share of the validation texts with the run's own answer.
        by_neighbours: The most that a probability changes with the texts beside it.
    """

    size_bytes: int
    latency_us: Mapping[int, float]
    same_labels: float
    by_neighbours: float

    @property
    def right(self) -> bool:
        """Whether it answers as the run does, whatever stands beside a text."""
        return self.same_labels >= SAME_LABELS and self.by_neighbours <= TOLERANCE


def graphs(classifier: TextClassifier) -> dict[str, bytes]:
    """Returns the serialised graphs by name: fp32, int8 (stored only) and int8-dynamic.

    Raises:
        FeatherweightError: The graph answers otherwise than the run.
    """
    with TemporaryDirectory() as folder:
        model = Path(folder) / ONNX / ONNX_MODEL
        export(classifier, None, "fp32", Path(folder))
        fp32 = model.read_bytes()
        export(classifier, dynamic, "int8", Path(folder))
        return {
            "fp32": fp32,
            "int8": packed(onnx.load_from_string(fp32)).SerializeToString(),
            "int8-dynamic": model.read_bytes(),
        }
