"""Text normalization for models that were trained on normalized tweets.

"bertweet" follows the authors of BERTweet: tweets are split into words, mentions and links are
replaced by placeholders, emoji are spelled out, and contractions are split. "cardiff" follows the
model card by Cardiff NLP: mentions and links are replaced by placeholders.

Source: Nguyen et al. (2020), BERTweet, section 2, and its repository VinAIResearch/BERTweet;
Barbieri et al. (2020), TweetEval, and the card of cardiffnlp/twitter-roberta-base.
"""

import functools
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

from featherweight.errors import requires

# The models read at most 512 tokens, and nltk fails on very long runs of digits.
_MAX_CHARACTERS = 10_000
_TO_ASCII = {"’": "'", "…": "..."}
# Sequences that nltk split into characters in 2020 and keeps together today: emoji with a skin
# tone or joined, flags made of letters or tags, and the emoticon </3.
_SPLIT_SEQUENCES = re.compile(
    "\\S[\U0001f3fb-\U0001f3ff]?(?:\u200d\\S[\U0001f3fb-\U0001f3ff]?)*"
    "|[\U0001f1e6-\U0001f1ff]{2}"
    "|\U0001f3f4[\U000e0000-\U000e007f]+"
    "|</3"
)
_ENDINGS = ("n't", "'m", "'re", "'s", "'ll", "'d", "'ve")
# Applied in this order after splitting contractions; "can't" and "ain't" are joined again.
_REPAIRS = (
    ("cannot ", "can not "),
    ("n 't ", " n't "),
    ("ca n't", "can't"),
    ("ai n't", "ain't"),
    (" p . m .", " p.m."),
    (" p . m ", " p.m "),
    (" a . m .", " a.m."),
    (" a . m ", " a.m "),
)


@functools.cache
def _tools() -> tuple[Callable[[str], list[str]], Callable[[str], str]]:
    """Returns nltk's tweet tokenizer and the function that spells out an emoji."""
    with requires("transformers"):
        from emoji import demojize
        from nltk.tokenize.casual import TweetTokenizer
    return TweetTokenizer().tokenize, demojize


def bertweet(text: str) -> str:
    """Normalizes a tweet like the training texts of BERTweet.

    A contraction is split only before another word ("don't go" -> "do n't go", but "I don't" is
    unchanged), as in the authors' code.

    Raises:
        MissingExtraError: nltk or emoji is not installed.
    """
    tokenize, demojize = _tools()
    for character, replacement in _TO_ASCII.items():
        text = text.replace(character, replacement)
    words = [
        part
        for word in tokenize(text[:_MAX_CHARACTERS])
        for part in (word if _SPLIT_SEQUENCES.fullmatch(word) else [word])
    ]
    text = " ".join(_placeholder(word, demojize) for word in words)
    for ending in _ENDINGS:
        text = text.replace(f"{ending} ", f" {ending} ")
    for pattern, repaired in _REPAIRS:
        text = text.replace(pattern, repaired)
    # "&#55357;" is a lone surrogate, which tokenizers reject.
    return " ".join(text.encode("utf-8", "ignore").decode("utf-8").split())


def _placeholder(word: str, demojize: Callable[[str], str]) -> str:
    if word.startswith("@"):
        return "@USER"
    if word.lower().startswith(("http", "www")):
        return "HTTPURL"
    # The tokenizer may decode a character of _TO_ASCII from an HTML entity such as "&hellip;".
    return _TO_ASCII.get(word) or (demojize(word) if len(word) == 1 else word)


def cardiff(text: str) -> str:
    """Normalizes a tweet like the training texts of Cardiff NLP: "@ann" -> "@user", links "http".

    Words are separated by single spaces only, not by line breaks, as on the model card.
    """
    return " ".join(_masked(word) for word in text.split(" "))


def _masked(word: str) -> str:
    if word.startswith("@") and len(word) > 1:
        return "@user"
    return "http" if word.startswith("http") else word


NORMALIZERS: Mapping[str, Callable[[str], str]] = MappingProxyType(
    {"bertweet": bertweet, "cardiff": cardiff}
)
