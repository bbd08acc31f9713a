"""The vectors of a vocabulary: from the table of the package, or from a sentence encoder."""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from featherweight.errors import UsageError, WeightsError
from featherweight.loading import encode_words
from lstm.tokenizer import UNK_ID, whole_words
from lstm.vectors.reduction import principal_components
from lstm.vectors.table import BUILTIN, VectorTable

logger = logging.getLogger("featherweight")

_CACHE = ".embeddings"  # folder of encoders' states, next to the runs


def vocabulary_vectors(
    name: str, tokenizer: Tokenizer, device: str, output_dir: Path
) -> Tensor | None:
    """Returns a vector for each token of a vocabulary.

    Args:
        name: "none", "builtin", or a sentence encoder: registry name, Hub id or folder.
        tokenizer: Its V tokens; those that are no whole words have no vector.
        device: Device of an encoder, "cpu" or "cuda".
        output_dir: Folder of the runs; the states of an encoder are cached in it.

    Returns:
        (V, D) float32 on the CPU, with zeros for tokens without a vector; None for "none".

    Raises:
        UsageError: There is no encoder with this name, or it is not available.
        WeightsError: The table of the package is damaged.
    """
    if name == "none":
        return None
    words = whole_words(tokenizer)
    if name == "builtin":
        return VectorTable.load(BUILTIN).select(words)
    return _encoded(name, words, device, output_dir / _CACHE)


def _encoded(encoder: str, words: Sequence[str], device: str, cache_dir: Path) -> Tensor:
    """Returns the vectors (V, D) of all words, reduced from the states of an encoder."""
    known = [row for row, word in enumerate(words) if word]
    if not known:  # subwords of one letter each
        return torch.zeros(len(words), 1)
    try:
        states = encode_words(encoder, [words[row] for row in known], device, cache_dir)
    except (UsageError, WeightsError) as error:
        raise UsageError(f"{error}; --vectors builtin needs no encoder") from None
    reduced = torch.from_numpy(principal_components(states))
    vectors = torch.zeros(len(words), reduced.shape[1])
    vectors[known] = reduced
    return vectors


def log_coverage(name: str, vectors: Tensor, ids: Iterable[Sequence[int]]) -> None:
    """Logs the share of a vocabulary that has vectors, and of the training tokens.

    Args:
        name: Where the vectors come from.
        vectors: (V, D), with zeros for tokens without a vector.
        ids: Token ids of the training texts.
    """
    known = vectors.any(dim=1)
    counts = torch.bincount(torch.tensor([i for row in ids for i in row]), minlength=len(known))
    logger.info(
        "word vectors (%s): %d of %d words of the vocabulary, %.1f %% of the training tokens",
        name, known.sum(), len(known) - UNK_ID - 1, 100 * counts[known].sum() / counts.sum(),
    )  # fmt: skip
