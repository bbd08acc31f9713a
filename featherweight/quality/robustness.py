"""Robustness: evaluation on perturbed texts.

Public data sets are often cleaned, unlike texts in production. Each perturbation changes how a
text is typed, but neither its meaning nor its label.
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

# A word of letters, with optional punctuation around it; no link, @name, number or contraction.
_WORD = re.compile(r"(?<![^\s(\"'])[^\W\d_]{2,}(?=[.,;:!?)\"']*(?:\s|\Z))")
_VOWEL = re.compile("[aeiou]", re.IGNORECASE)
_KEY_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_NEUTRAL_EMOJI = ("📌", "📷", "📚", "📎", "🏠", "🚌", "🕒", "🌍", "🪟", "🧦")

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
# Without an apostrophe these are different words, so only "she d" becomes "she'd", not "shed".
_OTHER_WORDS = {"hed", "hell", "ill", "its", "lets", "shed", "shell", "wed", "well", "were"}
_SPACED = {word.replace("'", " "): word for word in _CONTRACTIONS}  # "i m", "don t"
_JOINED = {word.replace("'", ""): word for word in _CONTRACTIONS}  # "im", "dont"
_BARE = _SPACED | {bare: word for bare, word in _JOINED.items() if bare not in _OTHER_WORDS}
# ASCII mode, because otherwise "i" also matches the Turkish dotless i.
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
    """Results of a classifier on one perturbation of a split."""

    perturbation: str  # a key of `PERTURBATIONS`
    accuracy: float  # on the perturbed texts, in [0, 1]
    changed: float  # share of predictions that differ from those on the original texts, in [0, 1]
    n: int  # number of texts


def robustness(classifier: Classifier, split: Split, seed: int = 0) -> list[Robustness]:
    """Evaluates a classifier on a split under each perturbation.

    Args:
        classifier: A classifier whose labels are in the order of the class ids of the split.
        split: At least one text.
        seed: Seed of the perturbations; the same seed gives the same texts.
    """
    original = classifier.logits(split.texts).argmax(axis=1)
    results = []
    for name in PERTURBATIONS:
        predictions = classifier.logits(perturb(split.texts, name, seed)).argmax(axis=1)
        results.append(
            Robustness(
                perturbation=name,
                accuracy=float(np.mean(predictions == split.labels)),
                changed=float(np.mean(predictions != original)),
                n=len(split),
            )
        )
    return results


def perturb(texts: Sequence[str], name: str, seed: int = 0) -> list[str]:
    """Returns the perturbed texts; text i depends on (seed, name, i) only.

    Raises:
        UsageError: The perturbation does not exist.
    """
    if name not in PERTURBATIONS:
        raise UsageError(f"unknown perturbation {name!r}: choose from {', '.join(PERTURBATIONS)}")
    perturbation = PERTURBATIONS[name]
    # Random hashes string seeds with SHA-512, so they are the same in every process.
    return [
        perturbation(text, random.Random(f"{seed} {name} {index}"))
        for index, text in enumerate(texts)
    ]


def upper_case(text: str, rng: random.Random) -> str:
    """Upper-cases the text."""
    return text.upper()


def punctuate(text: str, rng: random.Random) -> str:
    """Writes "im sad but i dont cry" as "I'm sad, but I don't cry."."""
    ending = "?" if _QUESTION.match(text) else rng.choice("...!")  # "!" ends one statement in four
    text = _BARE_CONTRACTION.sub(_with_apostrophe, text)
    text = re.sub(r"(?<!\S)i(?!\w)", "I", text)
    text = _CLAUSE.sub(", ", text)
    text = re.sub(r"(?<=\w)(?=\s*\Z)", ending, text, count=1)
    return text[:1].upper() + text[1:]


def mistype(text: str, rng: random.Random) -> str:
    """Adds a typo to one word in ten, at least one, among words of four letters or more."""
    words = [match for match in _WORD.finditer(text) if len(match[0]) >= 4]
    typos = max(1, round(len(text.split()) / 10))
    chosen = rng.sample(words, min(typos, len(words)))
    # From the end, so that the positions of earlier words stay valid.
    for match in sorted(chosen, key=re.Match.start, reverse=True):
        text = text[: match.start()] + _typo(match[0], rng) + text[match.end() :]
    return text


def add_emoji(text: str, rng: random.Random) -> str:
    """Adds a neutral emoji after a word; with probability 1/2 or more, after the last one."""
    word_ends = [match.end() for match in re.finditer(r"\S+", text)]
    if not word_ends:
        return text
    position = rng.choice([word_ends[-1], rng.choice(word_ends)])
    return f"{text[:position]} {rng.choice(_NEUTRAL_EMOJI)}{text[position:]}"


def elongate(text: str, rng: random.Random) -> str:
    """Repeats one vowel of one word three to five times: "so" becomes "soooo"."""
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
    position = _BARE[match[0].lower()].index("'")  # the letters keep their case
    return f"{match[0][:position]}'{match[0][position:].lstrip()}"


def _typo(word: str, rng: random.Random) -> str:
    """Swaps two letters of a word, or drops, doubles or replaces one (by a neighboring key).

    Source: Damerau (1964), A Technique for Computer Detection and Correction of Spelling Errors:
    80 % of misspellings are one letter swapped, missing, added or wrong.
    """
    typed = word
    while typed == word:  # e.g. after swapping two equal letters
        position = rng.randrange(1, len(word))
        before, letter, after = word[:position], word[position], word[position + 1 :]
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
    """Returns a neighbor of a letter on a QWERTY keyboard, with the same case."""
    for row in _KEY_ROWS:
        index = row.find(letter.lower())
        if index >= 0:
            neighbor = rng.choice(row[max(index - 1, 0) : index] + row[index + 1 : index + 2])
            return neighbor.upper() if letter.isupper() else neighbor
    return letter  # not on the keyboard
