"""The options of `compress`; each method reads the part that concerns it."""

import re
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from featherweight.errors import UsageError, quoted, require_range

Name = Literal[
    "all", "fp16", "bf16", "int8", "int4", "static-int8", "qat", "qat-int4", "prune", "prune+int8",
    "bnb-int8", "qlora", "distill", "onnx", "onnx-int8",
]  # fmt: skip

_UNITS = {  # by lower case: canonical spelling and number of bytes
    "": ("", 1), "b": ("B", 1), "kb": ("KB", 1000), "kib": ("KiB", 1024), "mb": ("MB", 1000**2),
    "mib": ("MiB", 1024**2),
}  # fmt: skip


@dataclass(frozen=True)
class QuantizeConfig:
    """Quantization of a transformer (int8, prune+int8, qat, static-int8)."""

    int8_mode: Literal["dynamic", "weight-only"] = "dynamic"
    """dynamic: linear layers compute in int8; weight-only: weights are stored in int8 and layers
    compute in floats."""
    calibration_texts: int = 256
    """Number of training texts on which static-int8 measures the range of activations."""


@dataclass(frozen=True)
class AdapterConfig:
    """QLoRA: low-rank adapters trained on a 4-bit base model."""

    rank: int = 16
    """Rank of the adapters."""
    lora_alpha: float = 32.0
    """Scale of the adapters: their output is multiplied by lora_alpha / rank."""
    target_modules: list[str] = field(default_factory=list)
    """Names of the layers that get adapters; default: every linear layer except the head."""
    merge: bool = False
    """Merge the adapters into the base model, in 16 bits, instead of storing them separately."""


@dataclass(frozen=True)
class SearchConfig:
    """Search for the best LSTM within a size limit."""

    target_size: str = ""
    """Instead of applying a method, search for the LSTM with the best validation macro-F1 whose
    file is at most this large: 150000, 200KB or "0.3 MB" (KB = 1000 bytes, KiB = 1024)."""
    trials: int = 20
    """Number of trials, one training each. Ctrl-C keeps the best so far; the same command resumes
    the search."""


@dataclass(frozen=True)
class PruneConfig:
    """Pruning: small weights are set to zero, rare words and weak units are removed."""

    sparsity: float = 0.3
    """Fraction of the weights in matrices that is set to zero."""
    scope: Literal["global", "layer"] = "global"
    """Rank the weights of all matrices together (global) or of each matrix separately (layer)."""
    vocabulary: float = 1.0
    """Fraction of the vocabulary to keep: the words most frequent in the training split."""
    hidden: float = 1.0
    """Fraction of the LSTM's hidden units to keep: those with the largest weights."""


@dataclass(frozen=True)
class RetrainingConfig:
    """Training in prune, prune+int8, qat, qat-int4, qlora and distill."""

    retraining_epochs: int = 3
    """Number of epochs (an LSTM student uses that of `train`); 0: pruned weights are not
    retrained."""
    retraining_rate: float = 0.0
    """Peak learning rate of AdamW; 0: a default for the model and method."""
    seed: int = 0
    """Seed of the order of texts and of dropout."""

    def training_flags(self, default_rate: float) -> dict[str, Any]:
        """Returns the flags of a training that runs all epochs and keeps the best one."""
        return {
            "epochs": self.retraining_epochs,
            "patience": self.retraining_epochs,
            "learning_rate": self.retraining_rate or default_rate,
            "seed": self.seed,
        }


@dataclass(frozen=True)
class DistillConfig:
    """Distillation: a student model learns from the predictions of teachers."""

    teachers: list[Path] = field(default_factory=list)
    """Runs whose mean predictions are learned; default: the run to compress."""
    temperature: float = 3.0
    """Divides the logits of teachers and student, which emphasizes small differences."""
    alpha: float = 0.5
    """Weight of the labels in the loss; the teachers have weight 1 - alpha."""
    student: str = ""
    """The model to train: feather, classic, or a smaller transformer by registry name, Hub id or
    folder. Required for a transformer; default for an LSTM: one of the same shape."""
    unlabelled: Path | None = None
    """File with additional texts in its column `text`, labeled by the teachers only."""


@dataclass(frozen=True)
class CompressConfig(
    QuantizeConfig, PruneConfig, DistillConfig, AdapterConfig, RetrainingConfig, SearchConfig
):
    """What to compress, and how."""

    weights: Path | None = None
    """Run directory; default: the newest run."""
    method: Name = "fp16"
    """Compression method. Only for LSTMs: int4, qat-int4. Only for transformers: static-int8,
    bnb-int8, qlora. all: every method that fits the model, with a report that compares them."""
    max_f1_drop: float = 0.01
    """Maximum loss of validation macro-F1; a variant that loses more is marked as rejected."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto: CUDA if available."""
    overwrite: bool = False
    """Replace an existing variant."""
    output_dir: Path = Path("outputs")
    """Folder in which the newest run is looked for."""

    def __post_init__(self) -> None:
        for flag, is_valid, values in (
            ("vocabulary", 0 < self.vocabulary <= 1, "in (0, 1]"),
            ("hidden", 0 < self.hidden <= 1, "in (0, 1]"),
            ("alpha", 0 <= self.alpha <= 1, "in [0, 1]"),
            ("max_f1_drop", 0 <= self.max_f1_drop <= 1, "in [0, 1]"),
            ("seed", 0 <= self.seed < 2**32, "in [0, 2**32)"),
            ("retraining_rate", 0 <= self.retraining_rate < float("inf"), "0 or above"),
        ):
            if not is_valid:
                raise UsageError(f"--{flag} must be {values}, not {getattr(self, flag)}")
        if self.target_size:
            parse_size(self.target_size)
            if self.method != CompressConfig.method:
                raise UsageError(
                    f"--target_size and --method {self.method} exclude each other: give one of them"
                )
        min_epochs = 1 if self.method in ("all", "qat", "qat-int4", "qlora") else 0
        if self.retraining_epochs < min_epochs:
            raise UsageError(
                f"--retraining_epochs must be at least {min_epochs} with --method {self.method}, "
                f"not {self.retraining_epochs}"
            )
        require_range(self, "in [0, 1)", "sparsity")
        require_range(self, "above 0", "temperature", "lora_alpha")
        require_range(self, "at least 1", "rank", "calibration_texts", "trials")


def parse_size(size: str) -> tuple[str, int]:
    """Returns a size such as "0.3 MB" in a form fit for a folder name, and in bytes.

    Raises:
        UsageError: It is not a size.
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)", size.strip())
    number, unit = match.groups() if match else ("0", "")
    name, unit_bytes = _UNITS.get(unit.lower(), ("", 0))
    size_bytes = int(Decimal(number) * unit_bytes)
    if not size_bytes:
        raise UsageError(
            "--target_size must be a number of bytes, such as 150000, 200KB or 0.3MB, not "
            f"{quoted(size)}"
        )
    return number + name, size_bytes
