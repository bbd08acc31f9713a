"""Options of `train`, and its presets."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from featherweight.data.dataset import DataConfig
from featherweight.errors import UsageError, require_range
from featherweight.training.config import OutputConfig, TrainingConfig


@dataclass(frozen=True)
class TokenizerConfig:
    """Vocabulary, learned from the training split."""

    tokenizer: Literal["word", "bpe"] = "word"
    """Unit of the vocabulary: whole words (in scripts without spaces, single letters), or subwords
    (byte-pair encoding)."""
    vocab_size: int = 30_000
    """Maximum size of the vocabulary."""
    min_frequency: int = 2
    """Minimum number of occurrences of a word or subword in the training texts."""
    max_length: int = 128
    """Maximum number of tokens per text; longer texts are truncated."""


@dataclass(frozen=True)
class ModelConfig:
    """Architecture: embedding, LSTM, pooling, linear layer."""

    embedding_dim: int = 32
    """Size of a token embedding."""
    hidden_dim: int = 64
    """Size of the LSTM state per direction."""
    num_layers: int = 1
    """Number of LSTM layers."""
    bidirectional: bool = True
    """Read each text in both directions."""
    pooling: Literal["last", "max", "mean", "attention"] = "max"
    """How to combine the LSTM states of a text into one vector."""
    dropout: float = 0.2
    """Dropout rate between LSTM layers and before the linear layer."""
    embedding_dropout: float = 0.2
    """Dropout rate of the embeddings."""
    word_dropout: float = 0.1
    """Share of training tokens to replace with the unknown token."""


@dataclass(frozen=True)
class VectorsConfig:
    """Word vectors, from which the embedding starts."""

    vectors: str = "none"
    """Source of the vectors: none (random embeddings), builtin (a table of English words), or a
    sentence encoder: minilm, another registry name, a Hub id or a folder."""


@dataclass(frozen=True)
class OptimizationConfig(TrainingConfig):
    """Precision of training."""

    precision: Literal["fp32", "fp16", "bf16"] = "fp32"
    """Number format of the forward pass; fp16 and bf16 require CUDA."""


Preset = Literal["feather", "classic"]


@dataclass(frozen=True)
class TrainConfig(
    OutputConfig, OptimizationConfig, VectorsConfig, ModelConfig, TokenizerConfig, DataConfig
):
    """Preset."""

    kind: ClassVar[str] = "lstm"
    before = MappingProxyType[str, Any]({"vectors": "none"})

    preset: Preset = "feather"
    """Defaults of all other options: feather (1 layer, small embeddings) or classic (3 layers)."""

    def __post_init__(self) -> None:
        DataConfig.__post_init__(self)
        OutputConfig.__post_init__(self)
        OptimizationConfig.__post_init__(self)
        require_range(self, "at least 1", "vocab_size", "min_frequency", "max_length")
        require_range(self, "at least 1", "embedding_dim", "hidden_dim", "num_layers")
        if self.vocab_size < 3:
            raise UsageError("--vocab_size must be at least 3: padding, unknown token and one word")
        require_range(self, "above 0", "learning_rate")
        require_range(self, "in [0, 1)", "dropout", "embedding_dropout", "word_dropout")


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
    """Returns the config of a preset with some fields replaced."""
    return TrainConfig(**{**PRESETS[name], "preset": name, **overrides})
