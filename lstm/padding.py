"""Lists of token ids -> arrays, for PyTorch and for whoever has none."""

from collections.abc import Sequence

import numpy as np

from featherweight.classifier import IntArray
from lstm.tokenizer import PAD_ID


def padded(ids: Sequence[Sequence[int]]) -> tuple[IntArray, IntArray]:
    """Pads B lists of token ids on the right to the longest of them.

    Returns:
        (B, T) the ids, and (B,) the tokens of each list, both int64.
    """
    lengths = np.fromiter((len(row) for row in ids), dtype=np.int64, count=len(ids))
    input_ids = np.full((len(ids), lengths.max()), PAD_ID, dtype=np.int64)
    for row, length, target in zip(ids, lengths, input_ids, strict=True):
        target[:length] = row
    return input_ids, lengths
