"""The embedding while it is trained from word vectors: E · P + Δ.

E (V, D) holds the vector of each word of the vocabulary and is fixed, P (D, embedding_dim) is
learned, and Δ (V, embedding_dim) is learned for each word. Words without a vector have a row of
zeros in E, so Δ alone is their embedding. After training, the sum is one table: an LSTM is the same
network with or without word vectors.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from lstm.encoder import EMBEDDING_STD, LSTMClassifier


class VectorEmbedding(nn.Embedding):
    """An embedding E · P + Δ; `weight` is Δ.

    Args:
        embedding: The randomly initialized embedding: Δ of the words without a vector. The Δ of all
            others starts at 0.
        vectors: E (V, D), float32, with a standard deviation of 1 per column.
    """

    vectors: Tensor

    def __init__(self, embedding: nn.Embedding, vectors: Tensor) -> None:
        has_vector = vectors.any(dim=1, keepdim=True)
        delta = embedding.weight.detach().masked_fill(has_vector, 0.0)
        rows, columns = delta.shape
        super().__init__(rows, columns, embedding.padding_idx, _weight=delta)
        # Not in the state, which would be several times as large; its hash is instead.
        self.register_buffer("vectors", vectors, persistent=False)
        self._sha256 = hashlib.sha256(vectors.numpy().tobytes()).digest()
        # The first columns are the axes of the largest variance.
        self.projection = nn.Parameter(EMBEDDING_STD * torch.eye(vectors.shape[1], columns))

    def forward(self, input_ids: Tensor) -> Tensor:
        """Returns the embeddings (B, T, embedding_dim) of input_ids (B, T)."""
        if not self.training:  # exactly the values of the final table
            return functional.embedding(input_ids, self.table())
        known = functional.embedding(input_ids, self.vectors) @ self.projection
        return super().forward(input_ids) + known

    def table(self) -> Tensor:
        """Returns E · P + Δ, (V, embedding_dim)."""
        return self.vectors @ self.projection + self.weight

    def collapsed(self) -> nn.Embedding:
        """Returns the embedding with the same values."""
        table = self.table().detach()
        return nn.Embedding(
            self.num_embeddings, self.embedding_dim, self.padding_idx, _weight=table
        )

    def get_extra_state(self) -> Tensor:
        """Returns the SHA-256 of E as bytes (32,)."""
        return torch.tensor(list(self._sha256), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Checks that a saved state belongs to the same E.

        Raises:
            ValueError: It belongs to other word vectors.
        """
        if bytes(state.tolist()) != self._sha256:
            raise ValueError("the word vectors have changed")


@contextmanager
def trained_from(module: LSTMClassifier, vectors: Tensor | None) -> Iterator[None]:
    """Replaces the embedding by E · P + Δ until the context ends, and then by the sum.

    Args:
        module: An untrained network.
        vectors: E (V, D) on the CPU; None: the embedding stays as it is.
    """
    if vectors is None:
        yield
        return
    module.embedding = embedding = VectorEmbedding(module.embedding, vectors)
    try:
        yield
    finally:
        module.embedding = embedding.collapsed()
