import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from featherweight import load
from featherweight.errors import UsageError
from lstm.classifier import TOKENIZER, TextClassifier, model_config
from lstm.config import ModelConfig, TrainConfig
from lstm.tokenizer import UNK_ID
from tests.helpers.tiny_lstm import LABELS, TEXTS, make_classifier

pytestmark = pytest.mark.usefixtures("nothing_is_unpickled")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"pooling": "attention", "num_layers": 3},
        {"pooling": "last", "bidirectional": False},
        {"pooling": "mean"},
    ],
)
def test_moved_portable_file_gives_equal_logits(tmp_path: Path, changes: dict[str, Any]) -> None:
    classifier = make_classifier(**changes)
    classifier.save(tmp_path / "model.safetensors")
    elsewhere = tmp_path / "a folder" / "renamed.safetensors"
    elsewhere.parent.mkdir()
    (tmp_path / "model.safetensors").rename(elsewhere)
    loaded = load(str(elsewhere), "cpu")
    assert isinstance(loaded, TextClassifier)
    assert (loaded.name, loaded.labels, loaded.device) == (classifier.name, LABELS, "cpu")
    assert loaded.config == classifier.config
    assert np.array_equal(loaded.logits(TEXTS), classifier.logits(TEXTS))
    assert loaded.predict(TEXTS) == classifier.predict(TEXTS)


def test_run_and_copy_of_its_model_file_give_equal_logits(tiny_run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "mine.safetensors"
    shutil.copy(tiny_run / "model.safetensors", copy)
    assert np.array_equal(load(copy, "cpu").logits(TEXTS), load(tiny_run, "cpu").logits(TEXTS))


def test_loaded_classifier_saves_the_same_file(portable: Path) -> None:
    loaded = load(portable, "cpu")
    assert isinstance(loaded, TextClassifier)
    # Several times, because the library writes metadata in random order.
    assert {loaded.serialize() for _ in range(20)} == {portable.read_bytes()}


def test_size_is_that_of_the_portable_file(portable: Path) -> None:
    assert load(portable, "cpu").size_bytes() == portable.stat().st_size


def test_parameters_are_those_of_the_network() -> None:
    classifier = make_classifier()
    tensors = safetensors.torch.load(classifier.serialize())
    del tensors[TOKENIZER]
    assert classifier.num_parameters() == sum(tensor.numel() for tensor in tensors.values())


def test_saving_leaves_no_other_file(portable: Path) -> None:
    make_classifier().save(portable)
    assert list(portable.parent.iterdir()) == [portable]


def test_loaded_network_is_in_evaluation_mode(portable: Path) -> None:
    loaded = load(portable, "cpu")
    assert isinstance(loaded, TextClassifier)
    assert not any(module.training for module in loaded.module.modules())
    assert np.array_equal(loaded.logits(TEXTS), loaded.logits(TEXTS))


def test_logits_keep_the_order_of_the_texts() -> None:
    classifier = make_classifier()
    together = classifier.logits(TEXTS)
    assert together.shape == (len(TEXTS), len(LABELS))
    for row, text in enumerate(TEXTS):
        np.testing.assert_allclose(classifier.logits([text])[0], together[row], atol=1e-6)
    np.testing.assert_allclose(classifier.logits(TEXTS, batch_size=2), together, atol=1e-6)


def test_probabilities_are_the_softmax_and_predictions_their_largest() -> None:
    classifier = make_classifier()
    logits = classifier.logits(TEXTS).astype(np.float64)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(classifier.predict_proba(TEXTS), expected, atol=1e-9)
    assert classifier.predict(TEXTS) == [LABELS[index] for index in logits.argmax(axis=1)]


def test_empty_text_is_encoded_as_one_unknown_token() -> None:
    batch = make_classifier().encode(["", "i am"])
    assert batch.input_ids[0].tolist() == [UNK_ID, 0]
    assert batch.lengths.tolist() == [1, 2]


def test_texts_cut_at_the_maximum_length_are_counted() -> None:
    classifier = make_classifier()
    classifier.logits(["i " * 21, "i " * 20, "i " * 100_000])
    assert classifier.truncated_texts == 2
    classifier.logits(["i " * 21])
    assert classifier.truncated_texts == 3


def test_model_config_is_only_the_architecture() -> None:
    config = model_config(TrainConfig(hidden_dim=5, epochs=9))
    assert type(config) is ModelConfig
    assert config == ModelConfig(hidden_dim=5)


def test_unavailable_device_is_refused(portable: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="cuda"):
        load(portable, "cuda")
