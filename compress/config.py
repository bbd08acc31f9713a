"""What a compression can be told; each method reads the part that is its own."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from featherweight.errors import UsageError
from featherweight.training import above_zero

Name = Literal[
    "all", "fp16", "bf16", "int8", "int4", "prune", "prune+int8", "qat", "qat-int4", "distill",
    "onnx", "onnx-int8",
]  # fmt: skip


@dataclass(frozen=True)
class HalfConfig:
    """Which half precision."""

    dtype: Literal["fp16", "bf16"] = "fp16"
    """fp16 keeps more digits, bf16 the range of fp32."""


@dataclass(frozen=True)
class PruneConfig:
    """Pruning: the smallest weights become zero, rare words leave the vocabulary."""

    sparsity: float = 0.3
    """Share of the weights of the matrices that become zero."""
    scope: Literal["global", "layer"] = "global"
    """Rank the weights of all matrices together, or of each alone."""
    vocabulary: float = 1.0
    """Share of the vocabulary that is kept: the words most frequent in the training split."""


@dataclass(frozen=True)
class RetrainingConfig:
    """Retraining: what pruning, quantisation-aware training and distillation learn with."""

    retraining_epochs: int = 3
    """Passes over the training split; 0: pruned weights are not given time to recover."""
    retraining_rate: float = 1e-3
    """Highest step size of AdamW; distillation starts anew and takes that of `train`."""
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
    unlabelled: Path | None = None
    """File of further texts, which only the teachers label."""


@dataclass(frozen=True)
class CompressConfig(DistillConfig, PruneConfig, RetrainingConfig):
    """What to compress, and how."""

    weights: Path | None = None
    """Run directory; without it: the newest run."""
    method: Name = "fp16"
    """Way to make it smaller, or "all" that fit it."""
    max_f1_drop: float = 0.01
    """Loss of validation macro-F1 from which on a variant is marked as rejected."""
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
        if not 0 <= self.alpha <= 1:
            raise UsageError(f"--alpha must be in [0, 1], not {self.alpha}")
        fewest = 1 if self.method in ("all", "qat", "qat-int4") else 0
        if self.retraining_epochs < fewest:
            raise UsageError(
                f"--retraining_epochs must be at least {fewest} with --method {self.method}, "
                f"not {self.retraining_epochs}"
            )
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"--seed must be in [0, 2**32), not {self.seed}")
        if not 0 <= self.max_f1_drop <= 1:
            raise UsageError(f"--max_f1_drop must be in [0, 1], not {self.max_f1_drop}")
        above_zero(self, "retraining_rate", "temperature")
