"""What defines a compression method: what it gains, and the function that applies it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from compress.config import CompressConfig
from compress.origin import Origin

if TYPE_CHECKING:  # each method imports only the kind of classifier that it returns
    from compress.onnx.classifier import OnnxClassifier
    from lstm.classifier import TextClassifier
    from transformer_eval.classifier import TransformerClassifier

# Values of `gain` in compression.json.
SIZE = "size only"
SIZE_AND_CUDA = "size everywhere, speed on CUDA only"
SIZE_AND_CPU = "size everywhere, speed on the CPU"
CPU = "speed on the CPU"

Variant: TypeAlias = "TextClassifier | TransformerClassifier | OnnxClassifier"
# The last argument is a folder that the method may use, and resumes from after an interruption.
Make = Callable[[Origin, CompressConfig, Path], Variant]


@dataclass(frozen=True)
class Method:
    """A way to make a model smaller or faster.

    Attributes:
        gain: What is gained on which devices.
        make: Returns the variant.
        faster_on_cpu: Whether a variant is rejected if it is not faster than its origin on the CPU.
        uses_int8_mode: Whether the speed depends on layers that compute in int8.
        run_config: Returns `config.json` of the variant's run; None: that of the origin.
    """

    gain: str
    make: Make
    faster_on_cpu: bool = False
    uses_int8_mode: bool = False
    run_config: Callable[[Origin, CompressConfig], Mapping[str, Any]] | None = None

    def with_flags(self, config: CompressConfig) -> "Method":
        """Returns the method with what it gains under some flags."""
        if self.uses_int8_mode and config.int8_mode == "weight-only":
            return replace(self, gain=SIZE, faster_on_cpu=False)
        return self
