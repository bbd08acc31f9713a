"""Which LSTMs a budget of bytes allows: the size of a file, known before the network is trained.

The integers of a file are written in as few bits as their frequencies allow, so no formula says
its size. An untrained network does: in int8 and int4 its file was larger than that of the trained
one by 0.2 to 0.4 % (`feather` on the bundled corpus), in fp16 as large.
"""

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil

import numpy as np
from tokenizers import Tokenizer

from compress.lstm.quantization import int4_storage, int8_storage, quantize
from featherweight.data.dataset import Dataset
from featherweight.device import seed_everything
from featherweight.errors import UsageError
from lstm.classifier import TextClassifier, model_config
from lstm.config import TrainConfig
from lstm.encoder import LSTMClassifier
from lstm.storage import Format
from lstm.tokenizer import train_tokenizer

FORMATS: Mapping[str, Callable[[TextClassifier], dict[str, Format]]] = {
    "fp16": lambda it: dict.fromkeys(it.storage, "fp16"),
    "int8": int8_storage,
    "int4": int4_storage,
}
NARROWEST, WIDEST = 8, 128  # numbers of an embedding, and of the state of a direction
_FEWEST_WORDS = 100
_VOCABULARIES = 100  # sizes that are tried, each some percent above the one before
_NETWORK = 0.5  # share of the budget that dimensions may take, so that there are words left to know
_USED = 0.99  # share of the budget that an untrained file may take


@dataclass(frozen=True)
class Shape:
    """What decides the size of an LSTM's file.

    Attributes:
        storage: Name of the formats of its numbers: "fp16", "int8" or "int4".
        embedding_dim: Numbers per token.
        hidden_dim: Numbers of LSTM state per direction.
        vocab_size: Most entries of the vocabulary.
    """

    storage: str
    embedding_dim: int
    hidden_dim: int
    vocab_size: int

    def __str__(self) -> str:
        return (
            f"{self.storage}, embedding {self.embedding_dim}, hidden {self.hidden_dim}, "
            f"{self.vocab_size} words"
        )


class Budget:
    """Bytes, and the LSTMs of one data set whose files are not larger.

    Attributes:
        size_bytes: Most bytes of a file.
        storages: Names of the formats in which at least the smallest LSTM fits.

    Args:
        size_bytes: Most bytes of a file.
        origin: The LSTM whose labels and device the others have.
        flags: How it was trained; all but the dimensions and the vocabulary is kept.
        dataset: Whose training split the vocabulary is learned from.
        method: What stands in brackets behind the name.

    Raises:
        UsageError: Not even the smallest LSTM fits.
    """

    def __init__(
        self,
        size_bytes: int,
        origin: TextClassifier,
        flags: TrainConfig,
        dataset: Dataset,
        method: str,
    ) -> None:
        self.size_bytes = size_bytes
        self._origin, self._flags, self._method = origin, flags, method
        self._texts = dataset.train.texts
        self._tokenizers: dict[int, Tokenizer] = {}
        most = self._tokenizer(flags.vocab_size).get_vocab_size()
        self._fewest = min(_FEWEST_WORDS, most)
        steps = np.geomspace(self._fewest, most, _VOCABULARIES).round().astype(int)
        self._vocabularies = sorted(set(steps.tolist()))
        smallest = {
            it: self.file_bytes(Shape(it, NARROWEST, NARROWEST, self._fewest)) for it in FORMATS
        }
        self.storages = [it for it, needed in smallest.items() if needed <= size_bytes * _USED]
        if not self.storages:
            raise UsageError(
                f"--target_size of {size_bytes} bytes cannot be met: the smallest that can is "
                f"{ceil(min(smallest.values()) / _USED)}"
            )

    def widest_embedding(self, storage: str) -> int:
        """Returns the largest embedding that leaves room for words."""
        return self._largest(
            range(NARROWEST, WIDEST + 1),
            _NETWORK,
            lambda dim: Shape(storage, dim, NARROWEST, self._fewest),
        )

    def widest_hidden(self, storage: str, embedding_dim: int) -> int:
        """Returns the largest state that leaves room for words."""
        return self._largest(
            range(NARROWEST, WIDEST + 1),
            _NETWORK,
            lambda dim: Shape(storage, embedding_dim, dim, self._fewest),
        )

    def largest_vocabulary(self, storage: str, embedding_dim: int, hidden_dim: int) -> int:
        """Returns the largest vocabulary with which a file fits."""
        return self._largest(
            self._vocabularies,
            _USED,
            lambda words: Shape(storage, embedding_dim, hidden_dim, words),
        )

    def _largest(
        self, values: Sequence[int], share: float, shape_of: Callable[[int], Shape]
    ) -> int:
        """Returns the last value with which a share of the budget is enough, or the first."""
        fit = bisect_right(
            values, share * self.size_bytes, key=lambda value: self.file_bytes(shape_of(value))
        )
        return values[max(0, fit - 1)]

    def file_bytes(self, shape: Shape) -> int:
        """Returns the size of the file of an untrained LSTM."""
        return self.stored(self.untrained(shape), shape).size_bytes()

    def untrained(self, shape: Shape) -> TextClassifier:
        """Returns an LSTM in fp32 as a training starts with it."""
        tokenizer = self._tokenizer(shape.vocab_size)
        architecture = replace(
            model_config(self._flags),
            embedding_dim=shape.embedding_dim,
            hidden_dim=shape.hidden_dim,
        )
        labels = self._origin.labels
        seed_everything(self._flags.seed)
        module = LSTMClassifier(tokenizer.get_vocab_size(), len(labels), architecture)
        return TextClassifier(
            self._origin.name, labels, tokenizer, module, architecture, self._origin.device
        )

    def stored(self, classifier: TextClassifier, shape: Shape) -> TextClassifier:
        """Returns a copy of an LSTM in the formats of a shape."""
        return quantize(classifier, FORMATS[shape.storage](classifier), self._method)

    def _tokenizer(self, vocab_size: int) -> Tokenizer:
        if vocab_size not in self._tokenizers:
            flags = replace(self._flags, vocab_size=vocab_size)
            self._tokenizers[vocab_size] = train_tokenizer(self._texts, flags)
        return self._tokenizers[vocab_size]
