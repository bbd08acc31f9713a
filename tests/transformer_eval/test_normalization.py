import csv
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertweetTokenizer

from featherweight.errors import MissingExtraError
from transformer_eval import normalization
from transformer_eval.normalization import NORMALIZERS, bertweet, cardiff

CORPUS = Path(__file__).parents[2] / "featherweight" / "corpus" / "train.csv"
# Text that the rules change, and text that they should not change.
PIECES = [
    "@ann", "@", "@@bob_1", "ann@mail.org", "http://t.co/x", "HTTPS://T.CO/Y", "www.site.com",
    "httpfoo", "site.org/page", "x.com", "can't", "cannot", "can’t", "ain't", "don't", "won't",
    "n't", "n 't", "ca n't", "I'm", "they're", "it’s", "he'll", "I'd", "we've", "rock'n'",
    "'s", "'", "’", "…", "...", ". . .", "…!", "p.m.", "5 p.m.", "a.m", "p . m .", "A.M.", "p.m",
    "😂", "😂😂", "😂😂😂😂😂", "❤", "❤\ufe0f", "👍🏽", "👨\u200d👩\u200d👧", "🏴\u200d☠\ufe0f",
    "🇩🇪", "🇩", "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f", "☕", "©",
    "<3", ":)", ":-(", "xD", "<b>", "->", "&amp;", "&hellip;", "&rsquo;", "&lt;3",
    "&#8217;s", "&nbsp;", "&bogus;", "#happy", "##", "+1 555 123 4567", "3,000", "10:30",
    "!!!!!!", "-----", "?!", "sooooo", "naïve", "日本", "well-known", "a", "I", "RT", ":", "_",
    "\n", "\t", " ", "\u200b",
]  # fmt: skip


@pytest.fixture(scope="module")
def authors(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """The normalization of the authors in transformers, with a copy of the nltk they used."""
    folder = tmp_path_factory.mktemp("bertweet")
    (folder / "vocab.txt").write_text("a 1\n")
    (folder / "bpe.codes").write_text("a b 1\n")
    tokenizer = BertweetTokenizer(
        str(folder / "vocab.txt"), str(folder / "bpe.codes"), normalization=True
    )
    return tokenizer.normalizeTweet


def test_bertweet_equals_the_authors_on_the_corpus(authors: Callable[[str], str]) -> None:
    with CORPUS.open(encoding="utf-8", newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)]

    normalized = [bertweet(text) for text in texts]

    assert normalized == [authors(text) for text in texts]
    assert sum(one != other for one, other in zip(normalized, texts, strict=True)) > 1000


@pytest.mark.parametrize("piece", PIECES)
def test_bertweet_equals_the_authors_on_a_piece(authors: Callable[[str], str], piece: str) -> None:
    for text in (piece, f"{piece} it is", f"so {piece}", f"so {piece} it is", f"so{piece}it is"):
        assert bertweet(text) == authors(text)


@settings(max_examples=200)
@given(pieces=st.lists(st.sampled_from(PIECES), max_size=8), separator=st.sampled_from(["", " "]))
def test_bertweet_equals_the_authors_on_mixtures(
    authors: Callable[[str], str], pieces: list[str], separator: str
) -> None:
    text = separator.join(pieces)

    assert bertweet(text) == authors(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        (" \n ", ""),
        ("hi @ann, see https://t.co/x", "hi @USER , see HTTPURL"),
        ("WWW.SITE.COM", "HTTPURL"),
        ("so funny 😂😂", "so funny :face_with_tears_of_joy: :face_with_tears_of_joy:"),
        ("I’m here…", "I 'm here ..."),
        ("I can't and don't go", "I can't and do n't go"),
        ("they cannot go", "they can not go"),
        # A contraction is split only before another word.
        ("no I don't", "no I don't"),
        ("see you at 5 p.m. then", "see you at 5 p.m. then"),
        # The authors' nltk splits a thumb and its skin tone.
        ("👍🏽", ":thumbs_up: :medium_skin_tone:"),
        ("👨\u200d👩 🇩🇪", ":man: \u200d :woman: 🇩 🇪"),
        # It splits </3 into three words.
        ("my </3 and &lt;/3", "my < / 3 and < / 3"),
        ("http://t.co/👍🏽 <👍🏽>", "HTTPURL <👍🏽>"),
        ("Tom &amp; Ann", "Tom & Ann"),
        ("It&rsquo;s", "It ' s"),
    ],
)
def test_bertweet_examples(text: str, expected: str) -> None:
    assert bertweet(text) == expected


def test_bertweet_does_not_change_placeholders() -> None:
    assert bertweet("@USER HTTPURL :)") == "@USER HTTPURL :)"


@pytest.mark.parametrize("text", ["&#55357;&#56834; hi", "\ud83d hi"])
def test_lone_surrogates_are_removed(text: str) -> None:
    # Tokenizers are written in Rust, whose strings cannot contain them.
    assert bertweet(text) == "hi"


@pytest.mark.parametrize("text", ["1" * 100_000, "a." * 50_000, "1-" * 50_000, "@" * 50_000])
def test_bertweet_normalizes_very_long_texts(text: str) -> None:
    assert bertweet(text)


def test_only_the_beginning_of_a_very_long_text_is_used() -> None:
    text = "so happy " * 2_000

    assert bertweet(text + "http://t.co") == bertweet(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("@ann hi", "@user hi"),
        ("hi @ann!", "hi @user"),
        ("meet me @ noon", "meet me @ noon"),
        ("ann@mail.org", "ann@mail.org"),
        ("see http://t.co/x or https://t.co/y", "see http or http"),
        # Only lower-case links, as on the model card.
        ("HTTP://T.CO www.site.com", "HTTP://T.CO www.site.com"),
        (".@ann (http://t.co)", ".@ann (http://t.co)"),
        ("two  blanks ", "two  blanks "),
        ("hi\n@ann", "hi\n@ann"),
        ("😂 I’m fine…", "😂 I’m fine…"),
    ],
)
def test_cardiff_examples(text: str, expected: str) -> None:
    assert cardiff(text) == expected


@given(text=st.text(alphabet="@htp:/ax \n", max_size=40))
def test_cardiff_is_idempotent(text: str) -> None:
    assert cardiff(cardiff(text)) == cardiff(text)


@pytest.mark.parametrize("library", ["nltk", "emoji"])
def test_missing_library_is_reported(monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    normalization._tools.cache_clear()

    with pytest.raises(MissingExtraError) as error:
        bertweet("hi")

    assert str(error.value).startswith(f"{library} is not installed")
    assert "featherweight[transformers]" in str(error.value)
    assert cardiff("@ann") == "@user"


def test_import_loads_no_library() -> None:
    code = (
        "import sys, transformer_eval.normalization as n; n.cardiff('hi')\n"
        "print(sorted({'nltk', 'emoji', 'torch', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_normalizers() -> None:
    assert dict(NORMALIZERS) == {"bertweet": bertweet, "cardiff": cardiff}
