import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from compress.lstm import retraining
from compress.lstm.quantization import int4_storage, int8_storage, quantize
from compress.origin import Origin
from featherweight import load
from featherweight.data.dataset import Dataset
from featherweight.quality.evaluation import evaluate
from lstm import fit as fitting
from lstm.checkpoint import Progress
from lstm.classifier import TOKENIZER, TextClassifier
from lstm.config import ModelConfig
from lstm.encoder import LSTMClassifier
from lstm.projection import as_stored, projected
from lstm.storage import Format, restore, store
from tests.helpers.variants import made

TEXTS = ["so happy 😂", "", "zzz", "i miss my dog, i feel so alone", "why, why, why???"]
STORAGES = {"int8": int8_storage, "int4": int4_storage}
# A rate at which the rounded weights change.
RETRAINING = {"retraining_epochs": 3, "retraining_rate": 0.02}
QAT = {"int8": "qat", "int4": "qat-int4"}

both = pytest.mark.parametrize("method", ["int8", "int4"])


def quantized(origin: TextClassifier, method: str) -> TextClassifier:
    return quantize(origin, STORAGES[method](origin), method)


def larger(origin: TextClassifier, **changes: Any) -> TextClassifier:
    """A network with random weights, large enough that the size of scales is negligible."""
    config = replace(ModelConfig(embedding_dim=64, hidden_dim=32), **changes)
    module = LSTMClassifier(origin.tokenizer.get_vocab_size(), 3, config)
    return TextClassifier("larger", origin.labels, origin.tokenizer, module, config, "cpu")


def network(classifier: TextClassifier) -> dict[str, torch.Tensor]:
    """The tensors of a portable file without its tokenizer."""
    tensors = safetensors.torch.load(classifier.serialize())
    del tensors[TOKENIZER]
    return tensors


def num_bytes(classifier: TextClassifier) -> int:
    return sum(tensor.nbytes for tensor in network(classifier).values())


def stored_formats(classifier: TextClassifier) -> dict[str, Format]:
    content = classifier.serialize()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return json.loads(header["__metadata__"]["storage"])


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[tuple[LSTMClassifier, Progress]]:
    """Records the network and the history of each training."""
    recorded = []

    def fit(module: LSTMClassifier, *args: Any, **kwargs: Any) -> Progress:
        recorded.append((module, fitting.fit(module, *args, **kwargs)))
        return recorded[-1][1]

    monkeypatch.setattr(retraining, "fit", fit)
    return recorded


@pytest.mark.parametrize("pooling", ["max", "attention"])
def test_matrices_are_integers_and_biases_in_16_bits(origin: TextClassifier, pooling: Any) -> None:
    classifier = larger(origin, num_layers=2, pooling=pooling)
    eights, fours = int8_storage(classifier), int4_storage(classifier)
    assert eights.keys() == classifier.module.state_dict().keys()
    assert {name for name, kind in eights.items() if kind == "fp16"} == {
        name for name in eights if "bias" in name
    }
    assert set(eights.values()) == {"int8", "fp16"}
    assert eights | {"embedding.weight": "int4"} == fours


@both
def test_logits_are_those_of_the_rounded_weights(origin: TextClassifier, method: str) -> None:
    variant = quantized(origin, method)
    storage = STORAGES[method](origin)
    exact = origin.logits(TEXTS)
    origin.module.load_state_dict(
        {
            name: restore(store(tensor, storage[name]), storage[name], tensor.shape)
            for name, tensor in origin.module.state_dict().items()
        }
    )
    assert np.array_equal(variant.logits(TEXTS), origin.logits(TEXTS))
    assert not np.array_equal(variant.logits(TEXTS), exact)
    assert variant.logits(TEXTS) == pytest.approx(exact, abs=0.3)


@both
def test_name_formats_and_number_of_parameters(origin: TextClassifier, method: str) -> None:
    variant = quantized(origin, method)
    assert (variant.name, variant.labels) == (f"tiny ({method})", origin.labels)
    assert (variant.stored_dtype, variant.dtype, variant.device) == ("mixed", "fp32", "cpu")
    assert variant.num_parameters() == origin.num_parameters()
    assert stored_formats(variant) == STORAGES[method](origin)


@both
def test_the_file_of_the_tiny_run_is_smaller(origin: TextClassifier, method: str) -> None:
    variant = quantized(origin, method)
    assert variant.size_bytes() < origin.size_bytes()
    assert num_bytes(variant) < num_bytes(origin) / 2


def test_a_number_takes_less_than_eight_bits(origin: TextClassifier) -> None:
    classifier = larger(origin)
    whole, eights, fours = (
        num_bytes(model) for model in (classifier, *(quantized(classifier, m) for m in STORAGES))
    )
    assert whole == 4 * classifier.num_parameters()
    assert eights < whole / 4 * 1.05
    embedding = classifier.module.embedding.weight.numel()
    assert eights - fours > 0.3 * embedding
    assert classifier.size_bytes() - quantized(classifier, "int8").size_bytes() == pytest.approx(
        whole - eights, abs=2_000
    )


@both
def test_the_origin_does_not_change(origin: TextClassifier, method: str) -> None:
    before = network(origin)
    quantized(origin, method)
    after = network(origin)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert origin.stored_dtype == "fp32"


@pytest.mark.parametrize(
    ("method", "pooling"), [("int8", "last"), ("int4", "max"), ("int8", "attention")]
)
def test_a_loaded_copy_gives_the_same_logits(
    origin: TextClassifier, tmp_path: Path, method: str, pooling: Any
) -> None:
    classifier = larger(origin, hidden_dim=7, embedding_dim=5, num_layers=2, pooling=pooling)
    variant = quantized(classifier, method)
    variant.save(tmp_path / "variant.safetensors")
    loaded = load(tmp_path / "variant.safetensors", "cpu")
    assert isinstance(loaded, TextClassifier)
    assert np.array_equal(loaded.logits(TEXTS), variant.logits(TEXTS))
    assert loaded.storage == variant.storage
    assert loaded.size_bytes() == (tmp_path / "variant.safetensors").stat().st_size


@both
def test_weights_of_zero_survive(origin: TextClassifier, tmp_path: Path, method: str) -> None:
    with torch.no_grad():
        origin.module.head.weight.zero_()
        origin.module.embedding.weight[3:] = 0
    variant = quantized(origin, method)
    variant.save(tmp_path / "variant.safetensors")
    loaded = load(tmp_path / "variant.safetensors", "cpu")
    assert isinstance(loaded, TextClassifier)
    assert not loaded.module.head.weight.any()
    assert not loaded.module.embedding.weight[3:].any()
    assert np.isfinite(loaded.logits(TEXTS)).all()


@both
def test_a_trained_variant_gives_the_logits_of_its_training(
    origin: TextClassifier, dataset: Dataset, tmp_path: Path, method: str,
    fits: list[tuple[LSTMClassifier, Progress]], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(Origin, "macro_f1", lambda *_: 0.5)  # as good as rounding alone
    before, twin = origin.logits(TEXTS), quantized(origin, method)
    storage = STORAGES[method](origin)
    variant = made(origin, dataset, tmp_path, QAT[method], **RETRAINING)
    assert np.array_equal(origin.logits(TEXTS), before)
    ((exact, progress),) = fits
    batch = variant.encode(TEXTS)
    with torch.inference_mode():
        unrounded = exact.eval()(batch.input_ids, batch.lengths)
        with projected(exact, as_stored(storage)):
            in_training = exact(batch.input_ids, batch.lengths)
    variant.save(tmp_path / "variant.safetensors")
    loaded = load(tmp_path / "variant.safetensors", "cpu")
    assert np.array_equal(variant.forward(batch), in_training.numpy())
    assert np.array_equal(loaded.forward(batch), in_training.numpy())
    assert not np.array_equal(variant.forward(batch), unrounded.numpy())
    best = max(progress.history, key=lambda record: record["validation_macro_f1"])
    scores = evaluate(loaded, dataset.validation, dataset.name).scores
    assert scores["macro_f1"] == pytest.approx(best["validation_macro_f1"])
    assert scores["accuracy"] == pytest.approx(best["validation_accuracy"])
    # It is stored like the variant that is only rounded, with other weights.
    assert variant.name == f"tiny ({QAT[method]})"
    assert stored_formats(variant) == stored_formats(twin)
    assert {name: tensor.dtype for name, tensor in network(variant).items()} == {
        name: tensor.dtype for name, tensor in network(twin).items()
    }
    assert num_bytes(variant) == pytest.approx(num_bytes(twin), rel=0.1)
    assert not torch.equal(variant.module.encoder.forwards[0].weight_ih_l0,
                           twin.module.encoder.forwards[0].weight_ih_l0)  # fmt: skip


@pytest.mark.parametrize("trained", [0.4, 0.6])
def test_training_is_dropped_if_rounding_alone_is_better(
    origin: TextClassifier,
    dataset: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    trained: float,
) -> None:
    rounded = quantized(origin, "int8").logits(TEXTS)

    def macro_f1(_: Origin, variant: TextClassifier) -> float:
        return 0.5 if np.array_equal(variant.logits(TEXTS), rounded) else trained

    monkeypatch.setattr(Origin, "macro_f1", macro_f1)
    variant = made(origin, dataset, tmp_path, "qat", **RETRAINING)
    assert np.array_equal(variant.logits(TEXTS), rounded) == (trained < 0.5)
