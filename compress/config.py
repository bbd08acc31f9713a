"""What a compression can be told; each method reads the part that is its own."""

import re
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Literal

from featherweight.errors import UsageError
from featherweight.training.config import require_at_least_one, require_positive

Name = Literal[
    "all", "fp16", "bf16", "int8", "int4", "static-int8", "qat", "qat-int4", "prune", "prune+int8",
    "bnb-int8", "qlora", "distill", "onnx", "onnx-int8",
]  # fmt: skip

_UNITS = {  # by their lower case: how they are written, and their bytes
    "": ("", 1), "b": ("B", 1), "kb": ("KB", 1000), "kib": ("KiB", 1024), "mb": ("MB", 1000**2),
    "mib": ("MiB", 1024**2),
}  # fmt: skip


@dataclass(frozen=True)
class HalfConfig:
    """Which half precision."""

    dtype: Literal["fp16", "bf16"] = "fp16"
    """fp16 keeps more digits, bf16 the range of fp32."""


@dataclass(frozen=True)
class QuantizeConfig:
    """Quantization of a transformer: int8, prune+int8, qat, static-int8."""

    int8_mode: Literal["dynamic", "weight-only"] = "dynamic"
    """dynamic: layers compute in integers; weight-only: weights are only stored in them."""
    calibration_texts: int = 256
    """Training texts that static-int8 measures the range of activations on."""


@dataclass(frozen=True)
class AdapterConfig:
    """QLoRA: a base in 4 bits, and adapters of low rank that are trained on it."""

    rank: int = 16
    """Rank of the adapters."""
    lora_alpha: float = 32.0
    """Adapters count lora_alpha / rank times."""
    target_modules: list[str] = field(default_factory=list)
    """Names of the layers that get adapters; none: every linear layer but the head."""
    merge: bool = False
    """Add the adapters to the base, in 16 bits; else they are kept apart."""


@dataclass(frozen=True)
class SearchConfig:
    """Search: the best LSTM within a number of bytes."""

    target_size: str = ""
    """Search, instead of applying a method, the LSTM of the best validation macro-F1 whose file has
    at most so many bytes: 150000, 200KB, "0.3 MB" (KB = 1000, KiB = 1024)."""
    trials: int = 20
    """Trainings that the search may try; Ctrl-C keeps the best so far, the same command goes on."""


@dataclass(frozen=True)
class PruneConfig:
    """Pruning: small weights become zero; rare words and weak units leave."""

    sparsity: float = 0.3
    """Share of the weights of the matrices that become zero."""
    scope: Literal["global", "layer"] = "global"
    """Rank the weights of all matrices together, or of each alone."""
    vocabulary: float = 1.0
    """Share of the vocabulary that is kept: the words most frequent in the training split."""
    hidden: float = 1.0
    """Share of the LSTM's hidden units that are kept: those of the largest weights."""


@dataclass(frozen=True)
class RetrainingConfig:
    """Retraining: the training in prune, prune+int8, qat, qat-int4, qlora, distill."""

    retraining_epochs: int = 3
    """Passes over the training split, where an LSTM student takes those of `train`; 0: pruned
    weights are not given time to recover."""
    retraining_rate: float = 0.0
    """Highest step size of AdamW; 0: what suits model and method."""
    seed: int = 0
    """Seed of the order and of dropout."""


@dataclass(frozen=True)
class DistillConfig:
    """Distillation: a student learns from what teachers answer."""

    teachers: list[Path] = field(default_factory=list)
    """Runs whose mean answers are learned; without them: the run itself."""
    temperature: float = 3.0
    """Divides the logits of teachers and student, so that small differences count."""
    alpha: float = 0.5
    """Weight of the labels in the loss; the rest is that of the teachers."""
    student: str = ""
    """What learns: feather, classic, or a smaller transformer by registry name, Hub id or folder;
    a transformer needs one, an LSTM teaches its own shape without it."""
    unlabelled: Path | None = None
    """File of further texts, in its column `text`, which only the teachers label."""


@dataclass(frozen=True)
class CompressConfig(
    QuantizeConfig, PruneConfig, DistillConfig, AdapterConfig, RetrainingConfig, SearchConfig
):
    """What to compress, and how."""

    weights: Path | None = None
    """Run directory; without it: the newest run."""
    method: Name = "fp16"
    """Way to make it smaller. Only for LSTMs: int4, qat-int4; only for transformers: static-int8,
    bnb-int8, qlora; all: one after the other what fits, and a report on them."""
    max_f1_drop: float = 0.01
    """Validation macro-F1 that a variant may lose; with more it is marked as rejected."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto takes CUDA if there is any."""
    overwrite: bool = False
    """Replace an existing variant."""
    output_dir: Path = Path("outputs")
    """Folder in which the newest run is looked for."""

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
            UsageError: A number is out of its range; the message names the flag.
        """
        if not 0 <= self.sparsity < 1:
            raise UsageError(f"--sparsity must be in [0, 1), not {self.sparsity}")
        if not 0 < self.vocabulary <= 1:
            raise UsageError(f"--vocabulary must be in (0, 1], not {self.vocabulary}")
        if not 0 < self.hidden <= 1:
            raise UsageError(f"--hidden must be in (0, 1], not {self.hidden}")
        if not 0 <= self.alpha <= 1:
            raise UsageError(f"--alpha must be in [0, 1], not {self.alpha}")
        if self.target_size:
            target_of(self.target_size)
            if self.method != CompressConfig.method:
                raise UsageError(
                    f"--target_size searches, --method {self.method} does not: give one of them"
                )
        fewest = 1 if self.method in ("all", "qat", "qat-int4", "qlora") else 0
        if self.retraining_epochs < fewest:
            raise UsageError(
                f"--retraining_epochs must be at least {fewest} with --method {self.method}, "
                f"not {self.retraining_epochs}"
            )
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"--seed must be in [0, 2**32), not {self.seed}")
        if not 0 <= self.max_f1_drop <= 1:
            raise UsageError(f"--max_f1_drop must be in [0, 1], not {self.max_f1_drop}")
        if not 0 <= self.retraining_rate < float("inf"):
            raise UsageError(f"--retraining_rate must be 0 or above, not {self.retraining_rate}")
        require_positive(self, "temperature", "lora_alpha")
        require_at_least_one(self, "rank", "calibration_texts", "trials")


def target_of(size: str) -> tuple[str, int]:
    """Returns a size as people write it in a form fit for a folder name, and in bytes.

    Raises:
        UsageError: It is no size.
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)", size.strip())
    number, unit = match.groups() if match else ("0", "")
    name, unit_bytes = _UNITS.get(unit.lower(), ("", 0))
    size_bytes = int(Decimal(number) * unit_bytes)
    if not size_bytes:
        raise UsageError(
            f"--target_size must be a number of bytes, such as 150000, 200KB or 0.3MB, not {size!r}"
        )
    return number + name, size_bytes
