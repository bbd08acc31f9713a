"""Options of `finetune`, `features` and `test_transformer`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from featherweight.config import EvaluationConfig
from featherweight.data.dataset import DataConfig
from featherweight.errors import UsageError, require_range
from featherweight.training.config import OutputConfig, TrainingConfig
from transformer_eval.registry import ALL


@dataclass(frozen=True)
class FinetuneConfig(OutputConfig, TrainingConfig, DataConfig):
    """Model and fine-tuning."""

    kind: ClassVar[str] = "transformer"

    model: list[str] = field(default_factory=lambda: ["distilbert"])
    """Registry names, Hub ids or folders, or "all"; several models are trained in sequence."""
    max_length: int = 128
    """Maximum number of tokens; longer texts are truncated."""
    batch_size: int = 32
    """Texts per batch and process."""
    gradient_accumulation_steps: int = 1
    """Batches per optimizer step, whose gradients are summed."""
    precision: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    """Number format of the forward pass; auto: 16 bits if the device supports them natively."""
    epochs: int = 5
    """Maximum number of epochs."""
    min_steps: int = 1
    """Minimum number of steps per epoch; a small training split is repeated to reach it."""
    learning_rate: float = 0.0
    """Peak learning rate of AdamW; 0: the default of the model, 1e-5 to 1e-4."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """Learning rate schedule after warm-up; linear and cosine decay to zero."""
    warmup_ratio: float = 0.1
    """Fraction of all steps in which the learning rate rises from zero."""
    label_smoothing: float = 0.0
    """Fraction of the target probability that is spread over all classes."""
    patience: int = 2
    """Stop after this many epochs without a better validation macro-F1."""

    def __post_init__(self) -> None:
        DataConfig.__post_init__(self)
        OutputConfig.__post_init__(self)
        TrainingConfig.__post_init__(self)
        require_range(self, "at least 1", "gradient_accumulation_steps")
        require_range(self, "in [0, 1)", "warmup_ratio")
        if not 0 <= self.learning_rate < float("inf"):
            raise UsageError(f"--learning_rate must be 0 or above, not {self.learning_rate}")
        _check_max_length(self.max_length)


@dataclass(frozen=True)
class FeaturesConfig(OutputConfig, DataConfig):
    """Frozen encoder and its embeddings."""

    kind: ClassVar[str] = "features"

    model: list[str] = field(default_factory=lambda: ["distilbert"])
    """Registry names, Hub ids or folders, or "all"."""
    pooling: Literal["mean", "cls"] = "mean"
    """Embedding of a text: the mean of its token states, or the state of the first token."""
    max_length: int = 128
    """Maximum number of tokens; longer texts are truncated."""
    batch_size: int = 32
    """Texts per batch."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of the encoder; auto: CUDA if available."""
    save_embeddings: Path | None = None
    """Save the embeddings and labels of all splits to this .npz file."""
    cache_dir: Path = Path("outputs/.embeddings")
    """Folder of cached embeddings, so that the same texts are encoded only once."""

    def __post_init__(self) -> None:
        DataConfig.__post_init__(self)
        OutputConfig.__post_init__(self)
        require_range(self, "at least 1", "batch_size")
        _check_max_length(self.max_length)
        if self.save_embeddings:
            _check_npz(self.save_embeddings)
            if len(self.model) > 1 or ALL in self.model:
                raise UsageError("--save_embeddings is a file for one model: give one --model")


@dataclass(frozen=True)
class TransformerTestConfig(EvaluationConfig):
    """Transformers and LSTM to compare."""

    model: list[str] = field(default_factory=lambda: ["bert-base-emotion"])
    """Registry names, Hub ids, folders or runs of fine-tuned transformers, or "all"."""
    weights: Path | None = None
    """Run, portable file or bundle of the LSTM, or "pretrained"; by default the newest LSTM run in
    --output_dir, if there is one."""
    model_labels: str = ""
    """Comma-separated class names of the transformers in id order, for models that only number
    their classes (LABEL_0, LABEL_1, …)."""
    latency_only: bool = False
    """Measure only the speed of the transformers; random weights replace unavailable ones."""
    batch_sizes: str = "1,32"
    """Comma-separated batch sizes to time."""
    output_path: Path | None = None
    """Folder for the report: .md, .csv, .json, .html and plots."""


def _check_npz(path: Path) -> None:
    if path.suffix != ".npz":
        raise UsageError(f"--save_embeddings {path}: the name must end in .npz")
    if not path.parent.is_dir():
        raise UsageError(f"--save_embeddings: no folder {path.parent}: create it first")


def _check_max_length(tokens: int) -> None:
    if tokens < 3:
        raise UsageError("--max_length must be at least 3: two special tokens and one of the text")
