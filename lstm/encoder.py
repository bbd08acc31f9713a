"""The network: embedding, LSTM, pooling, linear layer.

The logits of a text do not depend on the other texts of its batch: the backward direction reads
each text reversed within its own length, and pooling masks the padding. Packed sequences would do
the same, but neither ONNX nor CUDA graphs support them.
"""

import torch
from torch import Tensor, nn

from lstm.config import ModelConfig
from lstm.tokenizer import PAD_ID, UNK_ID

# Embeddings of rare words stay close to their initial values. With torch's default standard
# deviation of 1 they add so much noise that validation macro-F1 drops by about one point.
EMBEDDING_STD = 0.3


class LSTMEncoder(nn.Module):
    """A stack of unidirectional or bidirectional LSTM layers.

    Source: Hochreiter & Schmidhuber (1997), Long Short-Term Memory; Schuster & Paliwal (1997),
    Bidirectional Recurrent Neural Networks.

    Args:
        input_dim: Input features per token.
        hidden_dim: H, state size per direction.
        num_layers: Number of layers, at least 1.
        bidirectional: Whether each layer also reads the text backwards.
        dropout: Dropout rate between layers.
    """

    def __init__(
        self, input_dim: int, hidden_dim: int, num_layers: int, bidirectional: bool, dropout: float
    ) -> None:
        super().__init__()
        self.directions = 2 if bidirectional else 1
        self.output_dim = self.directions * hidden_dim
        inputs = [input_dim] + [self.output_dim] * (num_layers - 1)
        self.forwards = nn.ModuleList(nn.LSTM(dim, hidden_dim, batch_first=True) for dim in inputs)
        self.backwards = nn.ModuleList(
            nn.LSTM(dim, hidden_dim, batch_first=True) for dim in inputs * (self.directions - 1)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, embedded: Tensor, lengths: Tensor) -> Tensor:
        """Returns the states of the last layer.

        Args:
            embedded: (B, T, input_dim).
            lengths: (B,) int64.

        Returns:
            (B, T, directions * H); undefined beyond the length of each text.
        """
        states = embedded
        for layer, forwards in enumerate(self.forwards):
            if layer:
                states = self.dropout(states)
            outputs = forwards(states)[0]  # (B, T, H)
            if self.directions == 2:
                backwards = self.backwards[layer](_reverse(states, lengths))[0]
                outputs = torch.cat([outputs, _reverse(backwards, lengths)], dim=-1)
            states = outputs
        return states


def _reverse(sequences: Tensor, lengths: Tensor) -> Tensor:
    """Reverses each sequence of (B, T, D) within its own length; padding stays in place."""
    positions = torch.arange(sequences.shape[1], device=sequences.device)  # (T,)
    mirrored = lengths.unsqueeze(1) - 1 - positions  # (B, T)
    index = torch.where(mirrored >= 0, mirrored, positions)
    return sequences.gather(1, index.unsqueeze(-1).expand_as(sequences))


class LSTMClassifier(nn.Module):
    """Embedding, LSTM, pooling and linear layer: token ids to logits.

    Args:
        vocab_size: V, rows of the embedding.
        num_labels: C, number of classes.
        config: Dimensions, pooling and dropout.
    """

    def __init__(self, vocab_size: int, num_labels: int, config: ModelConfig) -> None:
        super().__init__()
        self.pooling = config.pooling
        self.word_dropout = config.word_dropout
        self.embedding = nn.Embedding(vocab_size, config.embedding_dim, padding_idx=PAD_ID)
        with torch.no_grad():
            self.embedding.weight.mul_(EMBEDDING_STD)
        self.embedding_dropout = nn.Dropout(config.embedding_dropout)
        self.encoder = LSTMEncoder(
            config.embedding_dim,
            config.hidden_dim,
            config.num_layers,
            config.bidirectional,
            config.dropout,
        )
        features = self.encoder.output_dim
        self.attention = nn.Linear(features, 1) if config.pooling == "attention" else None
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(features, num_labels)

    def forward(self, input_ids: Tensor, lengths: Tensor) -> Tensor:
        """Returns the logits (B, C) of input_ids (B, T) int64 with lengths (B,) int64."""
        return self.head(self.dropout(self.embed(input_ids, lengths)))

    def embed(self, input_ids: Tensor, lengths: Tensor) -> Tensor:
        """Returns the input of the head: one vector (B, F) per text."""
        if self.training and self.word_dropout:
            dropped = torch.rand(input_ids.shape, device=input_ids.device) < self.word_dropout
            input_ids = input_ids.masked_fill(dropped, UNK_ID)
        embedded = self.embedding_dropout(self.embedding(input_ids))  # (B, T, E)
        states = self.encoder(embedded, lengths)  # (B, T, F)
        return self.pool(states, lengths)

    def pool(self, states: Tensor, lengths: Tensor) -> Tensor:
        """Pools the states (B, T, F) of each text, without padding, into one vector (B, F)."""
        if self.pooling == "last":
            return self._last(states, lengths)
        positions = torch.arange(states.shape[1], device=states.device)
        padding = (positions >= lengths.unsqueeze(1)).unsqueeze(-1)  # (B, T, 1)
        if self.pooling == "max":
            return states.masked_fill(padding, float("-inf")).amax(dim=1)
        if self.attention is None:
            return states.masked_fill(padding, 0.0).sum(dim=1) / lengths.unsqueeze(1)
        weights = self.attention(states).masked_fill(padding, float("-inf")).softmax(dim=1)
        return (weights * states).sum(dim=1)

    def _last(self, states: Tensor, lengths: Tensor) -> Tensor:
        """Returns the final state of each direction: at the last token, and at the first."""
        index = (lengths - 1).view(-1, 1, 1).expand(-1, 1, states.shape[-1])
        ends = states.gather(1, index).squeeze(1)  # (B, F)
        if self.encoder.directions == 1:
            return ends
        hidden_dim = states.shape[-1] // 2
        return torch.cat([ends[:, :hidden_dim], states[:, 0, hidden_dim:]], dim=-1)
