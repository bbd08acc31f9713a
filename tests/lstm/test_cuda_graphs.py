from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from featherweight import load
from featherweight.baselines import MostFrequentClass
from featherweight.classifier import Classifier
from featherweight.data.dataset import Split
from featherweight.errors import UsageError
from lstm.classifier import TextClassifier
from lstm.config import ModelConfig, TokenizerConfig
from lstm.cuda_graphs import BUCKET, GraphedClassifier, graphed
from lstm.encoder import LSTMClassifier
from lstm.tokenizer import train_tokenizer

WORDS = ("i", "am", "so", "happy", "today", "why", "are", "you", "sad", "and", "alone")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def make_classifier(
    stored_dtype: str = "fp32", device: str = "cuda", **changes: Any
) -> TextClassifier:
    config = ModelConfig(embedding_dim=8, hidden_dim=8, **changes)
    tokenizer = train_tokenizer([" ".join(WORDS)] * 2, TokenizerConfig(min_frequency=1))
    module = LSTMClassifier(tokenizer.get_vocab_size(), 3, config)
    with torch.no_grad():
        module.embedding.weight[1:].normal_()
    labels = ("a", "b", "c")
    return TextClassifier("tiny", labels, tokenizer, module, config, device, stored_dtype)


def texts(lengths: Sequence[int], seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, length)) for length in lengths]


def logits(classifier: Classifier, batch: list[str]) -> Any:
    return classifier.forward(classifier.encode(batch))


@pytest.mark.parametrize("weights", ["lstm", "baseline"])
def test_graphs_require_an_lstm_on_a_gpu(tiny_run: Path, weights: str) -> None:
    split = Split("train", ("a", "b"), np.array([0, 1]), ("x", "y"))
    classifiers = {
        "lstm": load(tiny_run, "cpu"),
        "baseline": MostFrequentClass(split, ("x", "y")),
    }
    with pytest.raises(UsageError, match="CUDA graphs require an LSTM run on a GPU") as caught:
        graphed(classifiers[weights])
    assert str(caught.value).startswith(f"{classifiers[weights].name}: ")
    assert "\n" not in str(caught.value)


@needs_cuda
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"pooling": "attention", "num_layers": 2},
        {"pooling": "last"},
        {"pooling": "mean", "bidirectional": False},
    ],
    ids=str,
)
@pytest.mark.parametrize(("stored_dtype", "tolerance"), [("fp32", 1e-3), ("fp16", 2e-2)])
def test_replayed_graph_gives_equal_logits(
    changes: dict[str, Any], stored_dtype: str, tolerance: float
) -> None:
    plain = make_classifier(stored_dtype, **changes)
    replaying = graphed(plain)
    # One shape twice, so that the second batch is a replay with other texts; an exact bucket,
    # a text beyond it, and a batch of one.
    for number, lengths in enumerate([[3, 1, 7], [2, 9, 4], [BUCKET, 5], [BUCKET + 1, 2], [1]]):
        batch = texts(lengths, seed=number)
        assert logits(replaying, batch) == pytest.approx(logits(plain, batch), abs=tolerance)


@needs_cuda
def test_replaying_does_not_overwrite_earlier_logits() -> None:
    replaying = graphed(make_classifier())
    first = logits(replaying, texts([3, 5], seed=1))
    kept = first.copy()
    second = logits(replaying, texts([4, 2], seed=2))
    assert np.array_equal(first, kept)
    assert not np.array_equal(first, second)
    assert np.array_equal(logits(replaying, texts([3, 5], seed=1)), kept)


def test_texts_are_padded_to_multiples_of_the_bucket() -> None:
    # Only `forward` needs a GPU.
    replaying = GraphedClassifier(make_classifier(device="cpu"))
    for lengths, width in [([3, 5], BUCKET), ([BUCKET], BUCKET), ([BUCKET + 1, 2], 2 * BUCKET)]:
        batch = replaying.encode(texts(lengths))
        assert tuple(batch.input_ids.shape) == (len(lengths), width)
        assert replaying.num_tokens(batch) == sum(lengths)


def test_only_the_name_of_the_model_changes() -> None:
    plain = make_classifier(device="cpu")
    replaying = GraphedClassifier(plain)
    assert replaying.name == "tiny, CUDA graphs"
    assert replaying.backend == "torch, CUDA graphs"
    assert plain.name == "tiny"
    assert (replaying.labels, replaying.device, replaying.dtype) == (plain.labels, "cpu", "fp32")
    assert replaying.num_parameters() == plain.num_parameters()
    assert replaying.module is plain.module


@needs_cuda
def test_predictions_of_replayed_graphs() -> None:
    plain = make_classifier()
    batch = texts([3, 9, 1, 30, 4])
    assert graphed(plain).predict(batch) == plain.predict(batch)
