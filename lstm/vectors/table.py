"""A table of word vectors: int8 numbers with one scale per row, in a safetensors file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from featherweight.disk.atomic import atomic_open
from featherweight.errors import WeightsError, first_line
from featherweight.weights import with_sorted_metadata

BUILTIN = Path(__file__).parent / "english.safetensors"
_MAX_INTEGER = 127


@dataclass(frozen=True)
class VectorTable:
    """The vectors of N words.

    Attributes:
        words: The words, each once.
        integers: (N, D) int8.
        scales: (N, 1) fp32: the vector of a word is its scale times its integers.
    """

    words: Sequence[str]
    integers: Tensor
    scales: Tensor

    @classmethod
    def of(cls, words: Sequence[str], vectors: Tensor) -> "VectorTable":
        """Returns a table of words and their vectors (N, D), rounded to 8 bits."""
        scales = vectors.abs().amax(dim=1, keepdim=True) / _MAX_INTEGER
        return cls(words, (vectors / scales).round().to(torch.int8), scales)

    def select(self, words: Sequence[str]) -> Tensor:
        """Returns the vectors (V, D) of V words as float32; unknown words have zeros."""
        known = [row for row, word in enumerate(words) if word in self._rows]
        rows = [self._rows[words[row]] for row in known]
        vectors = torch.zeros(len(words), self.integers.shape[1])
        vectors[known] = self.integers[rows] * self.scales[rows]
        return vectors

    @cached_property
    def _rows(self) -> Mapping[str, int]:
        return {word: row for row, word in enumerate(self.words)}

    def save(self, path: Path, facts: Mapping[str, str]) -> None:
        """Writes the file atomically, with facts about its origin in the header."""
        text = "\n".join(self.words).encode()
        tensors = {
            "words": torch.frombuffer(bytearray(text), dtype=torch.uint8),
            "integers": self.integers,
            "scales": self.scales,
        }
        with atomic_open(path, "wb") as file:
            file.write(with_sorted_metadata(safetensors.torch.save(tensors, dict(facts))))

    @classmethod
    def load(cls, path: Path) -> "VectorTable":
        """Reads a file.

        Raises:
            WeightsError: The file is missing or damaged.
        """
        try:
            tensors = safetensors.torch.load(path.read_bytes())
            words = tensors["words"].numpy().tobytes().decode().split("\n")
            return cls(words, tensors["integers"], tensors["scales"])
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            reason = first_line(error)
            raise WeightsError(f"{path} is damaged ({reason}): install it again") from None
