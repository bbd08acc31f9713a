import random
import re
from collections.abc import Sequence

import numpy as np
import pytest

from featherweight.classifier import Batch, FloatArray
from featherweight.data.dataset import Split
from featherweight.errors import UsageError
from featherweight.quality.robustness import (
    PERTURBATIONS,
    Robustness,
    elongate,
    mistype,
    perturb,
    punctuate,
    robustness,
    upper_case,
)
from tests.helpers.stub_classifier import StubClassifier

SENTENCE = "i was walking through the quiet garden before the others arrived there yesterday"
NAMES = ["upper case", "punctuation and contractions", "typos", "emoji", "elongations"]


class CapitalReader(StubClassifier):
    """Predicts 1 for texts without upper-case letters, else 0."""

    labels = ("loud", "quiet")

    def encode(self, texts: Sequence[str]) -> Batch:
        return [int(text == text.lower()) for text in texts]

    def forward(self, batch: Batch) -> FloatArray:
        return np.eye(2)[batch]


def with_many_seeds(name: str, text: str) -> list[str]:
    """Perturbs a text with 60 seeds."""
    return [PERTURBATIONS[name](text, random.Random(seed)) for seed in range(60)]


def is_one_typo_apart(word: str, typed: str) -> bool:
    """Returns whether exactly one letter was swapped, dropped, doubled or replaced."""
    places = range(len(word))
    swapped = {word[:i] + word[i + 1] + word[i] + word[i + 2 :] for i in places[:-1]}
    dropped = {word[:i] + word[i + 1 :] for i in places}
    doubled = {word[:i] + word[i] + word[i:] for i in places}
    replaced = len(word) == len(typed) and sum(map(str.__ne__, word, typed)) == 1
    return word != typed and (replaced or typed in swapped | dropped | doubled)


def test_every_perturbation_has_its_name() -> None:
    assert list(PERTURBATIONS) == NAMES


def test_upper_case_keeps_the_words() -> None:
    shouted = upper_case("i'm so happy @ann, café 3 🙂", random.Random(0))
    assert shouted == "I'M SO HAPPY @ANN, CAFÉ 3 🙂"


@pytest.mark.parametrize(
    ("text", "typed"),
    [
        pytest.param("im sad and i dont know", "I'm sad and I don't know", id="joined"),
        pytest.param("i m sad and i don t know", "I'm sad and I don't know", id="spaced"),
        pytest.param("ive heard you cant", "I've heard you can't", id="ive-cant"),
        pytest.param("we were well but ill", "We were well, but ill", id="other-words"),
        pytest.param("the cat and its tail", "The cat and its tail", id="its-is-a-word"),
        pytest.param("we re sure i ll go", "We're sure I'll go", id="told-by-the-space"),
        pytest.param("idea imp wonton", "Idea imp wonton", id="only-whole-words"),
        pytest.param("Im IM Dont", "I'm I'M Don't", id="keeps-the-case"),
        pytest.param("nothing but joy", "Nothing but joy", id="no-comma-in-a-phrase"),
        pytest.param("i ran even though it hurt", "I ran, even though it hurt", id="even-though"),
        pytest.param("ran, but fell", "Ran, but fell", id="keeps-a-comma"),
        pytest.param("ım büyük", "Im büyük", id="dotless-i"),
    ],
)
def test_contractions_capitals_and_commas(text: str, typed: str) -> None:
    assert re.sub(r"[.!]\Z", "", punctuate(text, random.Random(0))) == typed


@pytest.mark.parametrize(
    ("text", "endings"),
    [
        pytest.param("i feel fine", {".", "!"}, id="statement"),
        pytest.param("am feeling fine", {".", "!"}, id="statement-without-subject"),
        pytest.param("do you feel fine", {"?"}, id="question"),
        pytest.param("why do i feel so", {"?"}, id="question-word"),
        pytest.param("when i feel so i run", {".", "!"}, id="clause"),
    ],
)
def test_statements_and_questions_get_their_punctuation(text: str, endings: set[str]) -> None:
    typed = with_many_seeds("punctuation and contractions", text)
    assert {sentence[-1] for sentence in typed} == endings
    assert {sentence[:-1].lower() for sentence in typed} == {text}


@pytest.mark.parametrize("text", ["Fine!", "So?", "Well …", "Hm... ", "Yes 🙂"])
def test_existing_final_punctuation_is_kept(text: str) -> None:
    assert punctuate(text, random.Random(0)) == text


def test_one_typo_per_ten_words_in_a_long_word() -> None:
    words = SENTENCE.split()  # 13
    for typed in with_many_seeds("typos", SENTENCE):
        changed = [pair for pair in zip(words, typed.split(), strict=True) if pair[0] != pair[1]]
        assert len(changed) == 1
        (word, slip) = changed[0]
        assert len(word) >= 4
        assert is_one_typo_apart(word, slip)


def test_number_of_typos_grows_with_the_text() -> None:
    words = ["garden"] * 38  # a tenth is 3.8
    for typed in with_many_seeds("typos", " ".join(words)):
        assert sum(word != "garden" for word in typed.split()) == 4


def test_typos_are_swapped_dropped_doubled_and_neighboring_letters() -> None:
    swapped, dropped, doubled = {"oSup", "Suop", "Sopu"}, {"Sup", "Sop", "Sou"}, {"Sooup", "Souup"}
    # Neighbors on the keyboard: i and p of o, y and i of u, o of p.
    replaced = {"Siup", "Spup", "Soyp", "Soip", "Souo"}
    every = swapped | dropped | doubled | {"Soupp"} | replaced
    assert {mistype("Soup", random.Random(seed)) for seed in range(300)} == every


@pytest.mark.parametrize(
    "text", ["i am so sad", "@annabel https://example.org/page 12345 don't", "नमस्ते"]
)
def test_short_words_names_and_links_get_no_typo(text: str) -> None:
    assert set(with_many_seeds("typos", text)) == {text}


def test_word_without_qwerty_letters_gets_a_typo() -> None:
    assert all(is_one_typo_apart("ёёёё", typed) for typed in with_many_seeds("typos", "ёёёё"))


def test_one_emoji_comes_between_or_after_the_words() -> None:
    places = set()
    for typed in with_many_seeds("emoji", SENTENCE):
        pieces = typed.split(" ")
        (place,) = (index for index, piece in enumerate(pieces) if not piece.isascii())
        emoji = pieces.pop(place)
        assert len(emoji) == 1
        assert " ".join(pieces) == SENTENCE
        places.add(place)
    assert 0 not in places
    assert 13 in places
    assert len(places) > 5


def test_one_vowel_of_one_word_is_three_to_five() -> None:
    elongated = set(with_many_seeds("elongations", "tell me lots"))
    vowels = {"t{}ll me lots": "e", "tell m{} lots": "e", "tell me l{}ts": "o"}
    assert elongated == {
        text.format(vowel * length) for text, vowel in vowels.items() for length in (3, 4, 5)
    }


@pytest.mark.parametrize("text", ["hmm pst", "i", "@ann https://a.eu/o", "12 30"])
def test_without_a_word_with_a_vowel_nothing_is_elongated(text: str) -> None:
    assert elongate(text, random.Random(0)) == text


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("text", ["", " ", "\n"])
def test_an_empty_text_survives(name: str, text: str) -> None:
    assert set(with_many_seeds(name, text)) == {text}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "text", ["今天我很高兴", "Ω", "👩‍👩‍👧 🇫🇮", "قلب", "e\u0301tude", "a\u0000b"]
)
def test_any_unicode_survives(name: str, text: str) -> None:
    for typed in with_many_seeds(name, text):
        typed.encode()
        lost = {sign for sign in text if not sign.isalpha()} - set(typed)
        assert not lost


@pytest.mark.parametrize("name", NAMES)
def test_perturbed_text_depends_on_seed_name_and_index_only(name: str) -> None:
    texts = [SENTENCE] * 12
    typed = perturb(texts, name, seed=1)
    assert perturb(texts, name, seed=1) == typed
    assert perturb(["another text", *texts[1:]], name, seed=1)[1:] == typed[1:]
    assert perturb(texts[:3], name, seed=1) == typed[:3]
    if name != "upper case":  # deterministic
        assert perturb(texts, name, seed=2) != typed
        assert len(set(typed)) > 1


def test_perturbed_texts_of_a_seed_are_stable() -> None:
    # Published results depend on them.
    assert perturb(["i feel so happy today"], "emoji") == ["i feel so happy today 🪟"]
    assert perturb(["i feel so happy today"], "typos") == ["i feel so happpy today"]


def test_unknown_perturbation_is_refused() -> None:
    with pytest.raises(UsageError, match=r"unknown perturbation 'mirror': choose from upper"):
        perturb(["text"], "mirror")


def test_robustness_worked_by_hand() -> None:
    # Predictions on the original texts are 1, 1, 0, 1: two of four are correct.
    texts = ("feel good", "feel bad", "Feel ok", "12")
    split = Split("test", texts, np.array([0, 0, 0, 1], dtype=np.int64))
    results = {result.perturbation: result for result in robustness(CapitalReader(), split)}
    assert list(results) == NAMES
    # In upper case they are 0, 0, 0, 1 (the number has no case): all correct.
    assert results["upper case"] == Robustness("upper case", accuracy=1, changed=2 / 4, n=4)
    # A capital letter at the start has the same effect.
    name = "punctuation and contractions"
    assert results[name] == Robustness(name, accuracy=1, changed=2 / 4, n=4)
    # The others do not change the case.
    for name in ("typos", "emoji", "elongations"):
        assert results[name] == Robustness(name, accuracy=2 / 4, changed=0, n=4)
