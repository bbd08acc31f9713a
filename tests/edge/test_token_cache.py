"""A bundle's word-wise encoding gives the ids of the tokenizer, for any text."""

import csv
import json
import random
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

import featherweight
from edge.bundle_files import LABELS, MODEL, TOKENIZER
from edge.export import EDGE_CASES, graph_of
from edge.runtime import Bundle
from lstm.classifier import TextClassifier
from lstm.config import ModelConfig, TokenizerConfig
from lstm.encoder import LSTMClassifier
from lstm.tokenizer import token_ids, train_tokenizer

# Characters that the normalizer and the pre-tokenizer treat in a special way.
SPECIAL = (
    " \t\n\u00a0\u2003\u200d\ufe0f'’`´@#_<>/:.!?-aAeéEßİΣσςﬁ①Ⅷ\u0301\u0308\u0345ａ한ㄱ1٣👍🏽🇫🇷❤"
)
WORDS = ["<url>", "<user>", "<pad>", "http://", "https://x", "www.", "@ann", "sooooo", "happy"]


@pytest.fixture(scope="module")
def corpus() -> list[str]:
    texts = []
    for path in (Path(featherweight.__file__).parent / "corpus").glob("*.csv"):
        with path.open(encoding="utf-8", newline="") as file:
            texts += [row["text"] for row in csv.DictReader(file)]
    assert len(texts) > 3_000
    return texts


@pytest.fixture(scope="module", params=["word", "bpe"])
def pair(request: pytest.FixtureRequest, corpus: list[str]) -> tuple[Bundle, Tokenizer]:
    """A bundle with a tokenizer of each kind, and the tokenizer."""
    config = TokenizerConfig(request.param, vocab_size=2_000, max_length=40)
    tokenizer = train_tokenizer([*corpus, *EDGE_CASES, *EDGE_CASES], config)
    labels, dimensions = ("joy", "sadness"), ModelConfig(embedding_dim=2, hidden_dim=2)
    module = LSTMClassifier(tokenizer.get_vocab_size(), len(labels), dimensions)
    classifier = TextClassifier("random", labels, tokenizer, module, dimensions, "cpu")
    files = {
        MODEL: graph_of(classifier),
        TOKENIZER: tokenizer.to_str().encode(),
        LABELS: json.dumps(labels).encode(),
    }
    return Bundle(files, {"temperature": 1.0}), tokenizer


def assert_same_ids(pair: tuple[Bundle, Tokenizer], texts: list[str]) -> None:
    bundle, tokenizer = pair
    expected, num_truncated = token_ids(tokenizer, texts)
    assert [list(memoryview(row).cast("q")) for row in bundle.encode(texts)] == expected
    assert sum(map(bundle.is_truncated, texts)) == num_truncated


def test_corpus_and_edge_cases(pair: tuple[Bundle, Tokenizer], corpus: list[str]) -> None:
    assert_same_ids(pair, corpus)
    assert_same_ids(pair, [*EDGE_CASES, "happy " * 39, "happy " * 40, "happy " * 41])


def test_random_strings(pair: tuple[Bundle, Tokenizer]) -> None:
    generator = random.Random(0)

    def piece() -> str:
        kind = generator.random()
        if kind < 0.6:
            return generator.choice(SPECIAL)
        if kind < 0.8:
            return generator.choice(WORDS)
        number = generator.randint(0, 0x10FFFF)
        return " " if 0xD800 <= number <= 0xDFFF else chr(number)

    lengths = [generator.randint(0, 25) for _ in range(10_000)]
    assert_same_ids(pair, ["".join(piece() for _ in range(length)) for length in lengths])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.text() | st.text(SPECIAL) | st.sampled_from(WORDS)).map("".join))
@example("so ´ ¨happy  \u0308 x")
@example("\u0391\u03a3 \u0391\u03a3")
def test_any_string(pair: tuple[Bundle, Tokenizer], text: str) -> None:
    assert_same_ids(pair, [text])
