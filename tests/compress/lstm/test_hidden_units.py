from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compress.lstm.hidden_units import without_weak_units
from featherweight import load
from featherweight.data.dataset import Dataset
from lstm.classifier import TextClassifier
from lstm.config import PRESETS, ModelConfig
from lstm.encoder import LSTMClassifier
from tests.helpers.variants import made

TEXTS = ["so happy 😂", "", "zzz", "i miss my dog, i feel so alone", "why, why, why???"]
HIDDEN = 6
CLASSIC = {name: value for name, value in PRESETS["classic"].items() if name in vars(ModelConfig())}
SHAPES: dict[str, dict[str, Any]] = {
    "feather": {},
    "classic": CLASSIC,
    "attention": {"num_layers": 2, "pooling": "attention"},
    "mean": {"num_layers": 2, "pooling": "mean", "bidirectional": False},
    "both ends": {"num_layers": 2, "pooling": "last"},
}

each_shape = pytest.mark.parametrize("shape", SHAPES)


def random_classifier(origin: TextClassifier, shape: str) -> TextClassifier:
    config = ModelConfig(**{**SHAPES[shape], "embedding_dim": 7, "hidden_dim": HIDDEN})
    module = LSTMClassifier(origin.tokenizer.get_vocab_size(), 3, config)
    return TextClassifier("random", origin.labels, origin.tokenizer, module, config, "cpu")


def lstms(classifier: TextClassifier) -> list[list[torch.nn.LSTM]]:
    """The LSTMs of each layer, forwards first."""
    encoder = classifier.module.encoder
    pairs = [list(encoder.forwards), list(encoder.backwards)] if len(encoder.backwards) else [
        list(encoder.forwards)
    ]  # fmt: skip
    return [list(layer) for layer in zip(*pairs, strict=True)]  # type: ignore[arg-type]


@torch.no_grad()
def scale_unit(
    classifier: TextClassifier, layer: int, direction: int, unit: int, by: float
) -> None:
    """Scales all input and output weights of a unit."""
    lstm = lstms(classifier)[layer][direction]
    for rows in (lstm.weight_ih_l0, lstm.weight_hh_l0):
        rows[unit::HIDDEN] *= by
    lstm.weight_hh_l0[:, unit] *= by
    column = direction * HIDDEN + unit
    if layer + 1 < classifier.config.num_layers:
        for reader in lstms(classifier)[layer + 1]:
            reader.weight_ih_l0[:, column] *= by
    else:
        classifier.module.head.weight[:, column] *= by
        if classifier.module.attention is not None:
            classifier.module.attention.weight[:, column] *= by


@each_shape
def test_removing_units_without_weights_changes_no_logit(
    origin: TextClassifier, shape: str
) -> None:
    classifier = random_classifier(origin, shape)
    for layer, directions in enumerate(lstms(classifier)):
        for direction in range(len(directions)):
            # Different units in each layer and direction.
            for unit in (layer + 2 * direction, layer + 2 * direction + 1):
                scale_unit(classifier, layer, direction, unit, 0.0)
    before = classifier.logits(TEXTS)
    smaller = without_weak_units(classifier, 4 / HIDDEN)
    assert smaller.config == replace(classifier.config, hidden_dim=4)
    assert smaller.logits(TEXTS) == pytest.approx(before, abs=1e-6)
    assert not np.allclose(before[0], before[3])


@each_shape
def test_the_weakest_units_are_removed_and_the_others_keep_their_weights(
    origin: TextClassifier, shape: str
) -> None:
    classifier = random_classifier(origin, shape)
    weak = 3
    for layer, directions in enumerate(lstms(classifier)):
        for direction in range(len(directions)):
            scale_unit(classifier, layer, direction, weak, 0.1)
    smaller = without_weak_units(classifier, 5 / HIDDEN)
    kept = [unit for unit in range(HIDDEN) if unit != weak]
    rows = [gate * HIDDEN + unit for gate in range(4) for unit in kept]
    before, after = lstms(classifier), lstms(smaller)
    for old, new in zip(before[0], after[0], strict=True):
        assert torch.equal(new.weight_ih_l0, old.weight_ih_l0[rows])
        assert torch.equal(new.weight_hh_l0, old.weight_hh_l0[rows][:, kept])
        assert torch.equal(new.bias_ih_l0 + new.bias_hh_l0, (old.bias_ih_l0 + old.bias_hh_l0)[rows])
    columns = [n * HIDDEN + unit for n in range(len(before[0])) for unit in kept]
    assert torch.equal(smaller.module.head.weight, classifier.module.head.weight[:, columns])
    if len(before) > 1:
        assert torch.equal(after[1][0].weight_ih_l0, before[1][0].weight_ih_l0[rows][:, columns])


@pytest.mark.parametrize(
    ("shape", "share"), [("feather", 0.5), ("classic", 0.01), ("mean", 0.5), ("attention", 0.99)]
)
def test_a_share_of_the_units_is_kept_and_at_least_one(
    origin: TextClassifier, shape: str, share: float
) -> None:
    classifier = random_classifier(origin, shape)
    before = classifier.logits(TEXTS)
    smaller = without_weak_units(classifier, share)
    hidden_dim = {0.01: 1, 0.5: 3, 0.99: 6}[share]
    for layer in lstms(smaller):
        assert all(lstm.weight_hh_l0.shape == (4 * hidden_dim, hidden_dim) for lstm in layer)
    assert smaller.module.head.in_features == hidden_dim * len(lstms(smaller)[0])
    assert np.isfinite(smaller.logits(TEXTS)).all()
    if hidden_dim < HIDDEN:
        assert smaller.size_bytes() < classifier.size_bytes()
        assert smaller.num_parameters() < classifier.num_parameters()
    else:
        assert np.array_equal(smaller.logits(TEXTS), before)
    assert np.array_equal(classifier.logits(TEXTS), before)


@pytest.mark.parametrize("method", ["prune", "prune+int8"])
def test_the_smaller_network_is_retrained_and_survives_saving(
    origin: TextClassifier, dataset: Dataset, tmp_path: Path, method: Any
) -> None:
    variant = made(origin, dataset, tmp_path, method, hidden=0.5, sparsity=0.5, vocabulary=0.6,
                   retraining_epochs=2, retraining_rate=0.02)  # fmt: skip
    assert variant.config.hidden_dim == origin.config.hidden_dim // 2
    untrained = without_weak_units(origin, 0.5)
    assert not torch.equal(variant.module.head.weight, untrained.module.head.weight)
    variant.save(tmp_path / "variant.safetensors")
    loaded = load(tmp_path / "variant.safetensors", "cpu")
    assert isinstance(loaded, TextClassifier)
    assert loaded.config == variant.config
    assert np.array_equal(loaded.logits(TEXTS), variant.logits(TEXTS))
    assert loaded.size_bytes() < origin.size_bytes()
