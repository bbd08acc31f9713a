import logging
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from featherweight.errors import UsageError
from lstm.config import TokenizerConfig
from lstm.tokenizer import PAD, UNK, train_tokenizer, whole_words
from lstm.vectors import vocabulary
from lstm.vectors.table import VectorTable
from lstm.vectors.vocabulary import log_coverage, vocabulary_vectors
from tests.helpers.seeding import untouched_generators
from tests.helpers.variants import FAMILIES
from transformer_eval.frozen_encoder import Encoder
from transformer_eval.random_weights import build
from transformer_eval.registry import Pretrained

TEXTS = ["i'm so happy", "happy happier zzyzx", "so unhappy zzyzx 😂 😂"] * 3


def tokenizer(kind: str) -> Tokenizer:
    return train_tokenizer(TEXTS, TokenizerConfig(tokenizer=kind, vocab_size=60))  # type: ignore[arg-type]


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> VectorTable:
    """A table of three words, in place of that of the package."""
    table = VectorTable.of(["happy", "so", "im"], torch.eye(3))
    table.save(tmp_path / "table", {})
    monkeypatch.setattr(vocabulary, "BUILTIN", tmp_path / "table")
    return table


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny encoder with random weights."""
    path = tmp_path_factory.mktemp("encoder") / "bert"
    with untouched_generators():
        build(Pretrained("acme/bert", "bert", FAMILIES["bert"]), TEXTS, ("a", "b"), path)
    return path


def test_whole_words_of_a_word_tokenizer_are_its_tokens() -> None:
    words = whole_words(tokenizer("word"))
    assert words[:2] == ["", ""]
    assert sorted(words[2:]) == sorted(["😂", "happier", "happy", "im", "so", "unhappy", "zzyzx"])
    for index, word in enumerate(words[2:], start=2):
        assert tokenizer("word").token_to_id(word) == index


def test_whole_words_of_subwords_are_those_that_start_a_word() -> None:
    built = tokenizer("bpe")
    words = whole_words(built)
    for token, index in built.get_vocab().items():
        starts = token.startswith("▁") and token not in (PAD, UNK)
        assert words[index] == (token[1:] if starts else "")
    assert {"happy", "so", "zzyzx"} <= set(words)
    assert "" in words[2:]


@pytest.mark.parametrize("kind", ["word", "bpe"])
def test_builtin_vectors_are_those_of_the_words(
    table: VectorTable, tmp_path: Path, kind: str
) -> None:
    built = tokenizer(kind)
    vectors = vocabulary_vectors("builtin", built, "cpu", tmp_path)
    assert vectors is not None
    assert torch.equal(vectors, table.select(whole_words(built)))
    assert vectors.any(dim=1).sum() == 3


def test_none_has_no_vectors(tmp_path: Path) -> None:
    assert vocabulary_vectors("none", tokenizer("word"), "cpu", tmp_path) is None


def test_known_words_and_tokens_are_logged_in_one_line(
    table: VectorTable, caplog: pytest.LogCaptureFixture
) -> None:
    built = tokenizer("word")
    ids = [[built.token_to_id("happy"), 1, 1], [built.token_to_id("so")]]
    with caplog.at_level(logging.INFO, "featherweight"):
        log_coverage("builtin", table.select(whole_words(built)), ids)
    assert [record.getMessage() for record in caplog.records] == [
        "word vectors (builtin): 3 of 7 words of the vocabulary, 50.0 % of the training tokens"
    ]


def test_vectors_of_an_encoder_are_reduced_for_the_words_of_the_vocabulary(
    tmp_path: Path, encoder: Path
) -> None:
    built = tokenizer("word")
    vectors = vocabulary_vectors(str(encoder), built, "cpu", tmp_path)
    assert vectors is not None
    assert vectors.shape[0] == built.get_vocab_size()
    assert not vectors[:2].any()
    assert vectors[2:].any(dim=1).all()
    assert vectors[2:, 0].std(correction=0) == pytest.approx(1, abs=1e-5)


def test_letters_alone_have_no_vectors_of_an_encoder(tmp_path: Path, encoder: Path) -> None:
    letters = train_tokenizer(TEXTS, TokenizerConfig(tokenizer="bpe", min_frequency=1_000))
    vectors = vocabulary_vectors(str(encoder), letters, "cpu", tmp_path)
    assert vectors is not None
    assert len(vectors) == letters.get_vocab_size()
    assert not vectors.any()


def test_states_of_an_encoder_are_computed_once(
    tmp_path: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = vocabulary_vectors(str(encoder), tokenizer("word"), "cpu", tmp_path)
    monkeypatch.delattr(Encoder, "embed_all")
    again = vocabulary_vectors(str(encoder), tokenizer("word"), "cpu", tmp_path)
    assert first is not None and again is not None
    assert torch.equal(first, again)


@pytest.mark.parametrize("name", ["built in", "./nowhere", "../minilm", ""])
def test_unknown_vectors_are_one_line_that_lists_the_choices(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="--vectors") as caught:
        vocabulary_vectors(name, tokenizer("word"), "cpu", tmp_path)
    assert "\n" not in str(caught.value)
    assert {"builtin", "minilm"} <= set(str(caught.value).replace(",", "").split())
