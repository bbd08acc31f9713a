"""A tiny classifier with random weights, and access to the header of its portable file."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from featherweight import load
from featherweight.errors import WeightsError
from lstm.classifier import TextClassifier
from lstm.config import ModelConfig, TokenizerConfig
from lstm.encoder import LSTMClassifier
from lstm.tokenizer import train_tokenizer

LABELS = ("joy", "très sad", "anger; or worse")
TEXTS = [
    "i am happy 👍🏽",
    "I'm SOOOO sad @ann...",
    "",
    "zzz",
    "why, why, why? https://t.co/x",
    "i",
]


def make_classifier(**changes: Any) -> TextClassifier:
    config = ModelConfig(embedding_dim=8, hidden_dim=8, **changes)
    vocabulary = TokenizerConfig(min_frequency=1, max_length=20)
    tokenizer = train_tokenizer(["i am happy", "i am sad.", "why, oh why?"], vocabulary)
    module = LSTMClassifier(tokenizer.get_vocab_size(), len(LABELS), config)
    with torch.no_grad():
        module.embedding.weight[1:].normal_()
    return TextClassifier("tiny (é)", LABELS, tokenizer, module, config, "cpu")


def header_length(content: bytes) -> int:
    return int.from_bytes(content[:8], "little")


def header(content: bytes) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(content[8 : 8 + header_length(content)])
    return parsed


def assert_refused(path: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        load(path, "cpu")
    assert len(str(caught.value).splitlines()) == 1
    assert str(path) in str(caught.value)
