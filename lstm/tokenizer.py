"""Tokenizer: a normalizer and a vocabulary learned from the training texts; token ids, padding.

The normalizer maps variants such as "I'm SOOOO happy!!! @ann" and "im soo happy" to the same
tokens. Its steps, in this order, none of which looks across a space:

1. Invisible characters are dropped: control and format characters (Cc, Cf) and all others that
   Unicode calls default-ignorable, such as variation selectors and Hangul fillers. White space
   stays. So do two kinds inside an emoji: the joiner U+200D between two pictographs, and the tag
   characters after a black flag. The spacing accent "´", typed as an apostrophe, is dropped, too.
2. HTML entities are decoded, also doubly escaped ones ("&amp;lt;"): "&", apostrophes, quotes,
   "<", ">", "!", "?", "/", parentheses and the ellipsis, each by name, decimal or hexadecimal
   number; those of invisible characters are dropped. All other numbers and names of HTML 4 become
   a space, since a tokenizer file cannot compute a character. So does the Braille blank U+2800.
3. NFKC and lower case, which maps the Turkish dotted capital I to "i".
4. A link becomes one token, and so does an @name; both end before a letter of a script without
   spaces, unless the name starts with one.
5. Apostrophes and the Arabic tatweel are removed.
6. A letter repeated more than twice is shortened to two.
7. Punctuation that is not in the vocabulary becomes a space.

The word tokenizer splits the result into runs of letters, marks and digits, emoji, and single other
characters. Scripts written without spaces (Chinese, Japanese, Thai, Lao, Khmer, Burmese) are split
into letters with their combining marks. Byte-pair encoding learns longer units from whole runs.

Differences from nltk's TweetTokenizer, the reference in the tests: "#" is a token of its own, so
"#happy" contains the word "happy"; elongations keep two letters instead of three, because real
words have at most two; "don't" becomes "dont", as in the benchmark data; all links and all @names
share one token each; emoticons such as ":)" are split into single characters.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from featherweight.classifier import IntArray
from featherweight.data.token_patterns import AFTER_FOLDING, BEFORE_FOLDING, TOKEN
from featherweight.errors import DataError
from lstm.config import TokenizerConfig

PAD, UNK = "<pad>", "<unk>"
PAD_ID, UNK_ID = 0, 1
_WORD_START = "▁"

_NORMALIZATION = [
    *(normalizers.Replace(Regex(pattern), text) for pattern, text in BEFORE_FOLDING),
    normalizers.NFKC(),
    normalizers.Lowercase(),
    *(normalizers.Replace(Regex(pattern), text) for pattern, text in AFTER_FOLDING),
]


def train_tokenizer(texts: Sequence[str], config: TokenizerConfig) -> Tokenizer:
    """Learns a vocabulary from texts; id 0 is padding, id 1 the unknown token.

    The tokenizer drops punctuation that is not in the vocabulary. Otherwise a model trained
    without any "!" would read it as an unknown word.

    Args:
        texts: The texts of the training split only.
        config: Kind and limits of the vocabulary.

    Raises:
        DataError: No word occurs often enough.
    """
    tokenizer, trainer = _untrained(config)
    tokenizer.normalizer = normalizers.Sequence(_NORMALIZATION)
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() <= UNK_ID + 1:
        raise DataError(
            f"no word occurs {config.min_frequency} times in the training texts: "
            "lower --min_frequency or add data"
        )
    tokenizer.normalizer = normalizers.Sequence(
        [*_NORMALIZATION, _drop_unknown_punctuation(tokenizer.get_vocab())]
    )
    tokenizer.enable_truncation(config.max_length)
    # Without the special tokens, so that a literal "<pad>" in a text is not padding.
    return Tokenizer.from_str(json.dumps(json.loads(tokenizer.to_str()) | {"added_tokens": []}))


def _untrained(config: TokenizerConfig) -> tuple[Tokenizer, trainers.Trainer]:
    options: dict[str, Any] = {
        "vocab_size": config.vocab_size,
        "min_frequency": config.min_frequency,
        "special_tokens": [PAD, UNK],
        "show_progress": False,
    }
    split = pre_tokenizers.Split(Regex(TOKEN[config.tokenizer]), behavior="removed", invert=True)
    if config.tokenizer == "word":
        tokenizer = Tokenizer(models.WordLevel(unk_token=UNK))
        tokenizer.pre_tokenizer = split
        return tokenizer, trainers.WordLevelTrainer(**options)
    tokenizer = Tokenizer(models.BPE(unk_token=UNK))
    # Marks the start of words. The suffix of the trainer is no alternative: it gives ids that
    # differ from training to training.
    mark = pre_tokenizers.Metaspace(_WORD_START, prepend_scheme="always", split=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, mark])
    tokenizer.decoder = decoders.Metaspace(_WORD_START, prepend_scheme="always", split=False)
    return tokenizer, trainers.BpeTrainer(**options)


def _drop_unknown_punctuation(vocabulary: dict[str, int]) -> normalizers.Normalizer:
    tokens = {token.removeprefix(_WORD_START) for token in vocabulary}
    # The placeholders contain "<" and ">".
    known = {token for token in tokens if len(token) == 1 and not token.isalnum()} | {"<", ">"}
    kept = "".join(re.escape(character) for character in sorted(known))
    dropped = rf"[\p{{P}}\p{{Sm}}\p{{Sc}}\p{{Sk}}]&&[^\p{{Emoji_Modifier}}{kept}]"
    return normalizers.Replace(Regex(f"[{dropped}]"), " ")


def load_tokenizer(serialized: str) -> Tokenizer:
    """Rebuilds a tokenizer from the JSON text of `Tokenizer.to_str`.

    Raises:
        ValueError: The text is not a tokenizer, or its padding and unknown ids are not 0 and 1.
    """
    try:
        tokenizer = Tokenizer.from_str(serialized)
    except Exception as error:  # the library raises bare Exception
        raise ValueError(f"not a tokenizer: {error}") from None
    if (tokenizer.token_to_id(PAD), tokenizer.token_to_id(UNK)) != (PAD_ID, UNK_ID):
        raise ValueError(f"the tokenizer does not have {PAD} = {PAD_ID} and {UNK} = {UNK_ID}")
    return tokenizer


def token_ids(tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[list[list[int]], int]:
    """Returns the ids of each text, at least one per text, and the number of truncated texts."""
    encodings = tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
    truncated = sum(bool(encoding.overflowing) for encoding in encodings)
    return [encoding.ids or [UNK_ID] for encoding in encodings], truncated


def unknown_ids(tokenizer: Tokenizer) -> list[int]:
    """Returns the ids that are no known word: padding, the unknown token, a bare word start."""
    word_start = tokenizer.token_to_id(_WORD_START)
    return [PAD_ID, UNK_ID, *([] if word_start is None else [word_start])]


def whole_words(tokenizer: Tokenizer) -> list[str]:
    """Returns the word of each token, by id; "" for special tokens and subwords inside a word."""
    vocabulary = tokenizer.get_vocab()
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    if isinstance(tokenizer.model, models.BPE):
        starts = [token if token.startswith(_WORD_START) else "" for token in tokens]
        tokens = [token.removeprefix(_WORD_START) for token in starts]
    return ["", "", *tokens[UNK_ID + 1 :]]


def padded(ids: Sequence[Sequence[int]]) -> tuple[IntArray, IntArray]:
    """Pads B lists of token ids on the right to the longest list.

    Returns:
        The ids (B, T) and the tokens per list (B,), both int64.
    """
    lengths = np.fromiter((len(row) for row in ids), dtype=np.int64, count=len(ids))
    input_ids = np.full((len(ids), lengths.max()), PAD_ID, dtype=np.int64)
    for row, length, target in zip(ids, lengths, input_ids, strict=True):
        target[:length] = row
    return input_ids, lengths
