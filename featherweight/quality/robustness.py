"""The same texts as people type them: what a contender's answers are worth outside its data set.

Data sets come cleaned; the texts of a product do not. Each perturbation changes the typing of a
text and leaves its meaning and its label alone.
"""

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from featherweight.classifier import Classifier
from featherweight.data.dataset import Split
from featherweight.errors import UsageError

Perturbation = Callable[[str, random.Random], str]

# A word of letters only, punctuation around it allowed: no link, @name, number or contraction.
_WORD = re.compile(r"(?<![^\s(\"'])[^\W\d_]{2,}(?=[.,;:!?)\"']*(?:\s|\Z))")
_VOWEL = re.compile("[aeiou]", re.IGNORECASE)
_KEY_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_NEUTRAL_EMOJI = ("📌", "📷", "📚", "📎", "🏠", "🚌", "🕒", "🌍", "🪟", "🧦")  # things, no moods

_STEMS = {
    "'m": ("i",),
    "'re": ("you", "we", "they"),
    "'ve": ("i", "you", "we", "they"),
    "'d": ("i", "you", "he", "she", "it", "we", "they"),
    "'ll": ("i", "you", "he", "she", "it", "we", "they", "that"),
    "'s": ("he", "she", "it", "that", "there", "here", "what", "who", "where", "how", "let"),
    "n't": (
        *("do", "does", "did", "ca", "could", "wo", "would", "should", "must", "need"),
        *("is", "are", "was", "were", "have", "has", "had", "ai"),
    ),
}
_CONTRACTIONS = [stem + ending for ending, stems in _STEMS.items() for stem in stems]
# Without the apostrophe these are other words: they get one only where a space stands for it.
_OTHER_WORDS = {"hed", "hell", "ill", "its", "lets", "shed", "shell", "wed", "well", "were"}
_SPACED = {word.replace("'", " "): word for word in _CONTRACTIONS}  # "i m", "don t"
_JOINED = {word.replace("'", ""): word for word in _CONTRACTIONS}  # "im", "dont"
_BARE = _SPACED | {bare: word for bare, word in _JOINED.items() if bare not in _OTHER_WORDS}
# ASCII, or else the "i" would match the dotless one of Turkish too.
_BARE_CONTRACTION = re.compile(rf"(?<!\S)(?ai:{'|'.join(_BARE)})(?!\w)")
_CLAUSE = re.compile(r"(?<=\w)(?<!nothing)(?<!anything) (?=(?:but|although|even though)\b)")
_QUESTION = re.compile(
    r"(?:(?:why|how|what|when|where|who) )?"
    r"(?:am|is|are|was|were|do|does|did|can|could|will|would|should|have|has) "
    r"(?:i|you|he|she|it|we|they|this|that|there)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Robustness:
    """A contender's answers to one perturbation of a split.

    Attributes:
        perturbation: A key of `PERTURBATIONS`.
        accuracy: On the perturbed texts, in [0, 1].
        changed: Share of predictions that differ from those on the plain texts, in [0, 1].
        n: Number of texts.
    """

    perturbation: str
    accuracy: float
    changed: float
    n: int


def robustness(classifier: Classifier, split: Split, seed: int = 0) -> list[Robustness]:
    """Lets a classifier answer a split under each perturbation.

    Args:
        classifier: Its labels are in the order of the split's class ids.
        split: At least one text.
        seed: Seed of the perturbations; the same seed gives every contender the same texts.
    """
    plain = classifier.logits(split.texts).argmax(axis=1)
    results = []
    for name in PERTURBATIONS:
        answers = classifier.logits(perturb(split.texts, name, seed)).argmax(axis=1)
        results.append(
            Robustness(
                perturbation=name,
                accuracy=float(np.mean(answers == split.labels)),
                changed=float(np.mean(answers != plain)),
                n=len(split),
            )
        )
    return results


def perturb(texts: Sequence[str], name: str, seed: int = 0) -> list[str]:
    """Returns the texts under one perturbation; text i depends on (seed, name, i) only.

    Raises:
        UsageError: There is no perturbation of that name.
    """
    if name not in PERTURBATIONS:
        raise UsageError(f"no perturbation {name!r}: choose {', '.join(PERTURBATIONS)}")
    perturbation = PERTURBATIONS[name]
    # A string seeds by its SHA-512: the same in every process.
    return [
        perturbation(text, random.Random(f"{seed} {name} {index}"))
        for index, text in enumerate(texts)
    ]


def upper_case(text: str, rng: random.Random) -> str:
    """Shouts."""
    return text.upper()


def punctuate(text: str, rng: random.Random) -> str:
    """Writes "im sad but i dont cry" as "I'm sad, but I don't cry."."""
    ending = "?" if _QUESTION.match(text) else rng.choice("...!")  # one statement in four
    text = _BARE_CONTRACTION.sub(_with_apostrophe, text)
    text = re.sub(r"(?<!\S)i(?!\w)", "I", text)
    text = _CLAUSE.sub(", ", text)
    text = re.sub(r"(?<=\w)(?=\s*\Z)", ending, text, count=1)
    return text[:1].upper() + text[1:]


def mistype(text: str, rng: random.Random) -> str:
    """Puts a slip of the finger into one word of ten, at least one, where words are long enough."""
    words = [match for match in _WORD.finditer(text) if len(match[0]) >= 4]
    wanted = max(1, round(len(text.split()) / 10))
    chosen = rng.sample(words, min(wanted, len(words)))
    # From the end, so that the places of the words before stay what they are.
    for match in sorted(chosen, key=re.Match.start, reverse=True):
        text = text[: match.start()] + _slip(match[0], rng) + text[match.end() :]
    return text


def add_emoji(text: str, rng: random.Random) -> str:
    """Puts one emoji of a thing after a word, every other time after the last one."""
    places = [match.end() for match in re.finditer(r"\S+", text)]
    if not places:
        return text
    place = rng.choice([places[-1], rng.choice(places)])
    return f"{text[:place]} {rng.choice(_NEUTRAL_EMOJI)}{text[place:]}"


def elongate(text: str, rng: random.Random) -> str:
    """Writes one vowel of one word three to five times: "so" becomes "soooo"."""
    words = [match for match in _WORD.finditer(text) if _VOWEL.search(match[0])]
    if not words:
        return text
    word = rng.choice(words)
    vowel = rng.choice(list(_VOWEL.finditer(text, word.start(), word.end())))
    return text[: vowel.start()] + vowel[0] * rng.randint(3, 5) + text[vowel.end() :]


PERTURBATIONS: Mapping[str, Perturbation] = {
    "upper case": upper_case,
    "punctuation and contractions": punctuate,
    "typos": mistype,
    "emoji": add_emoji,
    "elongations": elongate,
}


def _with_apostrophe(match: re.Match[str]) -> str:
    place = _BARE[match[0].lower()].index("'")  # so that the letters keep their case
    return f"{match[0][:place]}'{match[0][place:].lstrip()}"


def _slip(word: str, rng: random.Random) -> str:
    """Swaps, drops or doubles one letter of a word, or hits the key beside it.

    Source: Damerau (1964), A Technique for Computer Detection and Correction of Spelling Errors:
    four in five misspellings are one letter swapped, missing, added or wrong.
    """
    typed = word
    while typed == word:  # swapped twins change nothing, nor do letters that are not on the keys
        place = rng.randrange(1, len(word))
        before, letter, after = word[:place], word[place], word[place + 1 :]
        typed = rng.choice(
            [
                before[:-1] + letter + before[-1] + after,
                before + after,
                before + letter + letter + after,
                before + _neighbor(letter, rng) + after,
            ]
        )
    return typed


def _neighbor(letter: str, rng: random.Random) -> str:
    """Returns a letter beside this one on a QWERTY keyboard, in its case, or the letter itself."""
    for row in _KEY_ROWS:
        place = row.find(letter.lower())
        if place >= 0:
            neighbor = rng.choice(row[max(place - 1, 0) : place] + row[place + 1 : place + 2])
            return neighbor.upper() if letter.isupper() else neighbor
    return letter
