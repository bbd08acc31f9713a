"""The graphs that a bundle may hold, and the choice among them by measurement on this machine.

What is not among them: an input projection folded into the embedding table. ONNX's LSTM always
multiplies its input, so the fold needs a loop over single operators instead (Scan), which took
4.7 times as long for one text, and as long for 32.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx

from compress.onnx_export import dynamic, export
from edge.packing import packed
from edge.runtime import TOLERANCE, Bundle
from featherweight.classifier import FloatArray
from featherweight.errors import FeatherweightError
from featherweight.run import ONNX, ONNX_MODEL
from lstm.classifier import TextClassifier

BATCH_SIZES = (1, 32)
SAME_LABELS = 0.995  # of the validation texts must get the run's own answer
_SLOWER = 1.25  # times the fastest: what a smaller file may cost
RULE = (
    f"the smallest graph that answers one text in at most {_SLOWER} times the median of the "
    f"fastest, of those with the run's own label on {SAME_LABELS:.1%} of the validation texts, and "
    f"with probabilities that texts beside change by at most {TOLERANCE:g}"
)
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


def measured(
    bundles: Mapping[str, Bundle], sizes: Mapping[str, int], texts: Sequence[str], own: FloatArray
) -> dict[str, Variant]:
    """Returns what is measured of each variant.

    Args:
        bundles: The variants by name, ready to answer.
        sizes: Bytes of their graphs.
        texts: Those of validation.
        own: (N, C) the run's own logits of these texts.
    """
    latency_us = _latency_us(bundles, texts[:_TIMED_TEXTS])
    found = {}
    for name, bundle in bundles.items():
        together = bundle.predict_proba(texts)
        alone = np.concatenate([bundle.predict_proba([it]) for it in texts[:_TIMED_TEXTS]])
        found[name] = Variant(
            size_bytes=sizes[name],
            latency_us=latency_us[name],
            same_labels=float((together.argmax(axis=1) == own.argmax(axis=1)).mean()),
            by_neighbours=float(np.abs(together[: len(alone)] - alone).max()),
        )
    return found


def chosen(variants: Mapping[str, Variant]) -> str:
    """Returns the name of the variant that a bundle takes, by `RULE`.

    Speed is that of one text, for which people wait. Dynamic int8 was 14 % faster at the same
    bytes, yet rounds a text by what stands beside it: a bundle must answer a text the same however
    a list is split.

    Raises:
        FeatherweightError: None answers as the run does.
    """
    right = {name: variant for name, variant in variants.items() if variant.right}
    if not right:
        raise FeatherweightError("no graph answers as the run does: export another run")
    allowed = _SLOWER * min(variant.latency_us[1] for variant in right.values())
    fast = [name for name, variant in right.items() if variant.latency_us[1] <= allowed]
    return min(fast, key=lambda name: right[name].size_bytes)


def _latency_us(bundles: Mapping[str, Bundle], texts: Sequence[str]) -> dict[str, dict[int, float]]:
    """Returns medians by name and batch size, taken in turns so that all meet the same noise."""
    samples: dict[str, dict[int, list[float]]] = {
        name: {size: [] for size in BATCH_SIZES} for name in bundles
    }
    for _ in range(_ROUNDS):
        for name, bundle in bundles.items():
            for size in BATCH_SIZES:
                for start in range(0, len(texts), size):
                    batch = texts[start : start + size]
                    begin = time.perf_counter()
                    bundle.predict(batch)
                    samples[name][size].append(1e6 * (time.perf_counter() - begin))
    return {
        name: {size: round(float(np.median(taken)), 2) for size, taken in sizes.items()}
        for name, sizes in samples.items()
    }
