"""Which LSTMs fit a size limit: file sizes, known before the network is trained.

The integers of a file have variable-length codes, so its size has no formula and is measured on an
untrained network. For `feather` on the bundled corpus, the file of the untrained network was larger
than that of the trained one by 0.2 to 0.4 % in int8 and int4, and equally large in fp16.
"""

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil

import numpy as np
from tokenizers import Tokenizer

from compress.lstm.quantization import StorageOf, int4_storage, int8_storage, quantize
from compress.origin import Origin
from featherweight.device import seed_everything
from featherweight.errors import UsageError
from lstm.classifier import TextClassifier, model_config
from lstm.config import TrainConfig
from lstm.encoder import LSTMClassifier
from lstm.tokenizer import train_tokenizer

FORMATS: Mapping[str, StorageOf] = {
    "fp16": lambda classifier: dict.fromkeys(classifier.storage, "fp16"),
    "int8": int8_storage,
    "int4": int4_storage,
}
MIN_DIM, _MAX_DIM = 8, 128  # of an embedding, and of the state of a direction
_DIMS = range(MIN_DIM, _MAX_DIM + 1)
_MIN_WORDS = 100
_VOCABULARIES = 100  # number of vocabulary sizes to choose from, in geometric steps
_NETWORK_SHARE = 0.5  # fraction of the budget for the dimensions; the rest is for words
_FILE_SHARE = 0.99  # fraction of the budget for an untrained file


@dataclass(frozen=True)
class Shape:
    """What determines the size of an LSTM's file.

    Attributes:
        storage: Number format: "fp16", "int8" or "int4".
        embedding_dim: Size of an embedding.
        hidden_dim: Size of the LSTM state per direction.
        vocab_size: Maximum number of vocabulary entries.
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
    """A size limit, and the LSTMs for one data set that fit it.

    Its LSTMs have the labels, device and training flags of the origin, except for dimensions and
    vocabulary, and `method` as suffix of their name.

    Attributes:
        size_bytes: Maximum size of a file.
        storages: Number formats in which at least the smallest LSTM fits.

    Raises:
        UsageError: Not even the smallest LSTM fits.
    """

    def __init__(self, size_bytes: int, origin: Origin, flags: TrainConfig, method: str) -> None:
        self.size_bytes = size_bytes
        self._origin, self._flags, self._method = origin, flags, method
        self._tokenizers: dict[int, Tokenizer] = {}
        max_words = self._tokenizer(flags.vocab_size).get_vocab_size()
        self._min_words = min(_MIN_WORDS, max_words)
        steps = np.geomspace(self._min_words, max_words, _VOCABULARIES).round().astype(int)
        self._vocabularies = sorted(set(steps.tolist()))
        smallest = {
            storage: self.file_bytes(Shape(storage, MIN_DIM, MIN_DIM, self._min_words))
            for storage in FORMATS
        }
        self.storages = [
            storage for storage, size in smallest.items() if size <= size_bytes * _FILE_SHARE
        ]
        if not self.storages:
            raise UsageError(
                f"--target_size of {size_bytes} bytes is too small: the minimum is "
                f"{ceil(min(smallest.values()) / _FILE_SHARE)}"
            )

    def max_embedding_dim(self, storage: str) -> int:
        """Returns the largest embedding that leaves room for words."""
        return self._largest(
            _DIMS, _NETWORK_SHARE, lambda dim: Shape(storage, dim, MIN_DIM, self._min_words)
        )

    def max_hidden_dim(self, storage: str, embedding_dim: int) -> int:
        """Returns the largest LSTM state that leaves room for words."""
        return self._largest(
            _DIMS, _NETWORK_SHARE, lambda dim: Shape(storage, embedding_dim, dim, self._min_words)
        )

    def max_vocab_size(self, storage: str, embedding_dim: int, hidden_dim: int) -> int:
        """Returns the largest vocabulary with which a file fits."""
        return self._largest(
            self._vocabularies,
            _FILE_SHARE,
            lambda words: Shape(storage, embedding_dim, hidden_dim, words),
        )

    def _largest(
        self, values: Sequence[int], share: float, shape_of: Callable[[int], Shape]
    ) -> int:
        """Returns the largest value that fits a fraction of the budget, or the first one."""
        fitting = bisect_right(
            values, share * self.size_bytes, key=lambda value: self.file_bytes(shape_of(value))
        )
        return values[max(0, fitting - 1)]

    def file_bytes(self, shape: Shape) -> int:
        """Returns the size of the file of an untrained LSTM."""
        return self.stored(self.untrained(shape), shape).size_bytes()

    def untrained(self, shape: Shape) -> TextClassifier:
        """Returns an fp32 LSTM with the weights that training starts from."""
        tokenizer = self._tokenizer(shape.vocab_size)
        architecture = replace(
            model_config(self._flags),
            embedding_dim=shape.embedding_dim,
            hidden_dim=shape.hidden_dim,
        )
        origin: TextClassifier = self._origin.classifier
        seed_everything(self._flags.seed)
        module = LSTMClassifier(tokenizer.get_vocab_size(), len(origin.labels), architecture)
        return TextClassifier(
            origin.name, origin.labels, tokenizer, module, architecture, origin.device
        )

    def stored(self, classifier: TextClassifier, shape: Shape) -> TextClassifier:
        """Returns a copy of an LSTM in the number format of a shape."""
        return quantize(classifier, FORMATS[shape.storage](classifier), self._method)

    def _tokenizer(self, vocab_size: int) -> Tokenizer:
        if vocab_size not in self._tokenizers:
            flags = replace(self._flags, vocab_size=vocab_size)
            self._tokenizers[vocab_size] = train_tokenizer(self._origin.dataset.train.texts, flags)
        return self._tokenizers[vocab_size]
