"""Texts -> token ids of a tokenizer of `transformers`, and the number of tokens that it knows."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from featherweight.classifier import IntArray, count_known
from featherweight.data.texts import as_texts
from transformer_eval.normalization import NORMALIZERS

_WORD_STARTS = ["▁", "Ġ"]  # of SentencePiece and of byte-level BPE; alone, they are no word


def tokenized(
    tokenizer: Any, texts: Sequence[str], normalizer: str | None, max_length: int, kind: str
) -> tuple[Any, int]:
    """Tokenizes B texts and pads them to the longest of them.

    Args:
        tokenizer: A tokenizer of `transformers`.
        texts: The B texts, before normalization.
        normalizer: Name of the text normalization, or None.
        max_length: Maximum number of tokens; longer texts are truncated.
        kind: Type of the arrays: "pt" or "np".

    Returns:
        The batch, and the number of truncated texts.
    """
    texts = as_texts(texts)
    if normalizer:
        texts = [NORMALIZERS[normalizer](text) for text in texts]
    batch = tokenizer(
        texts, padding="longest", truncation=True, max_length=max_length, return_tensors=kind
    )
    lengths = batch["attention_mask"].sum(1).tolist()
    # A text of maximum length was either truncated or fits exactly.
    longest = [text for text, n in zip(texts, lengths, strict=True) if n >= max_length]
    untruncated = tokenizer(longest)["input_ids"] if longest else []
    return batch, sum(len(ids) > max_length for ids in untruncated)


def known_words(
    tokenizer: Any, texts: Iterable[str], normalizer: str | None, max_length: int
) -> IntArray:
    """Returns the number of tokens of each of N texts, neither unknown nor special ones, (N,).

    For the arguments, see `tokenized`.
    """

    def input_ids(batch: list[str]) -> IntArray:
        inputs, _ = tokenized(tokenizer, batch, normalizer, max_length, "np")
        return np.asarray(inputs["input_ids"])

    return count_known(texts, input_ids, unknown_token_ids(tokenizer))


def unknown_token_ids(tokenizer: Any) -> list[int]:
    """Returns the ids that are no known word: special tokens, among them the unknown one."""
    word_starts = tokenizer.convert_tokens_to_ids(_WORD_STARTS)  # absent: None, or the unknown id
    return [i for i in (*tokenizer.all_special_ids, *word_starts) if i is not None]
