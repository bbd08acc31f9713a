"""The properties of the bundled corpus that a program can check."""

import csv
import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import pytest

import featherweight

CORPUS = Path(featherweight.__file__).parent / "corpus"
LABELS = ["sadness", "joy", "love", "anger", "fear", "surprise"]
SPLITS = ["train", "validation", "test"]
MIN_TEXTS = {"train": 2_400, "validation": 300, "test": 300}
SHARED, OF = 3, 5  # Jaccard index of near-duplicates (0.6), in whole numbers

# Words that name an emotion, in all their forms.
_NAMES = """
sad sadder saddest sadly sadness saddened unhappy unhappiness miserable misery sorrow sorrowful
grief grieve grieving grieved heartbroken heartbreak heartbreaking heartache depressed
depressing depression gloomy gloom melancholy despair despairing lonely loneliness lonesome
hopeless hopelessness devastated devastating disappointed disappointing disappointment hurt
hurts hurting mourn mourning upset tearful blue down ashamed shame guilt guilty regret homesick
joy joyful joyous happy happier happiest happily happiness glad gladly delighted delight
delightful cheerful thrilled thrilling excited exciting excitement ecstatic elated elation
bliss blissful content contented contentment proud proudly pride pleased pleasure jolly merry
grateful gratitude thankful relieved relief overjoyed hopeful optimiztic euphoric chuffed
love loves loved loving lovely lovingly lover adore adores adored adoring affection
affectionate fond fondly fondness cherish cherished cherishing tender tenderness devoted
devotion passion passionate beloved smitten infatuated romantic romance compassion caring
angry angrier angrily anger angered mad madder furious furiously fury rage raging enraged
outrage outraged outrageous irritated irritating irritation annoyed annoying annoys annoyance
hate hates hated hating hatred resent resentful resentment bitter bitterness hostile livid
seething fuming frustrated frustrating frustration infuriating infuriated pissed cross
disgusted disgusting jealous jealousy envious
fear fears feared fearful afraid scared scary scares scaring scare frightened frightening
fright terrified terrifying terror panic panics panicked panicking panicky anxious anxiously
anxiety nervous nervously nerves worry worries worried worrying dread dreads dreading dreaded
horror horrified horrifying alarmed uneasy unease petrified paranoid insecure apprehensive
surprise surprises surprised surprising surprisingly amazed amazing amazement amaze astonished
astonishing astonishment astounded shock shocks shocked shocking stunned stunning startled
speechless dumbfounded flabbergasted bewildered disbelief unexpected unexpectedly gobsmacked
"""
EMOTION_WORDS = set(_NAMES.split())


def read(split: str) -> list[dict[str, str]]:
    with (CORPUS / f"{split}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, strict=True))


ROWS = {split: read(split) for split in SPLITS}
TEXTS = [row["text"] for split in SPLITS for row in ROWS[split]]


def words(text: str) -> list[str]:
    return re.findall(r"\w+(?:'\w+)*", text.lower().replace("’", "'"))


WORDS = [words(text) for text in TEXTS]


def near_duplicates(texts: Sequence[Sequence[str]]) -> list[tuple[int, int]]:
    """Returns the pairs whose sets of words have a Jaccard index of 0.6 or more.

    Two such sets share one of their rarest words: of n words sorted by rarity, only the first
    n - ceil(0.6 n) + 1 have to be compared.
    Source: Chaudhuri, Ganti & Kaushik (2006), A Primitive Operator for Similarity Joins.
    """
    sets = [frozenset(text) for text in texts]
    counts = Counter(word for text in sets for word in text)
    holders: defaultdict[str, list[int]] = defaultdict(list)
    pairs = set()
    for index, text in enumerate(sets):
        rarest = sorted(text, key=lambda word: (counts[word], word))
        for word in rarest[: len(text) + -SHARED * len(text) // OF + 1]:
            for other in holders[word]:
                shared = len(text & sets[other])
                if OF * shared >= SHARED * (len(text) + len(sets[other]) - shared):
                    pairs.add((other, index))
            holders[word].append(index)
    return sorted(pairs)


def shared_frames(texts: Sequence[Sequence[str]]) -> list[tuple[int, int]]:
    """Returns the pairs of texts that differ in a single word."""
    seen: dict[tuple[str, ...], int] = {}
    pairs = set()
    for index, text in enumerate(texts):
        for position in range(len(text)):
            frame = (*text[:position], "\0", *text[position + 1 :])
            other = seen.setdefault(frame, index)
            if other != index:
                pairs.add((other, index))
    return sorted(pairs)


def share(pattern: str) -> float:
    return sum(bool(re.search(pattern, text)) for text in TEXTS) / len(TEXTS)


@pytest.mark.parametrize("split", SPLITS)
def test_split_has_two_columns_and_enough_texts(split: str) -> None:
    assert list(ROWS[split][0]) == ["text", "label"]
    assert len(ROWS[split]) >= MIN_TEXTS[split]
    assert all(row["text"].strip() == row["text"] != "" for row in ROWS[split])


def test_labels_file_has_the_order_of_the_benchmark() -> None:
    assert (CORPUS / "labels.txt").read_text(encoding="utf-8").split() == LABELS


@pytest.mark.parametrize("split", SPLITS)
def test_classes_are_unbalanced_as_in_tweets(split: str) -> None:
    counts = Counter(row["label"] for row in ROWS[split])
    assert set(counts) == set(LABELS)
    order = [label for label, _ in counts.most_common()]
    assert set(order[:2]) == {"joy", "sadness"}
    assert order[4:] == ["love", "surprise"]
    assert counts["joy"] >= 4 * counts["surprise"]


def test_splits_have_the_same_class_shares() -> None:
    for label in LABELS:
        shares = [sum(row["label"] == label for row in ROWS[s]) / len(ROWS[s]) for s in SPLITS]
        assert max(shares) - min(shares) < 0.03, label


def test_no_text_is_repeated() -> None:
    seen = Counter(" ".join(text) for text in WORDS)
    assert [text for text, count in seen.items() if count > 1] == []


def test_no_two_texts_are_near_duplicates() -> None:
    assert [(TEXTS[a], TEXTS[b]) for a, b in near_duplicates(WORDS)] == []


def test_no_two_texts_share_a_frame() -> None:
    assert [(TEXTS[a], TEXTS[b]) for a, b in shared_frames(WORDS)] == []


def test_near_duplicates_equal_a_comparison_of_all_pairs() -> None:
    # Drawn from few words, so that there are many near-duplicates.
    texts = [
        [f"w{(7 * i * i + j * j * (i % 5)) % 11}" for j in range(3 + i % 6)] for i in range(90)
    ]
    sets = [set(text) for text in texts]
    expected = [
        (a, b)
        for b in range(len(sets))
        for a in range(b)
        if OF * len(sets[a] & sets[b]) >= SHARED * len(sets[a] | sets[b])
    ]
    assert len(expected) > 20
    assert near_duplicates(texts) == sorted(expected)


def test_shared_frames_differ_in_exactly_one_word() -> None:
    texts = [["i", "am", "so", "sad"], ["i", "was", "so", "glad"], ["i", "am", "so", "glad"]]
    assert shared_frames(texts) == [(0, 2), (1, 2)]


def test_texts_have_3_to_60_words_with_a_natural_spread() -> None:
    lengths = [len(text.split()) for text in TEXTS]
    assert min(lengths) >= 3
    assert max(lengths) <= 60
    assert len(set(lengths)) >= 45
    assert statistics.pstdev(lengths) >= 8
    assert max(Counter(lengths).values()) < 0.1 * len(lengths)
    assert sum(length <= 8 for length in lengths) >= 0.05 * len(lengths)
    assert sum(length >= 35 for length in lengths) >= 0.05 * len(lengths)


def test_there_are_4000_distinct_words() -> None:
    distinct = {word for text in WORDS for word in text if re.fullmatch(r"[a-z']+", word)}
    assert len(distinct) >= 4_000


@pytest.mark.parametrize("label", [None, *LABELS])
def test_many_texts_do_not_name_an_emotion(label: str | None) -> None:
    chosen = [
        words(row["text"])
        for split in SPLITS
        for row in ROWS[split]
        if label in (None, row["label"])
    ]
    unnamed = sum(EMOTION_WORDS.isdisjoint(text) for text in chosen)
    # 40 % of all texts, and a quarter of each class.
    assert unnamed >= (0.4 if label is None else 0.25) * len(chosen)


@pytest.mark.parametrize(
    ("pattern", "min_share"),
    [
        pytest.param(r"^[^A-Z]+$", 0.2, id="lower-case"),
        pytest.param(r"^[A-Z]", 0.2, id="capital-first"),
        pytest.param(r"\b[A-Z]{3,}\b", 0.03, id="upper-case"),
        pytest.param(r"[.,;:]", 0.4, id="punctuation"),
        pytest.param(r"!", 0.03, id="exclamation"),
        pytest.param(r"\?", 0.02, id="question"),
        pytest.param(r"\w['’](?:m|s|t|re|ve|ll|d)\b", 0.2, id="contraction"),
        pytest.param("[\U0001f300-\U0001faff\u2600-\u27bf]", 0.03, id="emoji"),
        pytest.param(r"(?<!\w)@\w+", 0.02, id="name"),
        pytest.param(r"(?<!\w)#\w+", 0.02, id="hashtag"),
    ],
)
def test_texts_look_as_people_write(pattern: str, min_share: float) -> None:
    assert share(pattern) >= min_share


def test_most_texts_speak_in_the_first_person() -> None:
    first = set(words("i i'm im i've i'd i'll me my mine myself we our us"))
    assert sum(not first.isdisjoint(text) for text in WORDS) >= 0.6 * len(WORDS)


def test_readme_states_license_and_purpose() -> None:
    card = (CORPUS / "README.md").read_text(encoding="utf-8")
    assert "CC0" in card
    assert "dair-ai/emotion" in card
    assert "for demonstration only" in card
