"""Text to token ids: a vocabulary trained on the data, behind a normalizer saved with it.

The normalizer brings what people type to one form, so that "I'm SOOOO happy!!! @ann" and
"im soo happy" meet the same entries: NFKC, lower case, one token for links and one for @names,
apostrophes joined, elongations shortened to two letters, emoji kept.

Where it parts from nltk's TweetTokenizer, its reference in the tests: the hash sign stands apart,
so that "#happy" is the word "happy"; elongations keep two letters, not three, as real words have
no more; "don't" is "dont", the form of the benchmark; links and @names are one token each, since
none of them tells an emotion by itself; emoticons such as ":)" fall into their signs.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from featherweight.errors import DataError
from lstm.config import TokenizerConfig

PAD, UNK = "<pad>", "<unk>"
PAD_ID, UNK_ID = 0, 1
URL, USER = "<url>", "<user>"
_WORD_START = "▁"

_NORMALIZATION = [
    normalizers.Replace("´", ""),  # NFKC would make a space and an accent of it
    normalizers.NFKC(),
    normalizers.Lowercase(),
    normalizers.Replace(Regex(r"(?:https?://|www\.)\S+"), f" {URL} "),
    normalizers.Replace(Regex(r"(?<![\p{L}\p{N}_])@[\p{L}\p{N}_]+"), f" {USER} "),
    normalizers.Replace(Regex(r"['’‘`]"), ""),
    normalizers.Replace(Regex(r"(?<=(\p{L})\1)\1+"), ""),
    # The variation selector only chooses how an emoji is drawn.
    normalizers.Replace("\ufe0f", ""),
]

# One match a token: placeholders, words, flags, emoji with skin tone or joined, single signs.
_TOKEN = Regex(
    rf"{URL}|{USER}"
    r"|[\p{L}\p{M}\p{N}]+"
    r"|\p{RI}\p{RI}"
    r"|\p{Extended_Pictographic}\p{Emoji_Modifier}?"
    r"(?:\u200D\p{Extended_Pictographic}\p{Emoji_Modifier}?)*"
    r"|\S"
)


def train_tokenizer(texts: Sequence[str], config: TokenizerConfig) -> Tokenizer:
    """Learns a vocabulary from texts; id 0 is padding, id 1 any unknown token.

    Punctuation that did not make it into the vocabulary is dropped from then on: a model that
    never saw a "!" loses nothing by not seeing it, and would lose by reading an unknown word.

    Args:
        texts: The training split, and nothing else.
        config: Kind and limits of the vocabulary.

    Raises:
        DataError: The texts hold no token at all.
    """
    options: dict[str, Any] = {
        "vocab_size": config.vocab_size,
        "min_frequency": config.min_frequency,
        "special_tokens": [PAD, UNK],
        "show_progress": False,
    }
    split = pre_tokenizers.Split(_TOKEN, behavior="removed", invert=True)
    trainer: trainers.Trainer
    if config.tokenizer == "word":
        tokenizer = Tokenizer(models.WordLevel(unk_token=UNK))
        trainer = trainers.WordLevelTrainer(**options)
        tokenizer.pre_tokenizer = split
    else:
        tokenizer = Tokenizer(models.BPE(unk_token=UNK))
        trainer = trainers.BpeTrainer(**options)
        # A mark at the beginning of each word; the trainer's own suffix gives other ids each time.
        mark = pre_tokenizers.Metaspace(_WORD_START, prepend_scheme="always", split=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, mark])
        tokenizer.decoder = decoders.Metaspace(_WORD_START, prepend_scheme="always", split=False)
    tokenizer.normalizer = normalizers.Sequence(_NORMALIZATION)
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() <= UNK_ID + 1:
        raise DataError(
            f"no word stands {config.min_frequency} times in the training texts: "
            "lower --min_frequency or give more data"
        )
    tokenizer.normalizer = normalizers.Sequence(
        [*_NORMALIZATION, _drop_unknown_punctuation(tokenizer.get_vocab())]
    )
    tokenizer.enable_truncation(config.max_length)
    return _without_added_tokens(tokenizer)


def _drop_unknown_punctuation(vocabulary: dict[str, int]) -> normalizers.Normalizer:
    known = {token.removeprefix(_WORD_START) for token in vocabulary}
    # The brackets belong to the placeholders.
    signs = {sign for sign in known if len(sign) == 1 and not sign.isalnum()} | {"<", ">"}
    kept = "".join(re.escape(sign) for sign in sorted(signs))
    dropped = rf"[\p{{P}}\p{{Sm}}\p{{Sc}}\p{{Sk}}]&&[^\p{{Emoji_Modifier}}{kept}]"
    return normalizers.Replace(Regex(f"[{dropped}]"), " ")


def _without_added_tokens(tokenizer: Tokenizer) -> Tokenizer:
    """Keeps "<pad>" typed in a text from becoming the padding: it is vocabulary and no more."""
    return Tokenizer.from_str(json.dumps(json.loads(tokenizer.to_str()) | {"added_tokens": []}))


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
        raise ValueError(f"the tokenizer has not {PAD} = {PAD_ID} and {UNK} = {UNK_ID}")
    return tokenizer


def token_ids(tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[list[list[int]], int]:
    """Returns the ids of each text, at least one a text, and how many texts were cut."""
    encodings = tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
    truncated = sum(bool(encoding.overflowing) for encoding in encodings)
    return [encoding.ids or [UNK_ID] for encoding in encodings], truncated
