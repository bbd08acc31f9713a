"""Batches of like length."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lstm.padding import padded

_POOL = 4  # batches


@dataclass(frozen=True)
class TokenBatch:
    """B texts as ids, padded on the right to the longest of them.

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
    """Yields every index once, in random batches of texts of like length.

    All indices are shuffled, cut into pools of 4 batches, sorted by length within a pool, and the
    batches are shuffled again. Larger pools spare more padding, and cost quality: their batches
    are less mixed.

    Args:
        lengths: Tokens of each text.
        batch_size: Indices per batch; the last one may have fewer.
        seed: Numbers that together seed the order, such as (seed of the run, epoch, pass).
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(lengths))
    pool = _POOL * batch_size
    batches = []
    for start in range(0, len(order), pool):
        by_length = sorted(order[start : start + pool].tolist(), key=lambda index: lengths[index])
        batches += [by_length[i : i + batch_size] for i in range(0, len(by_length), batch_size)]
    for position in rng.permutation(len(batches)):
        yield batches[position]
