"""What a training is told: one flat set of documented fields, and its presets."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from featherweight.dataset import DataConfig
from featherweight.errors import UsageError


@dataclass(frozen=True)
class TokenizerConfig:
    """Vocabulary, learned from the training split."""

    tokenizer: Literal["word", "bpe"] = "word"
    """Whole words, or byte-pair pieces of words."""
    vocab_size: int = 30_000
    """Most entries the vocabulary may have."""
    min_frequency: int = 2
    """Occurrences in the training split below which a word or pair is left out."""
    max_length: int = 128
    """Tokens after which a text is cut."""


@dataclass(frozen=True)
class ModelConfig:
    """Architecture: embedding, LSTM, pooling, linear."""

    embedding_dim: int = 32
    """Numbers per token."""
    hidden_dim: int = 64
    """Numbers of LSTM state per direction."""
    num_layers: int = 1
    """LSTM layers."""
    bidirectional: bool = True
    """Read the text in both directions."""
    pooling: Literal["last", "max", "mean", "attention"] = "max"
    """How the states of a text become one vector."""
    dropout: float = 0.2
    """Share of the numbers dropped between LSTM layers and before the linear layer."""
    embedding_dropout: float = 0.2
    """Share of the embedding numbers dropped."""
    word_dropout: float = 0.1
    """Share of the training tokens replaced by the unknown token."""


@dataclass(frozen=True)
class OptimizationConfig:
    """Training: AdamW, early stopping on validation macro-F1."""

    epochs: int = 6
    """Most passes over the training split."""
    min_steps: int = 400
    """Fewest steps an epoch has; a small training split is gone through several times for it."""
    batch_size: int = 32
    """Texts per step."""
    learning_rate: float = 3e-3
    """Highest step size of AdamW."""
    weight_decay: float = 0.01
    """Decoupled weight decay of AdamW."""
    schedule: Literal["linear", "cosine", "constant"] = "cosine"
    """Course of the learning rate after warm-up; linear and cosine end at zero."""
    warmup_ratio: float = 0.07
    """Share of all steps in which the learning rate climbs from zero."""
    max_grad_norm: float = 1.0
    """Norm to which gradients are clipped."""
    class_weights: Literal["none", "balanced"] = "none"
    """Weight classes in the loss by the inverse of their frequency."""
    label_smoothing: float = 0.05
    """Share of the target spread over all classes."""
    patience: int = 3
    """Epochs without a better validation macro-F1 after which training stops."""
    precision: Literal["fp32", "fp16", "bf16"] = "fp32"
    """Number format of the forward pass; fp16 and bf16 need CUDA."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto takes CUDA if there is any."""
    seed: int = 0
    """Seed of initialisation, order and dropout."""


@dataclass(frozen=True)
class OutputConfig:
    """Where the run goes."""

    output_dir: Path = Path("outputs")
    """Folder that holds the runs."""
    name: str = ""
    """Folder name of the run; empty: preset, data and time."""
    overwrite: bool = False
    """Replace an existing run of that name."""
    resume: bool = False
    """Go on with a run that was cut off (same flags as then)."""


Preset = Literal["feather", "classic"]


@dataclass(frozen=True)
class TrainConfig(OutputConfig, OptimizationConfig, ModelConfig, TokenizerConfig, DataConfig):
    """Everything `featherweight train` can be told."""

    preset: Preset = "feather"
    """Defaults of the fields below: the smallest good model, or three layers of 64."""

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
            UsageError: A number is out of its range; the message names the flag.
        """
        for flag in ("vocab_size", "min_frequency", "max_length", "embedding_dim", "hidden_dim",
                     "num_layers", "epochs", "min_steps", "batch_size", "patience"):  # fmt: skip
            if getattr(self, flag) < 1:
                raise UsageError(f"--{flag} must be at least 1, not {getattr(self, flag)}")
        if self.vocab_size < 3:
            raise UsageError("--vocab_size must be at least 3: padding, unknown and one word")
        for flag in ("dropout", "embedding_dropout", "word_dropout", "label_smoothing"):
            if not 0 <= getattr(self, flag) < 1:
                raise UsageError(f"--{flag} must be in [0, 1), not {getattr(self, flag)}")
        if not 0 <= self.warmup_ratio <= 1:
            raise UsageError(f"--warmup_ratio must be in [0, 1], not {self.warmup_ratio}")
        for flag in ("learning_rate", "max_grad_norm"):
            if not 0 < getattr(self, flag) < float("inf"):
                raise UsageError(f"--{flag} must be above 0, not {getattr(self, flag)}")
        if not 0 <= self.weight_decay < float("inf"):
            raise UsageError(f"--weight_decay must be 0 or above, not {self.weight_decay}")
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"--seed must be in [0, 2**32), not {self.seed}")
        if Path(self.name).name != self.name or self.name == "..":
            raise UsageError(f"--name is one folder name, not a path: {self.name!r}")
        if self.overwrite and self.resume:
            raise UsageError("--overwrite and --resume exclude each other: give one of them")


PRESETS: Mapping[Preset, Mapping[str, Any]] = MappingProxyType(
    {
        "feather": {},
        "classic": {
            "embedding_dim": 256,
            "num_layers": 3,
            "bidirectional": False,
            "pooling": "last",
            "embedding_dropout": 0.0,
            "word_dropout": 0.0,
            "label_smoothing": 0.0,
        },
    }
)


def preset(name: Preset, /, **overrides: Any) -> TrainConfig:
    """Returns the training config of a preset, with some fields replaced."""
    return TrainConfig(**{**PRESETS[name], "preset": name, **overrides})
