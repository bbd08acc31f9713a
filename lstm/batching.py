"""Batches of texts of similar length."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lstm.tokenizer import padded

_POOL_BATCHES = 4


@dataclass(frozen=True)
class TokenBatch:
    """Token ids of B texts, padded on the right to the longest text.

    Attributes:
        input_ids: (B, T) int64.
        lengths: (B,) int64, tokens per text, each at least 1.
    """

    input_ids: Tensor
    lengths: Tensor

    def to(self, device: str) -> "TokenBatch":
        """Returns the batch on another device."""
        return TokenBatch(self.input_ids.to(device), self.lengths.to(device))


def pad(ids: Sequence[Sequence[int]]) -> TokenBatch:
    """Makes one batch of B lists of token ids."""
    input_ids, lengths = padded(ids)
    return TokenBatch(torch.from_numpy(input_ids), torch.from_numpy(lengths))


def shuffled_batches(
    lengths: Sequence[int], batch_size: int, seed: Sequence[int]
) -> Iterator[list[int]]:
    """Yields every index once, in random batches of texts of similar length.

    All indices are shuffled and cut into pools of 4 batches; each pool is sorted by length, and
    the order of the batches is shuffled. Larger pools need less padding but mix the batches less,
    which lowers the quality of the model.

    Args:
        lengths: Tokens of each text.
        batch_size: Indices per batch; the last batch may be smaller.
        seed: Numbers that together seed the order, e.g. (seed of the run, epoch, pass).
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(lengths))
    pool_size = _POOL_BATCHES * batch_size
    batches = []
    for start in range(0, len(order), pool_size):
        pool = sorted(order[start : start + pool_size].tolist(), key=lengths.__getitem__)
        batches += [pool[i : i + batch_size] for i in range(0, len(pool), batch_size)]
    for position in rng.permutation(len(batches)):
        yield batches[position]
