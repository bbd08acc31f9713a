"""Scripts without spaces, invisible characters and HTML entities in the tokenizer."""

import html
import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from lstm.config import TokenizerConfig
from lstm.tokenizer import UNK_ID, load_tokenizer, token_ids, train_tokenizer

KINDS = ["word", "bpe"]
FAMILY = "👨\u200d👩\u200d👧"
ENGLAND = "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"
TEXTS = [
    "i'm soooo happy",
    "don't see https://a.b/c?d @ann_b, 50% <3",
    f"haircut 💇🏽\u200d♀️ and {FAMILY} 🇫🇷",
    "наконец дома",
    "我今天很开心 iphone",
    "می‌خواهم نمستے नमस्ते 행복해요",
    "if a &lt; b &amp; c",
]


def tokenizer_of(*texts: str, kind: str = "word") -> Tokenizer:
    return train_tokenizer(texts, TokenizerConfig(kind, min_frequency=1))  # type: ignore[arg-type]


def tokens(text: str) -> list[str]:
    """Returns the tokens of a text, with a vocabulary learned from it."""
    found: list[str] = tokenizer_of(text, "some other words").encode(text).tokens
    return found


WORD, BPE = (tokenizer_of(*TEXTS, kind=kind) for kind in KINDS)


def ids_of(tokenizer: Tokenizer, text: str) -> list[int]:
    return token_ids(tokenizer, [text])[0][0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("我很开心", ["我", "很", "开", "心"]),
        ("iPhone很好abc", ["iphone", "很", "好", "abc"]),
        ("5月三〇日", ["5", "月", "三", "〇", "日"]),
        ("哈哈哈哈哈", ["哈", "哈"]),
        ("好，真的！", ["好", ",", "真", "的", "!"]),
        ("すごーい", ["す", "ご", "ー", "い"]),
        ("ｶﾞﾝﾊﾞﾙ", ["ガ", "ン", "バ", "ル"]),
        ("人々", ["人", "々"]),
        ("ㄋㄏ", ["ㄋ", "ㄏ"]),
        # a letter with its vowel signs and tone marks
        ("ที่นี่ดี", ["ที่", "นี่", "ดี"]),
        ("ดี ๒๕๖๓", ["ดี", "๒๕๖๓"]),
        ("ດີ", ["ດີ"]),
        ("សួស្តី", ["សួ", "ស្", "តី"]),
        ("ကောင်း", ["ကော", "င်း"]),
        # Korean separates words, Tibetan syllables.
        ("행복해요 정말", ["행복해요", "정말"]),
        ("བོད་སྐད", ["བོད", "་", "སྐད"]),
        # links and @names end where such letters begin
        ("看https://t.co/aB3很好", ["看", "<url>", "很", "好"]),
        ("谢谢@ann_b很好", ["谢", "谢", "<user>", "很", "好"]),
        ("@小明 你好", ["<user>", "你", "好"]),
    ],
)
def test_letters_of_scripts_without_spaces_are_words(text: str, expected: list[str]) -> None:
    assert tokens(text) == expected


def test_new_sentence_of_known_characters_is_known() -> None:
    tokenizer = tokenizer_of("今天很开心", "我难过")
    assert UNK_ID not in ids_of(tokenizer, "我今天难过")


def test_bpe_learns_units_of_several_characters() -> None:
    tokenizer = tokenizer_of(*["今天很开心"] * 3, "今天很难过", kind="bpe")
    assert max(map(len, tokenizer.get_vocab())) > len("<pad>")
    assert UNK_ID not in ids_of(tokenizer, "今天很开心")


INVISIBLE = [
    *map(chr, [*range(9), *range(0x0E, 0x20), *range(0x7F, 0x85), *range(0x86, 0xA0)]),
    *"\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b\u180e\u3164\uffa0\ufeff\ufff9\ufffb",
    *map(chr, [*range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2070)]),
    *map(chr, range(0xFE00, 0xFE10)),
    *"\U0001d173\U000e0001\U000e0061\U000e007f\U000e0100",
]
# Both are part of an emoji at some places, the joiner between two and a tag after a black flag.
IN_EMOJI = ["\u200d", *map(chr, range(0xE0020, 0xE0080))]


@pytest.mark.parametrize("tokenizer", [WORD, BPE], ids=KINDS)
@settings(max_examples=300, deadline=None)
@example("\u200b", TEXTS[0], 3)
@given(
    st.sampled_from([c for c in INVISIBLE if c not in IN_EMOJI]),
    st.sampled_from(TEXTS),
    st.integers(0, 60),
)
def test_invisible_character_changes_no_id(
    tokenizer: Tokenizer, character: str, text: str, position: int
) -> None:
    typed = text[:position] + character + text[position:]
    assert ids_of(tokenizer, typed) == ids_of(tokenizer, text)


@pytest.mark.parametrize("character", INVISIBLE, ids=ascii)
def test_invisible_character_in_a_word_or_beside_changes_no_id(character: str) -> None:
    typed = f"{character}i'm {character}so{character}ooo hap{character * 2}py{character}"
    assert ids_of(WORD, typed) == ids_of(WORD, TEXTS[0])
    assert tokens(f"{character} {character}") == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (FAMILY, [FAMILY]),
        ("❤\ufe0f\u200d🔥", ["❤\u200d🔥"]),
        (f"{ENGLAND}{ENGLAND}🏴", [ENGLAND, ENGLAND, "🏴"]),
        # white space that is no space, and a blank of another kind
        ("a\u00a0b\u2009c\u3000d\u2028e\x85f\x0bg\u2800h", [*"abcdefgh"]),
        # an apostrophe of Windows-1252 that was read as Latin-1, and one that is a letter
        ("I\x92m I\u02bcm", ["im", "im"]),
        ("İSTANBUL I\u0307stanbul", ["istanbul", "istanbul"]),
        ("م\u0640\u0640رحبا", ["مرحبا"]),
    ],
)
def test_joined_emoji_blanks_and_variants_of_letters(text: str, expected: list[str]) -> None:
    assert tokens(text) == expected


@pytest.mark.parametrize("sign", [*"&'‘’`´\"<>!?/()…"])
def test_entity_is_the_character(sign: str) -> None:
    code = ord(sign)
    entities = [f"&#{code};", f"&#0{code};", f"&#x{code:x};", f"&#X0{code:X};"]
    for entity in [*entities, *(html.escape(entity) for entity in entities)]:
        assert tokens(f"so {entity}3 we{entity}ll") == tokens(f"so {sign}3 we{sign}ll")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I&apos;m &lt;3 &quot;it&quot; &gt; me", ["im", "<", "3", '"', "it", '"', ">", "me"]),
        ("you &amp; me &AMP; &amp;amp; &amp;#39; I", ["you", "&", "me", "&", "&", "i"]),
        ("wait&hellip; don&rsquo;t", ["wait", ".", ".", ".", "dont"]),
        ("https:&#x2F;&#x2F;a.b &lt;url&gt;", ["<url>", "<url>"]),
        # those of invisible characters are dropped
        ("hap&shy;py &#x200B;day&zwnj;s&#8203;", ["happy", "days"]),
        # all others are a space
        ("a&nbsp;b&#160;c&mdash;d&#8212;e&#x1F602;f&eacute;", [*"abcdef"]),
        # not entities
        ("Q&A; rock&roll; &amp", ["q", "&", "a", ";", "rock", "&", "roll", ";", "&", "amp"]),
        ("&#; &#x; &;", ["&", "#", ";", "&", "#", "x", ";", "&", ";"]),
    ],
)
def test_entities(text: str, expected: list[str]) -> None:
    assert tokens(text) == expected


@pytest.mark.parametrize("text", TEXTS)
def test_html_escaped_text_has_the_ids_of_the_text(text: str) -> None:
    for tokenizer in (WORD, BPE):
        assert ids_of(tokenizer, html.escape(html.unescape(text))) == ids_of(tokenizer, text)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "pattern",
    [
        "&",
        "&amp;",
        "&#",
        "&#0",
        "&lt",
        "a\u200b",
        "\u200d",
        "🏴\U000e0067",
        "\U000e0067",
        "好",
        "@好",
    ],
)
def test_text_of_100_000_characters_is_tokenized(kind: str, pattern: str) -> None:
    (ids,), _ = token_ids(tokenizer_of(*TEXTS, kind=kind), [(pattern * 100_000)[:100_000]])
    assert 1 <= len(ids) <= TokenizerConfig.max_length


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("word", [[2, 3, 11, 8, 13], [9, 7, 12, 4, 5, 2, 6, 10, 14], [2, 3, 4], [14, 11, 1]]),
        (
            "bpe",
            [
                [20, 25, 27, 19, 35, 14, 18, 19, 16, 13, 33],
                [20, 11, 25, 36, 6, 27, 13, 28, 19, 29, 3, 20, 19, 32, 38, 19, 37, 39, 19, 17, 34],
                [20, 25, 28],
                [19, 17, 34, 27, 19, 1, 12, 37, 39, 12],
            ],
        ),
    ],
)
def test_ids_of_letters_and_spaces_are_pinned(kind: str, expected: list[list[int]]) -> None:
    """Published figures on cleaned texts, which have nothing else, must stay reproducible."""
    texts = ["i feel so happy today", "im feeling sooo sad and i dont know why", "i feel sad"]
    tokenizer = train_tokenizer(
        texts,
        TokenizerConfig(kind, vocab_size=40, min_frequency=1),  # type: ignore[arg-type]
    )
    assert token_ids(tokenizer, [*texts, "why so unknown"])[0] == expected


def test_saved_tokenizer_keeps_its_own_rules() -> None:
    content = json.loads(tokenizer_of("我很 好", "i am happy").to_str())
    content["normalizer"] = {"type": "Lowercase"}
    content["pre_tokenizer"] = {"type": "Whitespace"}
    content["model"]["vocab"] = {"<pad>": 0, "<unk>": 1, "我很": 2, "am": 3, "ha\u200bppy": 4}
    loaded = load_tokenizer(json.dumps(content))
    assert ids_of(loaded, "我很 AM") == [2, 3]
