"""What texts go through before a model reads them, where its training texts went through it too.

"bertweet" follows the authors of BERTweet: a tweet cut into words, a placeholder for mentions and
links, emoji spelt out, contractions split. "cardiff" follows the card of the models by Cardiff NLP:
a placeholder for mentions and links, and nothing else.

Source: Nguyen et al. (2020), BERTweet, section 2, and its repository VinAIResearch/BERTweet;
Barbieri et al. (2020), TweetEval, and the card of cardiffnlp/twitter-roberta-base.
"""

import functools
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

from featherweight.errors import requires

# Characters. The models read 512 tokens at most, and nltk gives up on an endless run of digits.
_MOST_CHARACTERS = 10_000
_TO_ASCII = {"’": "'", "…": "..."}
# The nltk of 2020 cut these into characters, which later ones hold together: emoji with a skin
# tone or joined, flags made of letters or of tags, a broken heart.
_HELD_TOGETHER = re.compile(
    "\\S[\U0001f3fb-\U0001f3ff]?(?:\u200d\\S[\U0001f3fb-\U0001f3ff]?)*"
    "|[\U0001f1e6-\U0001f1ff]{2}"
    "|\U0001f3f4[\U000e0000-\U000e007f]+"
    "|</3"
)
_ENDINGS = ("n't", "'m", "'re", "'s", "'ll", "'d", "'ve")
# In this order, after the endings were split off; "can't" and "ain't" become whole again.
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
    """Returns nltk's way to cut a tweet into words, and the way from an emoji to its alias."""
    with requires("transformers"):
        from emoji import demojize
        from nltk.tokenize.casual import TweetTokenizer
    return TweetTokenizer().tokenize, demojize


def bertweet(text: str) -> str:
    """Returns a tweet as BERTweet has seen its training texts.

    An ending is split off only where a word follows ("don't go" -> "do n't go", but "I don't"
    stays), as in the authors' code.

    Raises:
        MissingExtraError: nltk or emoji is not installed.
    """
    cut, alias = _tools()
    for sign, ascii_sign in _TO_ASCII.items():
        text = text.replace(sign, ascii_sign)
    words = [
        part
        for word in cut(text[:_MOST_CHARACTERS])
        for part in (word if _HELD_TOGETHER.fullmatch(word) else [word])
    ]
    text = " ".join(_placeholder(word, alias) for word in words)
    for ending in _ENDINGS:
        text = text.replace(f"{ending} ", f" {ending} ")
    for found, repaired in _REPAIRS:
        text = text.replace(found, repaired)
    # "&#55357;" asks for half a character, which no tokenizer takes.
    return " ".join(text.encode("utf-8", "ignore").decode("utf-8").split())


def _placeholder(word: str, alias: Callable[[str], str]) -> str:
    if word.startswith("@"):
        return "@USER"
    if word.lower().startswith(("http", "www")):
        return "HTTPURL"
    # A sign of _TO_ASCII can still come from an HTML entity, "&hellip;".
    return _TO_ASCII.get(word) or (alias(word) if len(word) == 1 else word)


def cardiff(text: str) -> str:
    """Returns a tweet as Cardiff NLP's models have seen theirs: "@ann" -> "@user", links "http".

    Words are what stands between single blanks, as on the models' card: a line break is none.
    """
    return " ".join(_masked(word) for word in text.split(" "))


def _masked(word: str) -> str:
    if word.startswith("@") and len(word) > 1:
        return "@user"
    return "http" if word.startswith("http") else word


NORMALIZERS: Mapping[str, Callable[[str], str]] = MappingProxyType(
    {"bertweet": bertweet, "cardiff": cardiff}
)
