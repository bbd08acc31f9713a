"""The look-up gives the ids that the tokenizer gives: of any text, and of all that are bundled."""

import csv
import json
import random
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

import featherweight
from edge.golden import EDGE_CASES
from edge.runtime import LABELS, MODEL, TOKENIZER, Bundle, read
from lstm.config import TokenizerConfig
from lstm.tokenizer import token_ids, train_tokenizer

CORPUS = Path(featherweight.__file__).parent / "corpus"
# What normalizer and pre-tokenizer look at, close together.
TELLING = (
    " \t\n\u00a0\u2003\u200d\ufe0f'’`´@#_<>/:.!?-aAeéEßİΣσςﬁ①Ⅷ\u0301\u0308\u0345ａ한ㄱ1٣👍🏽🇫🇷❤"
)
WORDS = ["<url>", "<user>", "<pad>", "http://", "https://x", "www.", "@ann", "sooooo", "happy"]


def corpus() -> list[str]:
    texts = []
    for split in ("train", "validation", "test"):
        with (CORPUS / f"{split}.csv").open(encoding="utf-8", newline="") as file:
            texts += [row["text"] for row in csv.DictReader(file)]
    return texts


@pytest.fixture(scope="module", params=["word", "bpe"])
def both(request: pytest.FixtureRequest, exported: Path) -> tuple[Bundle, Tokenizer]:
    """A bundle with a tokenizer of each kind, and that tokenizer."""
    config = TokenizerConfig(request.param, vocab_size=2_000, max_length=40)
    tokenizer = train_tokenizer([*corpus(), *EDGE_CASES, *EDGE_CASES], config)
    files = {**read(exported), TOKENIZER: tokenizer.to_str().encode()}
    assert {MODEL, LABELS} < files.keys()
    return Bundle(files, {"temperature": 1.0}), tokenizer


def same(both: tuple[Bundle, Tokenizer], texts: list[str]) -> None:
    bundle, tokenizer = both
    ids, cut = token_ids(tokenizer, texts)
    found = [list(memoryview(row).cast("q")) for row in bundle.encode(texts)]
    assert found == ids
    assert sum(map(bundle.is_cut, texts)) == cut


def test_of_the_bundled_corpus(both: tuple[Bundle, Tokenizer]) -> None:
    texts = corpus()
    assert len(texts) > 3_000
    same(both, texts)
    same(both, [*EDGE_CASES, "happy " * 39, "happy " * 40, "happy " * 41])


def test_of_ten_thousand_random_strings(both: tuple[Bundle, Tokenizer]) -> None:
    drawn = random.Random(0)

    def piece() -> str:
        kind = drawn.random()
        if kind < 0.6:
            return drawn.choice(TELLING)
        if kind < 0.8:
            return drawn.choice(WORDS)
        number = drawn.randint(0, 0x10FFFF)
        return " " if 0xD800 <= number <= 0xDFFF else chr(number)

    same(both, ["".join(piece() for _ in range(drawn.randint(0, 25))) for _ in range(10_000)])


@settings(max_examples=500, deadline=None)
@given(st.lists(st.text() | st.text(TELLING) | st.sampled_from(WORDS)).map("".join))
@example("so ´ ¨happy  \u0308 x")
@example(json.loads('"ΑΣ ΑΣ"'))
def test_of_what_hypothesis_thinks_of(both: tuple[Bundle, Tokenizer], text: str) -> None:
    same(both, [text])
