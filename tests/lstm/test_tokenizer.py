import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from nltk.tokenize import TweetTokenizer
from tokenizers import Tokenizer

from featherweight.errors import DataError
from lstm.config import TokenizerConfig
from lstm.tokenizer import PAD, PAD_ID, UNK, UNK_ID, load_tokenizer, token_ids, train_tokenizer

KINDS = ["word", "bpe"]
TRAINING = ["i am happy. i am sad.", "i am here", "happy to be here, happy to be sad"]


def tokenizer_of(*texts: str, min_frequency: int = 1, **options: object) -> Tokenizer:
    config = TokenizerConfig(min_frequency=min_frequency, **options)  # type: ignore[arg-type]
    return train_tokenizer(texts, config)


def tokens(text: str) -> list[str]:
    """Returns the tokens of a text, with a vocabulary learned from it."""
    found: list[str] = tokenizer_of(text, "some other words").encode(text).tokens
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # NFKC
        ("ＦＵＬＬ ｗｉｄｔｈ", ["full", "width"]),
        ("ﬁne", ["fine"]),
        ("x²", ["x2"]),
        ("cafe\u0301", ["caf\u00e9"]),
        # case
        ("ALWAYS Late", ["always", "late"]),
        ("ÉCOLE", ["école"]),
        # links
        ("see https://t.co/aB3x9 now", ["see", "<url>", "now"]),
        ("HTTP://EXAMPLE.ORG", ["<url>"]),
        ("www.example.org/a?b=c#d", ["<url>"]),
        ("(see:http://a.b)", ["(", "see", ":", "<url>"]),
        # @names, but not addresses, and no lone at sign
        ("@Anna_B99 hi", ["<user>", "hi"]),
        ("(@bob)", ["(", "<user>", ")"]),
        (".@bob: hi", [".", "<user>", ":", "hi"]),
        ("@bob@ann", ["<user>", "@", "ann"]),
        ("joe@home", ["joe", "@", "home"]),
        ("@ home", ["@", "home"]),
        # apostrophes
        ("I'm", ["im"]),
        ("I’m", ["im"]),
        ("I‘m", ["im"]),
        ("I`m", ["im"]),
        ("I´m", ["im"]),
        ("'quoted'", ["quoted"]),
        # elongation: letters only, to two
        ("sooooo", ["soo"]),
        ("soo", ["soo"]),
        ("YeEeEsss", ["yeess"]),
        ("ééééé", ["éé"]),
        ("ｓｏｏｏｏ", ["soo"]),
        ("no!!!!", ["no", "!", "!", "!", "!"]),
        ("10000", ["10000"]),
        # punctuation
        ("yes,no;maybe", ["yes", ",", "no", ";", "maybe"]),
        ("well-known", ["well", "-", "known"]),
        ("snake_case", ["snake", "_", "case"]),
        ("#blessed", ["#", "blessed"]),
        ("wait...", ["wait", ".", ".", "."]),
        ("wait…", ["wait", ".", ".", "."]),
        ("50% £40", ["50", "%", "£", "40"]),
        # emoji
        ("ok👍fine", ["ok", "👍", "fine"]),
        ("😂😂", ["😂", "😂"]),
        ("👍🏽", ["👍🏽"]),
        ("👍🏽👍", ["👍🏽", "👍"]),
        ("👨\u200d👩\u200d👧", ["👨\u200d👩\u200d👧"]),
        ("💇🏽\u200d♀️", ["💇🏽\u200d♀"]),
        ("🏴\u200d☠️", ["🏴\u200d☠"]),
        ("🇫🇷🇩🇪", ["🇫🇷", "🇩🇪"]),
        # the variation selector is removed
        ("❤️", ["❤"]),
        ("❤", ["❤"]),
        # whitespace
        ("a\tb\n\u00a0c\u3000d", ["a", "b", "c", "d"]),
        # other scripts
        ("नमस्ते привет", ["नमस्ते", "привет"]),
    ],
)
def test_normalization(text: str, expected: list[str]) -> None:
    assert tokens(text) == expected


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("I'm SOOOO happy @ann", "im sooooooo HAPPY @bob"),
        ("don’t https://a.b", "dont www.c.d/e"),
        ("❤️", "❤"),
    ],
)
def test_spelling_variants_get_the_same_ids(one: str, other: str) -> None:
    tokenizer = tokenizer_of(one)
    ids, _ = token_ids(tokenizer, [one, other])
    assert ids[0] == ids[1]
    assert UNK_ID not in ids[0]


@pytest.mark.parametrize(
    "tweet",
    [
        "Just got the keys to our new flat",
        "coffee, rain and a good book. perfect sunday",
        "why is the bus ALWAYS late?",
        "i miss my dog, my old room, even my brother",
        "happy birthday mum 🎉",
        "feeling low today 😔 nothing helps",
        "3 exams left, then freedom",
        "who else is up at 4am",
        "holiday booked 🇫🇷🥐",
        "love my family 👨\u200d👩\u200d👧",
        "thumbs up 👍🏽 for the nurse",
        'he said "never again" and left',
        "50% off and still too expensive, £40 for a shirt",
        "half angry / half sad",
        "wait what?!",
        "wow -- just wow",
    ],
)
def test_tweet_has_the_tokens_of_nltk(tweet: str) -> None:
    reference = TweetTokenizer(preserve_case=False, reduce_len=True, strip_handles=False)
    assert tokens(tweet) == reference.tokenize(tweet)


@pytest.mark.parametrize(
    ("tweet", "nltk_tokens", "expected"),
    [
        pytest.param(
            "#blessed and grateful",
            ["#blessed", "and", "grateful"],
            ["#", "blessed", "and", "grateful"],
            id="the hash sign is a token of its own, so #blessed contains blessed",
        ),
        pytest.param(
            "sooooo happy",
            ["sooo", "happy"],
            ["soo", "happy"],
            id="elongations keep two letters, not three",
        ),
        pytest.param(
            "I can't believe it's over",
            ["i", "can't", "believe", "it's", "over"],
            ["i", "cant", "believe", "its", "over"],
            id="apostrophes are removed, because many people omit them",
        ),
        pytest.param(
            "she doesn’t know",
            ["she", "doesn", "’", "t", "know"],
            ["she", "doesnt", "know"],
            id="curly apostrophes are apostrophes; nltk splits the word",
        ),
        pytest.param(
            "thanks @anna_b",
            ["thanks", "@anna_b"],
            ["thanks", "<user>"],
            id="all @names are one placeholder",
        ),
        pytest.param(
            "read https://t.co/aB3x9 and www.example.org/news",
            ["read", "https://t.co/aB3x9", "and", "www.example.org/news"],
            ["read", "<url>", "and", "<url>"],
            id="all links are one placeholder",
        ),
        pytest.param(
            "good news :) at last",
            ["good", "news", ":)", "at", "last"],
            ["good", "news", ":", ")", "at", "last"],
            id="emoticons are split into characters",
        ),
        pytest.param(
            "i <3 this song",
            ["i", "<3", "this", "song"],
            ["i", "<", "3", "this", "song"],
            id="a heart of characters is an emoticon too",
        ),
        pytest.param(
            "so tired... going to bed",
            ["so", "tired", "...", "going", "to", "bed"],
            ["so", "tired", ".", ".", ".", "going", "to", "bed"],
            id="each period of an ellipsis is a token",
        ),
        pytest.param(
            "well-known fact",
            ["well-known", "fact"],
            ["well", "-", "known", "fact"],
            id="hyphens are tokens",
        ),
        pytest.param(
            "it is 9:30pm",
            ["it", "is", "9:30", "pm"],
            ["it", "is", "9", ":", "30pm"],
            id="times of day are split",
        ),
        pytest.param(
            "mail joe.b@example.com",
            ["mail", "joe.b@example.com"],
            ["mail", "joe", ".", "b", "@", "example", ".", "com"],
            id="mail addresses are split",
        ),
        pytest.param(
            "my ❤️ is full",
            ["my", "❤", "\ufe0f", "is", "full"],
            ["my", "❤", "is", "full"],
            id="the variation selector is removed",
        ),
        pytest.param(
            "haircut 💇🏽\u200d♀️ done",
            ["haircut", "💇🏽\u200d♀", "\ufe0f", "done"],
            ["haircut", "💇🏽\u200d♀", "done"],
            id="also after a joined emoji",
        ),
        pytest.param(
            "the café was ﬁne",
            ["the", "café", "was", "ﬁne"],
            ["the", "café", "was", "fine"],
            id="NFKC expands ligatures",
        ),
    ],
)
def test_tweet_differs_from_nltk_for_a_reason(
    tweet: str, nltk_tokens: list[str], expected: list[str]
) -> None:
    reference = TweetTokenizer(preserve_case=False, reduce_len=True, strip_handles=False)
    assert reference.tokenize(tweet) == nltk_tokens
    assert tokens(tweet) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_padding_is_0_and_unknown_is_1(kind: str) -> None:
    tokenizer = tokenizer_of(*TRAINING, tokenizer=kind)
    assert (tokenizer.token_to_id(PAD), tokenizer.token_to_id(UNK)) == (PAD_ID, UNK_ID) == (0, 1)
    (ids,), _ = token_ids(tokenizer, ["你"])
    assert ids[-1] == UNK_ID


def test_vocabulary_has_the_words_of_the_training_texts() -> None:
    vocabulary = tokenizer_of("one two", "two three!").get_vocab()
    assert set(vocabulary) == {PAD, UNK, "one", "two", "three", "!"}
    assert sorted(vocabulary.values()) == list(range(6))


def test_min_frequency_leaves_out_rarer_words() -> None:
    tokenizer = tokenizer_of("a a a b b c", min_frequency=2)
    assert set(tokenizer.get_vocab()) == {PAD, UNK, "a", "b"}


def test_vocab_size_counts_special_tokens_and_keeps_the_most_frequent() -> None:
    tokenizer = tokenizer_of("a a a b b c", vocab_size=4)
    assert set(tokenizer.get_vocab()) == {PAD, UNK, "a", "b"}


def test_bpe_spells_unseen_words_with_known_pieces() -> None:
    tokenizer = tokenizer_of(*["low lower lowest slow"] * 3, tokenizer="bpe", vocab_size=30)
    assert tokenizer.get_vocab_size() <= 30
    (ids,), _ = token_ids(tokenizer, ["slowest"])
    assert UNK_ID not in ids
    assert tokenizer.decode(ids) == "slowest"


def test_word_reads_an_unseen_word_as_unknown() -> None:
    tokenizer = tokenizer_of("i am")
    assert token_ids(tokenizer, ["i wonder"])[0] == [[tokenizer.token_to_id("i"), UNK_ID]]


@pytest.mark.parametrize("sign", [*'!?,;:.-_()[]{}^$+=~#%&*/\\|"@€£«»¿', "…", "“"])
def test_unknown_punctuation_is_dropped(sign: str) -> None:
    tokenizer = tokenizer_of("i am")
    plain, with_signs = token_ids(tokenizer, ["i am", f"i {sign} am {sign}{sign}"])[0]
    assert with_signs == plain


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sign", [*"!^-]\\[&$"])
def test_known_punctuation_is_kept(kind: str, sign: str) -> None:
    tokenizer = tokenizer_of(f"i am {sign}", f"so am i {sign}", tokenizer=kind)
    plain, with_sign, with_other = token_ids(tokenizer, ["i am", f"i am {sign}", "i am ?"])[0]
    assert len(with_sign) == len(plain) + 1
    assert UNK_ID not in with_sign
    assert with_other == plain


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("emoji", ["👍🏽", "💇🏽\u200d♀", "👨\u200d👩\u200d👧", "🇫🇷", "❤"])
def test_emoji_of_the_training_texts_is_known(kind: str, emoji: str) -> None:
    tokenizer = tokenizer_of(f"i am {emoji}", f"{emoji} you", tokenizer=kind)
    (ids,), _ = token_ids(tokenizer, [emoji])
    assert UNK_ID not in ids
    assert ids != token_ids(tokenizer, [emoji[0]])[0][0] or len(emoji) == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", ["", " \n\t", "!!!", "你好", "\x00", "\u0301", "\ufe0f", "\u200d"])
def test_text_without_a_known_word_gets_one_unknown_token_or_more(kind: str, text: str) -> None:
    tokenizer = tokenizer_of("i am", "you are", tokenizer=kind)
    (ids,), truncated = token_ids(tokenizer, [text])
    # A BPE word starts with its mark, known or not.
    assert {UNK_ID} <= set(ids) <= {UNK_ID, tokenizer.token_to_id("▁")}
    assert truncated == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "pattern", ["x", "ab", "am ", "@", "@ann ", "<", "www.", "👍\u200d", "\u0301", "é", "\n"]
)
def test_text_of_100_000_characters_is_tokenized(kind: str, pattern: str) -> None:
    tokenizer = tokenizer_of(*TRAINING, tokenizer=kind, max_length=16)
    text = (pattern * 100_000)[:100_000]
    (ids,), _ = token_ids(tokenizer, [text])
    assert 1 <= len(ids) <= 16


def test_texts_beyond_max_length_are_cut_and_counted() -> None:
    tokenizer = tokenizer_of(*TRAINING, max_length=3)
    texts = ["i am here", "i am happy here", "i am i am i am i am", ""]
    ids, truncated = token_ids(tokenizer, texts)
    assert [len(row) for row in ids] == [3, 3, 3, 1]
    assert ids[1] == token_ids(tokenizer, ["i am happy"])[0][0]
    assert truncated == 2


@pytest.mark.parametrize("kind", KINDS)
def test_saved_tokenizer_gives_the_same_ids_when_loaded(kind: str) -> None:
    tokenizer = tokenizer_of(*TRAINING, tokenizer=kind, max_length=5)
    texts = [*TRAINING, "I'm SOOO @bob happy! 👍🏽 www.a.b", "", "unknown words", "am " * 50]
    loaded = load_tokenizer(tokenizer.to_str())
    assert token_ids(loaded, texts) == token_ids(tokenizer, texts)


@pytest.mark.parametrize("kind", KINDS)
def test_same_texts_give_the_same_tokenizer(kind: str) -> None:
    texts = [f"word{i % 7} other{i % 5} 👍" for i in range(50)]
    assert (
        tokenizer_of(*texts, tokenizer=kind).to_str()
        == tokenizer_of(*texts, tokenizer=kind).to_str()
    )


@pytest.mark.parametrize(
    "serialized", ["", "{}", "null", "not json", '{"model": 3}', "\x80\x04K\x01."]
)
def test_invalid_tokenizer_is_refused(serialized: str) -> None:
    with pytest.raises(ValueError, match="not a tokenizer"):
        load_tokenizer(serialized)


def test_tokenizer_with_other_special_ids_is_refused() -> None:
    serialized = tokenizer_of(*TRAINING).to_str().replace(PAD, "<none>")
    with pytest.raises(ValueError, match="<pad> = 0"):
        load_tokenizer(serialized)


@pytest.mark.parametrize(
    ("kind", "texts"),
    [("word", ()), ("word", ("", "  ")), ("word", ("one", "two")), ("bpe", ()), ("bpe", ("", " "))],
)
def test_training_texts_without_vocabulary_are_refused(kind: str, texts: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match="min_frequency") as caught:
        tokenizer_of(*texts, min_frequency=2, tokenizer=kind)
    assert "\n" not in str(caught.value)


# Special tokens in a text are ordinary text.
@pytest.mark.parametrize("text", [PAD, f"i {PAD} am", UNK])
def test_text_never_becomes_padding(text: str) -> None:
    (ids,), _ = token_ids(tokenizer_of(*TRAINING), [text])
    assert PAD_ID not in ids


WORD, BPE = tokenizer_of(*TRAINING), tokenizer_of(*TRAINING, tokenizer="bpe")


@pytest.mark.parametrize("tokenizer", [WORD, BPE], ids=KINDS)
@settings(max_examples=150)
@example("\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"))
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_gets_ids_of_the_vocabulary(tokenizer: Tokenizer, text: str) -> None:
    (ids,), _ = token_ids(tokenizer, [text])
    assert 1 <= len(ids) <= 128
    assert all(PAD_ID < token < tokenizer.get_vocab_size() for token in ids)
