"""`known_words` of every kind of classifier."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compress.onnx.conversion import export as export_onnx
from edge.config import ExportConfig
from edge.export import export
from edge.runtime import load as load_bundle
from featherweight import load
from lstm.classifier import TextClassifier
from lstm.config import ModelConfig, TokenizerConfig
from lstm.encoder import LSTMClassifier
from lstm.tokenizer import train_tokenizer
from transformer_eval.tokenization import known_words

# Texts with the number of their tokens that the tiny models know.
KNOWN = {"so happy": 2, "so 漢字 happy": 2, "": 0, " \n": 0, "漢字": 0, "zzzzqqq xxyyxx": 0}


def counts(model: Any) -> list[int]:
    words = model.known_words(list(KNOWN))
    assert words.dtype == np.int64
    assert model.known_words([]).shape == (0,)
    return list(words.tolist())


def test_lstm_onnx_and_bundle_count_what_their_vocabulary_contains(
    tiny_run: Path, tmp_path: Path
) -> None:
    lstm = load(tiny_run, "cpu")
    export_onnx(lstm, None, "onnx", tmp_path)
    bundle = export(ExportConfig(tiny_run, tmp_path / "bundle"))
    for model in (lstm, load(tmp_path), load_bundle(bundle), load(bundle)):
        assert counts(model) == list(KNOWN.values())


def test_the_mark_of_a_word_start_is_no_known_word() -> None:
    texts = ["so happy today", "so sad today"] * 9
    tokenizer = train_tokenizer(texts, TokenizerConfig(tokenizer="bpe", vocab_size=60))
    config = ModelConfig(embedding_dim=4, hidden_dim=4)
    module = LSTMClassifier(tokenizer.get_vocab_size(), 2, config)
    classifier = TextClassifier("bpe", ("a", "b"), tokenizer, module, config, "cpu")
    tokens = tokenizer.encode("漢字").tokens
    assert tokens == ["▁", "<unk>", "<unk>"]
    assert classifier.known_words(["漢字", "so happy today", ""]).tolist() == [0, 3, 0]


def test_transformer_features_and_onnx_count_neither_special_nor_unknown_tokens(
    tiny_bert: Path, tiny_features: Path, tmp_path: Path
) -> None:
    bert = load(tiny_bert, "cpu")
    export_onnx(bert, None, "onnx", tmp_path)
    for model in (bert, load(tiny_features, "cpu"), load(tmp_path)):
        assert counts(model) == list(KNOWN.values())
        assert model.truncated_texts == 0


def test_a_text_counts_up_to_the_maximum_length(tiny_bert: Path) -> None:
    bert: Any = load(tiny_bert, "cpu")
    text = " ".join(["so happy"] * 50)
    assert bert.known_words([text]).tolist() == [100]
    assert known_words(bert.tokenizer, [text], None, 12).tolist() == [10]  # two are special


@pytest.mark.parametrize("count", [1, 300])
def test_counts_come_in_the_order_of_the_texts(tiny_run: Path, count: int) -> None:
    texts = ["happy " * (number % 5) for number in range(count)]
    known = load(tiny_run, "cpu").known_words(texts)
    assert known.tolist() == [number % 5 for number in range(count)]
