"""Strange texts: probabilities stay finite, sum to 1 and depend on nothing but their own text."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from faults.materials import TEXTS
from faults.sweep import Case, Part, Violation, named

from featherweight.classifier import FloatArray
from featherweight.loading import load

PER_CASE = 100  # texts
_ALONE = 3  # of them, which are classified alone as well
_MAX_SUM_ERROR = 1e-5
_MAX_DIFFERENCE = 1e-4  # of a probability, by the rounding of another batch
_LONG = 20_000  # characters of the longest texts

_EMOJI = (
    "👩",
    "👧",
    "\u200d",
    "\ufe0f",
    "\u20e3",
    "🏽",
    "🇫",
    "🇷",
    "❤",
    "😂",
    "1",
    "🏴",
    "\U000e0067",
)
_SPACES = (
    " ",
    "\t",
    "\n",
    "\r",
    "\v",
    "\f",
    "\x1c",
    "\x85",
    "\u00a0",
    "\u2003",
    "\u2028",
    "\u200b",
)
_MARKS = ("\u0301", "\u0489", "\u202e", "\u2066", "\ufeff", "\u00ad", "\u034f", "\u1160", "\u3164")
_HOSTILE = (
    "a", "aa ", "(", "[[", "\\", "http://", "www.", "a.a.", "@", "@a", "a@a.", "<", "<url>",
    "<unk>", "'", "n't", "''s", "!?", "...", "-a", "_", "#", "&amp;", "%00", "$(", "`", "0", "1,",
    "é", "ﬁ",
)  # fmt: skip

Write = Callable[[random.Random, int], str]  # of about so many characters


def part(name: str, weights: Path, count: int) -> Part:
    """Returns the part for a model.

    Args:
        name: Of the part.
        weights: The model.
        count: Number of texts.
    """

    def prepare(folder: Path) -> Case:
        classifier = load(weights, "cpu")

        def case(_: int, generator: random.Random) -> str:
            texts = [_text(generator) for _ in range(PER_CASE)]
            probabilities = classifier.predict_proba(texts)
            _require_probabilities(probabilities, (len(texts), len(classifier.labels)))
            for index in generator.sample(range(len(texts)), _ALONE):
                with named(f"text {index}, {texts[index][:60]!a}"):
                    alone = classifier.predict_proba([texts[index]])
                    difference = np.abs(alone[0] - probabilities[index]).max()
                    if not difference <= _MAX_DIFFERENCE:
                        raise Violation(f"its neighbors change its answer by {difference:.2g}")
            return "answered"

        return case

    return Part(name, -(-count // PER_CASE), prepare, PER_CASE)


def _require_probabilities(probabilities: FloatArray, shape: tuple[int, int]) -> None:
    if probabilities.shape != shape:
        raise Violation(f"{probabilities.shape} probabilities instead of {shape}")
    are_valid = np.isfinite(probabilities).all(axis=1) & (probabilities >= 0).all(axis=1)
    are_valid &= np.abs(probabilities.sum(axis=1) - 1) <= _MAX_SUM_ERROR
    if not are_valid.all():
        raise Violation(f"text {int(are_valid.argmin())}: its probabilities do not sum to 1")


def _text(generator: random.Random) -> str:
    """Returns a text of one kind, or of two mixed ones."""
    length = int(generator.expovariate(1 / 60))
    if generator.random() < 0.002:
        length = generator.randint(_LONG // 4, _LONG)
    text = generator.choice(_KINDS)(generator, length)
    if generator.random() < 0.3:
        other = generator.choice(_KINDS)(generator, length)
        text = "".join(generator.choice(pair) for pair in zip(text, other, strict=False))
    return text


def _any(generator: random.Random, length: int) -> str:
    """Returns any code points, halves of surrogate pairs included."""
    return "".join(chr(generator.randrange(0x110000)) for _ in range(length))


def _common_planes(generator: random.Random, length: int) -> str:
    return "".join(chr(generator.randrange(0x3000)) for _ in range(length))


def _controls(generator: random.Random, length: int) -> str:
    return "".join(
        chr(generator.choice((generator.randrange(32), generator.randrange(127, 160))))
        for _ in range(length)
    )


def _surrogates(generator: random.Random, length: int) -> str:
    return "".join(chr(generator.randrange(0xD800, 0xE000)) for _ in range(length))


def _of(pieces: Sequence[str]) -> Write:
    return lambda generator, length: "".join(generator.choices(pieces, k=length))


def _marked(generator: random.Random, length: int) -> str:
    """Returns words whose letters have many combining or invisible marks."""
    return "".join(
        letter + "".join(generator.choices(_MARKS, k=generator.randrange(6)))
        for letter in generator.choices("happy sad ", k=length)
    )


def _repeated(generator: random.Random, length: int) -> str:
    """Returns what makes a backtracking regular expression slow: repetitions with a wrong end."""
    return generator.choice(_HOSTILE) * length + generator.choice(
        ("", "!", "\0", "\ud800", " ", "é")
    )


def _words(generator: random.Random, length: int) -> str:
    return "".join(generator.choices((*TEXTS, *_SPACES, *_HOSTILE), k=length // 4))


_KINDS: tuple[Write, ...] = (
    _any, _common_planes, _controls, _surrogates, _of(_EMOJI), _of(_SPACES), _marked, _repeated,
    _words,
)  # fmt: skip
