"""The interface of all models, used by evaluation, timing and comparison."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from featherweight.data.texts import as_texts

FloatArray = npt.NDArray[np.floating[Any]]
IntArray = npt.NDArray[np.int64]
Batch = Any  # what `encode` returns and `forward` takes; opaque to every caller


def softmax(logits: FloatArray) -> FloatArray:
    """Turns logits (N, C) into probabilities (N, C), float64, each row summing to 1."""
    exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def batches_by_length(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Yields the indices of N texts in batches of similar length, which need little padding.

    Args:
        lengths: Length of each text, in any unit.
        batch_size: Texts per batch; the last batch may be smaller.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def count_known(
    texts: Iterable[str],
    input_ids: Callable[[list[str]], IntArray],
    unknown_ids: Collection[int],
    batch_size: int = 256,
) -> IntArray:
    """Returns the number of known tokens of each of N texts, (N,).

    Args:
        texts: The texts.
        input_ids: Tokenizes B texts to token ids (B, T), padded to the longest.
        unknown_ids: Ids that are no known word: padding, special tokens, the unknown token.
        batch_size: Number of texts per batch.
    """
    texts = as_texts(texts)
    counts = np.zeros(len(texts), np.int64)
    for rows in batches_by_length([len(text) for text in texts], batch_size):
        ids = input_ids([texts[row] for row in rows])
        counts[rows] = np.isin(ids, list(unknown_ids), invert=True).sum(axis=1)
    return counts


class Classifier(ABC):
    """A text classifier with C labels; a subclass implements the abstract methods.

    Attributes:
        name: Name in tables, e.g. "feather (int8)".
        labels: Label names; the index is the class id.
        device: "cpu" or "cuda".
        dtype: Number format of the computation: "fp32", "fp16", "bf16", "int8".
        backend: Library that computes it: "torch", "onnxruntime", "sklearn", "numpy".
        truncated_texts: Number of texts that `encode` has truncated so far.
    """

    name: str
    labels: tuple[str, ...]
    device: str
    dtype: str = "fp32"
    backend: str
    truncated_texts: int = 0

    @abstractmethod
    def encode(self, texts: Sequence[str]) -> Batch:
        """Turns B texts into one batch for `forward`."""

    @abstractmethod
    def forward(self, batch: Batch) -> FloatArray:
        """Returns the logits (B, C) of a batch."""

    @abstractmethod
    def num_tokens(self, batch: Batch) -> int:
        """Returns the number of tokens of a batch, padding not counted."""

    @abstractmethod
    def num_parameters(self) -> int:
        """Returns the number of parameters."""

    @abstractmethod
    def size_bytes(self) -> int:
        """Returns the size of its files, including tokenizer and labels."""

    def logits(self, texts: Iterable[str], batch_size: int = 256) -> FloatArray:
        """Returns the logits (N, C) of N texts, in the order of the texts.

        Args:
            texts: A list, tuple, pandas Series, NumPy array or other iterable of strings.
            batch_size: Number of texts per batch.

        Raises:
            UsageError: It is one string, or a table.
            DataError: An element is not a string; the message names its index.
        """
        texts = as_texts(texts)
        logits = np.zeros((len(texts), len(self.labels)), dtype=np.float32)
        for rows in batches_by_length([len(text) for text in texts], batch_size):
            logits[rows] = self.forward(self.encode([texts[row] for row in rows]))
        return logits

    def predict_proba(self, texts: Iterable[str], batch_size: int = 256) -> FloatArray:
        """Returns class probabilities (N, C), columns in the order of `labels`."""
        return softmax(self.logits(texts, batch_size))

    def predict(self, texts: Iterable[str], batch_size: int = 256) -> list[str]:
        """Returns the most probable label name of each of N texts."""
        return [self.labels[index] for index in self.logits(texts, batch_size).argmax(axis=1)]

    def known_words(self, texts: Iterable[str]) -> IntArray:
        """Returns the number of tokens of each of N texts that the model knows, (N,).

        Neither the unknown token nor special tokens are counted. A text with 0 is empty for the
        model: its prediction says nothing about the text. By default all tokens count; a
        classifier with an unknown token or special tokens overrides this.
        """
        counts = [self.num_tokens(self.encode([text])) for text in as_texts(texts)]
        return np.array(counts, np.int64)
