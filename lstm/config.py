"""What a training is told: one flat set of documented fields, and its presets."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from featherweight.data.dataset import DataConfig
from featherweight.errors import UsageError
from featherweight.training.config import (
    OutputConfig,
    TrainingConfig,
    require_at_least_one,
    require_fraction,
    require_positive,
)


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
class OptimizationConfig(TrainingConfig):
    """Number format of the training."""

    precision: Literal["fp32", "fp16", "bf16"] = "fp32"
    """Number format of the forward pass; fp16 and bf16 need CUDA."""


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
        OutputConfig.__post_init__(self)
        OptimizationConfig.__post_init__(self)
        require_at_least_one(
            self, "vocab_size", "min_frequency", "max_length", "embedding_dim", "hidden_dim",
            "num_layers",
        )  # fmt: skip
        if self.vocab_size < 3:
            raise UsageError("--vocab_size must be at least 3: padding, unknown and one word")
        require_positive(self, "learning_rate")
        require_fraction(self, "dropout", "embedding_dropout", "word_dropout")


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
