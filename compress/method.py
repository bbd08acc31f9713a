"""What a way to make a model smaller is to the verb that runs it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from compress.config import CompressConfig
from featherweight.data.dataset import Dataset
from featherweight.run import Run

if TYPE_CHECKING:  # of these, each method imports its own
    from compress.onnx.classifier import OnnxClassifier
    from lstm.classifier import TextClassifier
    from transformer_eval.classifier import TransformerClassifier

SIZE = "size only"
HALF = "size everywhere, speed on CUDA only"
FASTER = "speed on the CPU"  # a gain that every variant has to prove


# What a method returns: a classifier that writes itself into a run.
Variant: TypeAlias = "TextClassifier | TransformerClassifier | OnnxClassifier"
Make = Callable[[Any, Run, CompressConfig, Dataset, Path], Variant]


@dataclass(frozen=True)
class Method:
    """A way to make a model smaller or faster.

    Attributes:
        gain: Where what is gained is real; None: it depends on whether layers compute in integers.
        make: Takes the model, its run, the flags, the data, and a folder to go on from after a
            kill; returns the variant.
    """

    gain: str | None
    make: Make

    def gain_with(self, config: CompressConfig) -> str:
        """Returns where what is gained with these flags is real."""
        if self.gain:
            return self.gain
        return f"size everywhere, {FASTER}" if config.int8_mode == "dynamic" else SIZE
