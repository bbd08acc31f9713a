"""What the verbs on transformers can be told."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from featherweight.config import EvaluationConfig
from featherweight.data.dataset import DataConfig
from featherweight.errors import UsageError
from featherweight.training.config import (
    OutputConfig,
    TrainingConfig,
    require_at_least_one,
    require_fraction,
)
from transformer_eval.registry import ALL


@dataclass(frozen=True)
class FinetuneConfig(OutputConfig, TrainingConfig, DataConfig):
    """Which transformer, and how it is fine-tuned."""

    kind: ClassVar[str] = "transformer"

    model: list[str] = field(default_factory=lambda: ["distilbert"])
    """Registry names, Hub ids or folders, or "all"; several are trained one after another."""
    max_length: int = 128
    """Tokens after which a text is cut."""
    batch_size: int = 32
    """Texts per batch of one process; the batches of all processes make a step."""
    gradient_accumulation_steps: int = 1
    """Batches whose gradients are added up to one step."""
    precision: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    """Number format of the forward pass; auto: 16 bits where the device is made for them."""
    epochs: int = 5
    """Most passes over the training split."""
    min_steps: int = 1
    """Fewest steps an epoch has; a small training split is gone through several times for it."""
    learning_rate: float = 0.0
    """Highest step size of AdamW; 0: what suits the model, 1e-5 to 1e-4."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """Course of the learning rate after warm-up; linear and cosine end at zero."""
    warmup_ratio: float = 0.1
    """Share of all steps in which the learning rate climbs from zero."""
    label_smoothing: float = 0.0
    """Share of the target spread over all classes."""
    patience: int = 2
    """Epochs without a better validation macro-F1 after which training stops."""

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
            UsageError: A number is out of its range; the message names the flag.
        """
        OutputConfig.__post_init__(self)
        TrainingConfig.__post_init__(self)
        require_at_least_one(self, "gradient_accumulation_steps")
        require_fraction(self, "warmup_ratio")
        if not 0 <= self.learning_rate < float("inf"):
            raise UsageError(f"--learning_rate must be 0 or above, not {self.learning_rate}")
        _check_max_length(self.max_length)


@dataclass(frozen=True)
class FeaturesConfig(OutputConfig, DataConfig):
    """Which frozen encoder, and how its embeddings are taken."""

    kind: ClassVar[str] = "features"

    model: list[str] = field(default_factory=lambda: ["distilbert"])
    """Registry names, Hub ids or folders, or "all"."""
    pooling: Literal["mean", "cls"] = "mean"
    """How the states of a text become one vector: their mean, or the first."""
    max_length: int = 128
    """Tokens after which a text is cut."""
    batch_size: int = 32
    """Texts per batch."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto takes CUDA if there is any."""
    save_embeddings: Path | None = None
    """File (.npz) for the embeddings and labels of every split."""
    cache_dir: Path = Path("outputs/.embeddings")
    """Folder in which embeddings are kept, so that the same texts are read once."""

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
            UsageError: A number is out of its range, or the flags exclude each other.
        """
        OutputConfig.__post_init__(self)
        require_at_least_one(self, "batch_size")
        _check_max_length(self.max_length)
        if self.save_embeddings and (len(self.model) > 1 or ALL in self.model):
            raise UsageError("--save_embeddings is a file for one model: give one --model")


@dataclass(frozen=True)
class VersusConfig(EvaluationConfig):
    """Which transformers stand beside which LSTM."""

    model: list[str] = field(default_factory=lambda: ["bert-base-emotion"])
    """Registry names, Hub ids, folders or runs of fine-tuned transformers, or "all"."""
    weights: Path | None = None
    """Run, portable file or bundle of the LSTM, or "pretrained"; without it: the newest run of one,
    if there is any."""
    model_labels: str = ""
    """Names of their classes in id order, where they only number them (LABEL_0, LABEL_1, …)."""
    latency_only: bool = False
    """Time the transformers only; where weights cannot be had, random ones do."""
    batch_sizes: str = "1,32"
    """Texts per timed batch, separated by commas."""
    output_path: Path | None = None
    """Folder for the report: .md .csv .json .html and pictures."""


def _check_max_length(tokens: int) -> None:
    if tokens < 3:
        raise UsageError("--max_length must be at least 3: two marks and one token")
